import { describe, expect, test } from 'vitest';
import { Api } from './api.ts';

const UUID = /^req-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

describe('version documents', () => {
  test('the root answers 300 and /v3 answers 200 with the same document', async () => {
    await using api = await Api.open();
    const headers = { host: 'store.example:8776' };
    const root = await api.ask('GET', '/', { headers });
    expect(root.status).toBe(300);
    expect(root.body.versions[0]).toMatchObject({ id: 'v3.0', status: 'CURRENT', version: '3.71', min_version: '3.0' });
    expect(root.body.versions[0].links[1]).toEqual({ rel: 'self', href: 'http://store.example:8776/v3/' });
    for (const path of ['/v3', '/v3/']) {
      const reply = await api.ask('GET', path, { headers });
      expect([reply.status, reply.body]).toEqual([200, root.body]);
      expect(reply.headers['openstack-api-version']).toBe('volume 3.0');
    }
    expect((await api.ask('GET', '/v2')).status).toBe(404);
    const health = await api.ask('GET', '/healthcheck');
    expect([health.status, health.body]).toEqual([200, 'OK']);
  });

  test('links follow the proxy that the request came through', async () => {
    await using api = await Api.open();
    const headers = {
      host: 'inner',
      'x-forwarded-proto': 'https',
      'x-forwarded-host': 'api.example',
      'x-forwarded-prefix': '/volume',
    };
    const { body } = await api.ask('GET', '/', { headers });
    expect(body.versions[0].links[1].href).toBe('https://api.example/volume/v3/');
    const evil = await api.ask('GET', '/', { headers: { 'x-forwarded-host': 'a"><b', host: 'inner' } });
    expect(evil.body.versions[0].links[1].href).toBe('http://inner/v3/');
  });

  test('clients without an identity service get what they ask for', async () => {
    await using api = await Api.open();
    const headers = { 'x-auth-user': 'me', 'x-auth-project-id': 'mine', host: 'here' };
    const reply = await api.ask('GET', '/v3', { headers });
    expect(reply.status).toBe(204);
    expect(reply.headers['x-auth-token']).toBe('me:mine');
    expect(reply.headers['x-server-management-url']).toBe('http://here/v3/mine');
  });
});

describe('microversions', () => {
  test.each([
    [undefined, 'volume 3.0'],
    ['volume 3.42', 'volume 3.42'],
    ['compute 2.1, volume 3.7', 'volume 3.7'],
    ['volume latest', 'volume 3.71'],
    ['compute 2.1', 'volume 3.0'],
  ])('%s is answered as %s', async (asked, used) => {
    await using api = await Api.open();
    const headers: Record<string, string> = asked === undefined ? {} : { 'openstack-api-version': asked };
    const reply = await api.ask('GET', '/v3/volumes', { headers });
    expect(reply.status).toBe(200);
    expect(reply.headers['openstack-api-version']).toBe(used);
    expect(reply.headers['vary']).toBe('OpenStack-API-Version');
  });

  test.each(['volume 3.72', 'volume 4.0', 'volume 2.0'])('%s is out of range', async (asked) => {
    await using api = await Api.open();
    const { status, body } = await api.ask('GET', '/v3/volumes', { headers: { 'openstack-api-version': asked } });
    expect(status).toBe(406);
    expect(body.computeFault.message).toContain('Minimum is 3.0 and maximum is 3.71.');
  });

  test.each(['volume', 'volume 3', 'volume x.y', 'volume 3.1.2', 'volume 3.1 x'])('%s is malformed', async (asked) => {
    await using api = await Api.open();
    const reply = await api.ask('GET', '/v3/volumes', { headers: { 'openstack-api-version': asked } });
    expect(reply.status).toBe(400);
    expect(reply.body.badRequest.message).toContain('is of invalid format. Must be of format MajorNum.MinorNum.');
    expect(reply.headers['openstack-api-version']).toBeUndefined();
  });

  test('routes and actions that are newer than the version asked for are not found', async () => {
    await using api = await Api.open();
    const id = await api.createVolume();
    expect((await api.ask('GET', '/v3/resource_filters', { minor: 32 })).status).toBe(404);
    expect((await api.ask('GET', '/v3/resource_filters', { minor: 33 })).status).toBe(200);
    const revert = { revert: { snapshot_id: id } };
    const old = await api.act(id, revert, 39);
    expect([old.status, Object.keys(old.body)]).toEqual([404, ['itemNotFound']]);
  });

  test.each([
    [0, [], ['group_id', 'provider_id', 'shared_targets', 'cluster_name', 'volume_type_id', 'consumes_quota']],
    [13, ['group_id'], ['provider_id']],
    [48, ['group_id', 'provider_id', 'shared_targets', 'service_uuid'], ['cluster_name']],
    [71, ['cluster_name', 'volume_type_id', 'consumes_quota'], ['encryption_key_id']],
  ])('a volume at 3.%i has the fields of that version', async (minor, present, absent) => {
    await using api = await Api.open();
    const id = await api.createVolume();
    const { body } = await api.ask('GET', `/v3/volumes/${id}`, { minor });
    for (const field of present) expect(body.volume).toHaveProperty(field);
    for (const field of absent) expect(body.volume).not.toHaveProperty(field);
  });
});

describe('every answer', () => {
  test('has a request id, also when it is an error', async () => {
    await using api = await Api.open();
    for (const path of ['/', '/v3/volumes', '/v3/nowhere', '/nowhere', '/v3/volumes/x']) {
      const { headers } = await api.ask('GET', path);
      expect(headers['x-openstack-request-id']).toMatch(UUID);
      if (path.startsWith('/v3')) expect(headers['x-compute-request-id']).toBe(headers['x-openstack-request-id']);
    }
  });

  test('is plain application/json', async () => {
    await using api = await Api.open();
    for (const path of ['/v3/volumes', '/v3/nowhere', '/'])
      expect((await api.ask('GET', path)).headers['content-type']).toBe('application/json');
  });

  test('to an unknown path or method is a JSON 404', async () => {
    await using api = await Api.open();
    const wrong = [
      ['GET', '/v3/backup'],
      ['PATCH', '/v3/volumes'],
      ['POST', '/v3/p1/nowhere/at/all'],
      ['GET', '/v3/p1'],
      ['DELETE', '/'],
    ] as const;
    for (const [method, path] of wrong) {
      const { status, body } = await api.ask(method, path);
      expect([status, body]).toEqual([404, { itemNotFound: { code: 404, message: expect.any(String) } }]);
    }
  });
});

describe('both URL forms', () => {
  test('work, and the one with a project acts in that project', async () => {
    await using api = await Api.open();
    const body = { volume: { size: 1, name: 'mine' } };
    const created = await api.ask('POST', '/v3/p9/volumes', { body, headers: { host: 'h' } });
    await api.settle();
    const { id, links } = created.body.volume;
    expect(links).toEqual([
      { rel: 'self', href: `http://h/v3/p9/volumes/${id}` },
      { rel: 'bookmark', href: `http://h/p9/volumes/${id}` },
    ]);
    const names = async (path: string) => {
      const reply = await api.ask('GET', path);
      return reply.body.volumes.map((volume: { name: string }) => volume.name);
    };
    expect(await names('/v3/p9/volumes')).toEqual(['mine']);
    expect(await names('/v3/volumes')).toEqual([]);
    expect(await names('/v3/volumes?all_tenants=1')).toEqual(['mine']);
    expect(await names('/v3/volumes?all_tenants=True&project_id=p9')).toEqual(['mine']);
    const shown = await api.ask('GET', `/v3/volumes/${id}`, { headers: { host: 'h' } });
    expect(shown.body.volume['os-vol-tenant-attr:tenant_id']).toBe('p9');
    expect(shown.body.volume.links[0].href).toBe(`http://h/v3/volumes/${id}`);
  });
});

describe('bodies', () => {
  test.each([
    ['not JSON', '{"volume"'],
    ['no object', '[]'],
    ['a text', '"volume"'],
    ['null', 'null'],
  ])('%s is 400', async (_what, body) => {
    await using api = await Api.open();
    const { status, body: answer } = await api.ask('POST', '/v3/volumes', { body });
    expect([status, Object.keys(answer)]).toEqual([400, ['badRequest']]);
  });

  test('another content type is 415, none at all counts as no body', async () => {
    await using api = await Api.open();
    const post = (type: string | null) =>
      api.server.inject({
        method: 'POST',
        url: '/v3/volumes',
        headers: type === null ? {} : { 'content-type': type },
        payload: Buffer.from('{"volume":{"size":1}}'),
      });
    for (const type of ['text/plain', 'application/xml']) {
      const reply = await post(type);
      expect([reply.statusCode, reply.json()]).toEqual([
        415,
        { badMediaType: { code: 415, message: 'Unsupported Content-Type' } },
      ]);
    }
    expect((await post(null)).statusCode).toBe(400);
    expect((await post('application/json; charset=UTF-8')).statusCode).toBe(202);
  });

  test('up to 114688 bytes are read, more is 413', async () => {
    await using api = await Api.open();
    const padded = (bytes: number) => {
      const body = JSON.stringify({ volume: { size: 1 } });
      return body + ' '.repeat(bytes - body.length);
    };
    expect((await api.ask('POST', '/v3/volumes', { body: padded(114_688) })).status).toBe(202);
    const { status, body } = await api.ask('POST', '/v3/volumes', { body: padded(114_689) });
    expect([status, Object.keys(body)]).toEqual([413, ['overLimit']]);
  });
});

test('a resource has an ETag from 3.15 that changes with it', async () => {
  await using api = await Api.open();
  const id = await api.createVolume();
  const tag = async (minor: number) => (await api.ask('GET', `/v3/volumes/${id}`, { minor })).headers['etag'];
  const before = await tag(15);
  expect(before).toMatch(/^[0-9a-f]{32}$/);
  expect(await tag(14)).toBeUndefined();
  await api.ask('PUT', `/v3/volumes/${id}`, { body: { volume: { name: 'n' } } });
  expect(await tag(15)).not.toBe(before);
});

test('what unmodified clients ask first is there', async () => {
  await using api = await Api.open();
  const get = async (path: string, minor = 71) => {
    const { status, body } = await api.ask('GET', `/v3/${path}`, { minor });
    expect(status).toBe(200);
    return body;
  };
  expect((await get('types')).volume_types).toMatchObject([{ name: '__DEFAULT__', is_public: true }]);
  const { volume_type: type } = await get('types/default');
  expect((await get(`types/${type.id}`)).volume_type).toEqual(type);
  expect(await get('os-availability-zone')).toEqual({
    availabilityZoneInfo: [{ zoneName: 'nova', zoneState: { available: true } }],
  });
  expect((await get('os-services')).services.map((one: { binary: string }) => one.binary)).toContain('cinder-volume');
  const { pools } = await get('scheduler-stats/get_pools?detail=true');
  expect(pools[0]).toMatchObject({ name: 'here@pool#pool', capabilities: { storage_protocol: 'nbd' } });
  expect((await get('scheduler-stats/get_pools')).pools).toEqual([{ name: 'here@pool#pool' }]);
  expect((await get('resource_filters?resource=snapshot')).resource_filters).toHaveLength(1);
  expect((await get('extensions')).extensions.length).toBeGreaterThan(5);
  const id = await api.createVolume();
  expect(await get(`volumes/${id}/encryption`)).toEqual({ encryption_key_id: null });
  expect((await api.ask('GET', '/v3/types/nothing')).status).toBe(404);
});
