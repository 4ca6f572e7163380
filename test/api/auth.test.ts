import { describe, expect, test } from 'vitest';
import type { Authenticator, Identity } from '../../src/api/auth/authenticator.ts';
import { Failure } from '../../src/base/errors.ts';
import { Api } from './api.ts';
import { as, ONE, OTHER, people, tokenOf } from './people.ts';

const guarded = () => Api.open({ server: { authenticator: people() } });

async function volumeOf(api: Api, person: Parameters<typeof as>[0]): Promise<string> {
  const { status, body } = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1 } }, headers: as(person) });
  expect(status, JSON.stringify(body)).toBe(202);
  await api.settle();
  return body.volume.id;
}

/** Whatever token comes, it stands for this one. */
function always(identity: Partial<Identity>): Authenticator {
  const whole = { userId: 'u', projectId: ONE, roles: [], isSystem: false, isAdminProject: true, ...identity };
  return { challenge: 'Keystone uri="http://id"', identify: async () => whole, close: async () => {} };
}

const ask = { headers: { 'x-auth-token': 'any' } };

describe('without a valid token', () => {
  test.each([
    ['none', {}],
    ['an unknown one', { 'x-auth-token': 'wrong' }],
    ['an empty one', { 'x-auth-token': '' }],
    ['a blank one', { 'x-auth-token': 'a b' }],
    ['an endless one', { 'x-auth-token': 'x'.repeat(9000) }],
    ['an unknown service token beside a good one', { ...as('member'), 'x-service-token': 'wrong' }],
  ])('%s: 401 in the form of the identity service', async (_, headers) => {
    await using api = await guarded();
    for (const url of ['/v3/volumes', `/v3/${ONE}/volumes`, '/v3/no/such/path', '/metrics']) {
      const reply = await api.ask('GET', url, { headers });
      expect(reply.status, url).toBe(401);
      const message = 'The request you have made requires authentication.';
      expect(reply.body).toEqual({ error: { code: 401, title: 'Unauthorized', message } });
      expect(reply.headers['www-authenticate']).toBe('Token realm="quarry"');
      expect(reply.headers['x-openstack-request-id']).toMatch(/^req-/);
    }
  });

  test('versions and health are told, and nobody is given a token', async () => {
    await using api = await guarded();
    for (const [url, status] of [
      ['/', 300],
      ['/v3', 200],
      ['/v3/', 200],
      ['/healthcheck', 200],
    ] as const)
      expect((await api.ask('GET', url)).status).toBe(status);
    const reply = await api.ask('GET', '/v3', { headers: { 'x-auth-user': 'me' } });
    expect([reply.status, reply.headers['x-auth-token']]).toEqual([200, undefined]);
  });

  test('a body is not even read', async () => {
    await using api = await guarded();
    expect((await api.ask('POST', '/v3/volumes', { body: '{' })).status).toBe(401);
  });
});

describe('a project', () => {
  test('other than the token’s in the URL is a malformed URL, also for administrators', async () => {
    await using api = await guarded();
    for (const person of ['member', 'admin'] as const) {
      const reply = await api.ask('GET', `/v3/${OTHER}/volumes`, { headers: as(person) });
      expect([reply.status, reply.body]).toEqual([
        400,
        { badRequest: { code: 400, message: 'Malformed request url' } },
      ]);
      expect((await api.ask('GET', `/v3/${ONE}/volumes`, { headers: as(person) })).status).toBe(200);
    }
  });

  test('sees its own objects; those of others are not there, also when they are named as sources', async () => {
    await using api = await guarded();
    const id = await volumeOf(api, 'member');
    const elsewhere = { headers: as('member elsewhere') };
    expect((await api.ask('GET', `/v3/volumes/${id}`, { headers: as('reader') })).body.volume).toMatchObject({
      'os-vol-tenant-attr:tenant_id': ONE,
      user_id: 'user-member',
    });
    for (const [method, url, body] of [
      ['GET', `/v3/volumes/${id}`, undefined],
      ['PUT', `/v3/volumes/${id}`, { volume: { name: 'mine' } }],
      ['DELETE', `/v3/volumes/${id}`, undefined],
      ['DELETE', `/v3/volumes/${id}?cascade=true`, undefined],
      ['POST', `/v3/volumes/${id}/action`, { 'os-extend': { new_size: 2 } }],
      ['POST', '/v3/volumes', { volume: { source_volid: id } }],
      ['POST', '/v3/snapshots', { snapshot: { volume_id: id } }],
      ['GET', `/v3/quarry/volumes/${id}/map`, undefined],
    ] as const)
      expect((await api.ask(method, url, { ...elsewhere, body })).status, `${method} ${url}`).toBe(404);
    expect((await api.ask('GET', `/v3/volumes/${id}`, { headers: as('admin elsewhere') })).status).toBe(200);
    const none = await api.ask('GET', '/v3/volumes?all_tenants=1', elsewhere);
    expect(none.body.volumes).toEqual([]);
    const all = await api.ask('GET', `/v3/volumes?all_tenants=1&project_id=${ONE}`, { headers: as('admin elsewhere') });
    expect(all.body.volumes.map((volume: { id: string }) => volume.id)).toEqual([id]);
  });

  // A page after somebody else's volume would tell that it exists, and by its place in the order how it is called.
  test('has no markers in other projects', async () => {
    await using api = await guarded();
    const id = await volumeOf(api, 'member');
    const made = { headers: as('member'), body: { snapshot: { volume_id: id } } };
    const snapshot = (await api.ask('POST', '/v3/snapshots', made)).body.snapshot.id;
    await api.settle();
    for (const url of [`/v3/volumes?marker=${id}`, `/v3/snapshots?marker=${snapshot}`]) {
      expect((await api.ask('GET', `${url}&sort=name:asc`, { headers: as('member elsewhere') })).status).toBe(404);
      expect((await api.ask('GET', url, { headers: as('admin elsewhere') })).status).toBe(404);
      expect((await api.ask('GET', `${url}&all_tenants=1`, { headers: as('admin elsewhere') })).status).toBe(200);
      expect((await api.ask('GET', url, { headers: as('member') })).status).toBe(200);
    }
  });

  test('is a filter for administrators only, like every word that nobody knows', async () => {
    await using api = await guarded();
    await volumeOf(api, 'member');
    const headers = as('member');
    for (const word of ['project_id=1', 'tenant_id=1', 'user_id=1', 'colour=red', 'colour~=red']) {
      const reply = await api.ask('GET', `/v3/volumes?${word}`, { headers, minor: 71 });
      expect([reply.status, reply.body.badRequest?.message]).toEqual([
        400,
        `Invalid filters ${word.split('=')[0]} are found in query options.`,
      ]);
      const before = await api.ask('GET', `/v3/volumes?${word}`, { headers, minor: 30 });
      expect([before.status, before.body.volumes.length]).toEqual([200, 1]);
    }
    expect((await api.ask('GET', '/v3/volumes?status=available&name~=x', { headers, minor: 71 })).status).toBe(200);
  });

  test('asks for its own quotas, and only administrators for those of others', async () => {
    await using api = await guarded();
    const quotas = (project: string, person: Parameters<typeof as>[0]) =>
      api.ask('GET', `/v3/os-quota-sets/${project}`, { headers: as(person) });
    expect((await quotas(ONE, 'reader')).status).toBe(200);
    expect((await quotas(ONE, 'admin elsewhere')).status).toBe(200);
    const reply = await quotas(ONE, 'member elsewhere');
    const message = "Policy doesn't allow volume_extension:quotas:show to be performed.";
    expect([reply.status, reply.body]).toEqual([403, { forbidden: { code: 403, message } }]);
    await volumeOf(api, 'member');
    const used = async (person: Parameters<typeof as>[0]) =>
      (await api.ask('GET', `/v3/limits?project_id=${ONE}`, { headers: as(person), minor: 39 })).body.limits.absolute
        .totalVolumesUsed;
    expect(await used('admin elsewhere')).toBe(1);
    expect(await used('member elsewhere')).toBe(0);
  });
});

describe('a role', () => {
  test('reader reads, member and manager also change, and only admin does what is for administrators', async () => {
    await using api = await guarded();
    const id = await volumeOf(api, 'manager');
    const status = async (person: Parameters<typeof as>[0], method: string, url: string, body?: unknown) =>
      (await api.ask(method, url, { headers: as(person), body })).status;
    expect(await status('reader', 'GET', `/v3/volumes/${id}`)).toBe(200);
    expect(await status('reader', 'PUT', `/v3/volumes/${id}`, { volume: { name: 'x' } })).toBe(403);
    expect(await status('member', 'PUT', `/v3/volumes/${id}`, { volume: { name: 'x' } })).toBe(200);
    expect(await status('member', 'DELETE', `/v3/volumes/${id}?force=true`)).toBe(202);
  });

  test('is asked for by each action, which a reader may use to look', async () => {
    await using api = await guarded();
    const id = await volumeOf(api, 'member');
    const act = (person: Parameters<typeof as>[0], body: unknown) =>
      api.ask('POST', `/v3/volumes/${id}/action`, { headers: as(person), body });
    const image = { 'os-set_image_metadata': { metadata: { os: 'linux' } } };
    expect((await act('reader', image)).status).toBe(403);
    expect((await act('member', image)).status).toBe(200);
    const shown = await act('reader', { 'os-show_image_metadata': null });
    expect([shown.status, shown.body]).toEqual([200, { metadata: { os: 'linux' } }]);
    const refused = await act('member', { 'os-force_delete': {} });
    const rule = 'volume_extension:volume_admin_actions:force_delete';
    expect(refused.body.forbidden.message).toBe(`Policy doesn't allow ${rule} to be performed.`);
    const forced = await api.ask('DELETE', `/v3/volumes/${id}?force=true`, { headers: as('member'), minor: 23 });
    expect(forced.status).toBe(403);
    expect((await act('admin elsewhere', { 'os-force_delete': {} })).status).toBe(202);
  });

  test('decides what of a volume is shown', async () => {
    await using api = await guarded();
    const id = await volumeOf(api, 'member');
    const shown = async (person: Parameters<typeof as>[0]) =>
      (await api.ask('GET', `/v3/volumes/${id}`, { headers: as(person) })).body.volume;
    expect(await shown('member')).not.toHaveProperty('os-vol-host-attr:host');
    expect(await shown('admin')).toHaveProperty('os-vol-host-attr:host');
  });

  test('that is none of ours gives nothing to do', async () => {
    await using api = await guarded();
    const reply = await api.ask('GET', '/v3/volumes', { headers: as('service') });
    expect([reply.status, reply.body.forbidden.code]).toEqual([403, 403]);
  });

  test('service makes a request one of a service when its token comes beside the user’s', async () => {
    await using api = await guarded();
    const seen: boolean[] = [];
    api.server.addHook('preHandler', async (request) => void seen.push(request.asked.caller.isService));
    const more = (person: Parameters<typeof as>[0]) => ({ ...as('member'), 'x-service-token': tokenOf(person) });
    for (const headers of [as('member'), more('reader'), more('service')])
      expect((await api.ask('GET', '/v3/volumes', { headers })).status).toBe(200);
    expect(seen).toEqual([false, false, true]);
  });

  test('admin counts only in the project that the identity service names for it', async () => {
    await using api = await Api.open({
      server: { authenticator: always({ roles: ['admin'], isAdminProject: false }) },
    });
    expect((await api.ask('GET', '/v3/os-services', ask)).status).toBe(403);
    expect((await api.ask('POST', '/v3/volumes', { ...ask, body: { volume: { size: 1 } } })).status).toBe(202);
  });
});

describe('a token without a project', () => {
  test('may do nothing in projects: 403, or 400 where the URL names one', async () => {
    await using api = await Api.open({ server: { authenticator: always({ roles: ['member'], projectId: null }) } });
    expect((await api.ask('GET', '/v3/volumes', ask)).status).toBe(403);
  });

  test('of a system administrator sees and manages everything, and makes nothing', async () => {
    const authenticator = always({ roles: ['admin'], projectId: null, isSystem: true });
    await using api = await Api.open({ server: { authenticator } });
    const id = await api.world.volume();
    expect((await api.ask('GET', `/v3/volumes/${id}`, ask)).status).toBe(200);
    expect((await api.ask('GET', `/v3/${ONE}/volumes`, ask)).status).toBe(400);
    expect((await api.ask('GET', '/v3/volumes?all_tenants=1', ask)).body.volumes).toHaveLength(1);
    expect((await api.ask('GET', '/v3/volumes', ask)).body.volumes).toEqual([]);
    expect((await api.ask('POST', '/v3/volumes', { ...ask, body: { volume: { size: 1 } } })).status).toBe(403);
    const reset = { 'os-reset_status': { status: 'error' } };
    expect((await api.ask('POST', `/v3/volumes/${id}/action`, { ...ask, body: reset })).status).toBe(202);
    const quota = { quota_set: { volumes: 3 } };
    expect((await api.ask('PUT', `/v3/os-quota-sets/${ONE}`, { ...ask, body: quota })).status).toBe(200);
  });

  test('of a system reader is of no use here', async () => {
    const authenticator = always({ roles: ['reader'], projectId: null, isSystem: true });
    await using api = await Api.open({ server: { authenticator } });
    expect((await api.ask('GET', '/v3/volumes', ask)).status).toBe(403);
  });
});

test('an identity service that cannot be reached is 503 that says so and when to try again', async () => {
  const failure = new Failure('identity_unavailable', { url: 'http://id/v3', reason: 'connection refused' });
  const authenticator: Authenticator = { ...always({}), identify: () => Promise.reject(failure) };
  await using api = await Api.open({ server: { authenticator } });
  const reply = await api.ask('GET', '/v3/volumes', ask);
  const message = 'The identity service http://id/v3 cannot be used: connection refused.';
  expect([reply.status, reply.body]).toEqual([503, { serviceUnavailable: { code: 503, message } }]);
  expect(reply.headers['retry-after']).toBe('5');
});

test('metrics are for administrators, unless the operator opened them', async () => {
  await using api = await guarded();
  expect((await api.ask('GET', '/metrics', { headers: as('member') })).status).toBe(403);
  expect((await api.ask('GET', '/metrics', { headers: as('admin elsewhere') })).status).toBe(200);
  await using open = await Api.open({ server: { authenticator: people(), openMetrics: true } });
  expect((await open.ask('GET', '/metrics')).status).toBe(200);
});

describe('limits', () => {
  test('of requests count per project, and the next minute is promised', async () => {
    const rateLimits = { addressPerMinute: null, projectPerMinute: 2 };
    await using api = await Api.open({ server: { authenticator: people(), rateLimits } });
    const asked = (person: Parameters<typeof as>[0]) => api.ask('GET', '/v3/volumes', { headers: as(person) });
    for (const person of ['member', 'reader'] as const) expect((await asked(person)).status).toBe(200);
    const reply = await asked('member');
    expect([reply.status, reply.body.overLimit.code]).toEqual([429, 429]);
    expect(Number(reply.headers['retry-after'])).toBeGreaterThan(0);
    expect(reply.body.overLimit.retryAfter).toBe(reply.headers['retry-after']);
    expect((await asked('member elsewhere')).status).toBe(200);
  });

  test('of requests count per address before tokens are looked at', async () => {
    const rateLimits = { addressPerMinute: 2, projectPerMinute: null };
    await using api = await Api.open({ server: { authenticator: people(), rateLimits } });
    const statuses = [];
    for (const token of ['guess-1', 'guess-2', tokenOf('member')])
      statuses.push((await api.ask('GET', '/v3/volumes', { headers: { 'x-auth-token': token } })).status);
    expect(statuses).toEqual([401, 401, 429]);
  });

  test('of bodies are what the operator says', async () => {
    await using api = await Api.open({ server: { bodyBytesMax: 200_000 } });
    const body = (bytes: number) => ({ body: `{"volume":{"size":1,"x":"${'x'.repeat(bytes)}"}}` });
    expect((await api.ask('POST', '/v3/volumes', body(150_000))).status).toBe(202);
    expect((await api.ask('POST', '/v3/volumes', body(200_000))).status).toBe(413);
  });
});
