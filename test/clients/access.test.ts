/**
 * Quarry behind a real Keystone: who gets in, who may what, when a revoked token ends, and the command line that logs in
 * by itself. How answers are shared and remembered is tested where the clock can be set.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type ApiReply, type Daemon, startDaemon } from '../support/daemon.ts';
import { KEYSTONE_START_MS, type Keystone, startKeystone, type UserName } from '../support/keystone.ts';
import { type Output, tryRun } from '../support/peers.ts';
import { describeWithPython } from '../support/python.ts';
import { quarry } from '../support/quarry.ts';
import { type TempFolder, tempFolder } from '../support/temp.ts';

type Fields = Readonly<Record<string, string | number>>;

function toml(fields: Fields): string {
  const lines = Object.entries(fields).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
  return ['auth = "keystone"', '[keystone]', ...lines, ''].join('\n');
}

await describeWithPython('openstack', 'behind Keystone', (python) => {
  let keystone: Keystone;
  let folder: TempFolder;
  let daemon: Daemon;

  const own = (): Fields => ({
    auth_url: keystone.url,
    username: 'quarry',
    password: 'quarry',
    project_name: 'service',
    token_cache_seconds: 0,
  });

  const start = async (fields: Fields): Promise<Daemon> => {
    const config = join(folder.path, `${crypto.randomUUID()}.toml`);
    await writeFile(config, toml(fields), { mode: 0o600 });
    return startDaemon({ api: 'tcp', args: ['--config', config] });
  };

  beforeAll(async () => {
    folder = await tempFolder();
    keystone = await startKeystone(python);
    daemon = await start(own());
    await keystone.publish(`${daemon.url}/v3`);
  }, KEYSTONE_START_MS);

  afterAll(async () => {
    await daemon?.stop();
    await keystone?.stop();
    await folder?.remove();
  });

  const send = (token: string, method: string, path: string, body?: unknown): Promise<ApiReply> =>
    daemon.request(method, path, body, { 'x-auth-token': token });
  const ask = async (name: UserName, method: string, path: string, body?: unknown): Promise<ApiReply> =>
    send(await keystone.token(name), method, path, body);
  const idOf = ({ body }: ApiReply): string => (body as { volume: { id: string } }).volume.id;
  const create = async (name: UserName): Promise<string> => {
    const reply = await ask(name, 'POST', '/v3/volumes', { volume: { size: 1, name: `of ${name}` } });
    expect(reply.status, JSON.stringify(reply.body)).toBe(202);
    return idOf(reply);
  };

  it('nobody without a token gets in, and is told where tokens come from', async () => {
    for (const headers of [{}, { 'x-auth-token': 'gAAAAinvented' }]) {
      const reply = await daemon.request('GET', '/v3/volumes', undefined, headers);
      expect(reply.status).toBe(401);
      expect(reply.headers['www-authenticate']).toBe(`Keystone uri="${keystone.url}"`);
      expect(reply.body).toMatchObject({ error: { code: 401, title: 'Unauthorized' } });
    }
    expect((await daemon.request('GET', '/v3/')).status).toBe(200);
    expect((await daemon.request('GET', '/healthcheck')).status).toBe(200);
  });

  it('roles are those that Keystone gives: a reader reads, members and managers change, administrators see all', async () => {
    const id = await create('demo');
    await create('manager');
    const [show, change] = [`/v3/volumes/${id}`, { volume: { description: 'x' } }];
    for (const [name, read, write] of [
      ['demo', 200, 200],
      ['manager', 200, 200],
      ['reader', 200, 403],
      ['alt', 404, 404],
      ['admin', 200, 200],
    ] as const) {
      const token = await keystone.token(name);
      expect((await send(token, 'GET', show)).status, name).toBe(read);
      expect((await send(token, 'PUT', show, change)).status, name).toBe(write);
    }
    const shown = await ask('demo', 'GET', show);
    const { userId, projectId } = keystone.user('demo');
    expect(shown.body).toMatchObject({ volume: { user_id: userId, 'os-vol-tenant-attr:tenant_id': projectId } });
    const reset = { 'os-reset_status': { status: 'error' } };
    expect((await ask('demo', 'POST', `${show}/action`, reset)).status).toBe(403);
    expect((await ask('admin', 'POST', `${show}/action`, reset)).status).toBe(202);
  });

  it('a URL names the token’s own project or none', async () => {
    const { projectId } = keystone.user('demo');
    expect((await ask('demo', 'GET', `/v3/${projectId}/volumes`)).status).toBe(200);
    for (const name of ['alt', 'admin'] as const) {
      const reply = await ask(name, 'GET', `/v3/${projectId}/volumes`);
      expect([reply.status, reply.body]).toEqual([
        400,
        { badRequest: { code: 400, message: 'Malformed request url' } },
      ]);
    }
  });

  it('a token without a project is of no use, one of the system administrator sees everything', async () => {
    const unscoped = await keystone.token('demo', 'none');
    expect((await send(unscoped, 'GET', '/v3/volumes')).status).toBe(403);
    const id = await create('demo');
    const system = await keystone.token('admin', 'system');
    expect((await send(system, 'GET', `/v3/volumes/${id}`)).status).toBe(200);
    expect((await send(system, 'POST', '/v3/volumes', { volume: { size: 1 } })).status).toBe(403);
  });

  it('a revoked token ends at once where nothing is remembered', async () => {
    const token = await keystone.token('demo');
    expect((await send(token, 'GET', '/v3/volumes')).status).toBe(200);
    await keystone.revoke(token);
    expect((await send(token, 'GET', '/v3/volumes')).status).toBe(401);
  });

  it('a service says so with a token of its own', async () => {
    const headers = { 'x-auth-token': await keystone.token('demo'), 'x-service-token': await keystone.token('quarry') };
    expect((await daemon.request('GET', '/v3/volumes', undefined, headers)).status).toBe(200);
    const wrong = { ...headers, 'x-service-token': 'invented' };
    expect((await daemon.request('GET', '/v3/volumes', undefined, wrong)).status).toBe(401);
  });

  it('nothing is exported but to attachments', async () => {
    const id = await create('demo');
    const reply = await ask('demo', 'GET', `/v3/quarry/volumes/${id}/exports`);
    expect(reply.body).toEqual({ exports: [] });
  });

  const cli = (name: UserName, args: readonly string[], env: Record<string, string> = {}): Promise<Output> =>
    quarry(args, { env: { ...keystone.env(name), ...env } });

  it('the command line logs in and finds the daemon in the catalog', async () => {
    const made = await cli('demo', ['-o', 'json', 'volume', 'create', 'by-hand', '--size', '1']);
    expect([made.code, made.stderr]).toEqual([0, '']);
    const { id } = JSON.parse(made.stdout);
    const shown = await cli('reader', ['-o', 'value', '-c', 'name', 'volume', 'show', id]);
    expect([shown.code, shown.stdout]).toEqual([0, 'by-hand\n']);
    const token = await keystone.token('demo');
    const direct = await quarry(['--url', daemon.url, '--token', token, 'volume', 'show', id]);
    expect(direct.code).toBe(0);
    const byToken = await cli('demo', ['volume', 'show', id], {
      OS_AUTH_TYPE: 'token',
      OS_TOKEN: token,
      OS_PASSWORD: '',
    });
    expect([byToken.code, byToken.stderr]).toEqual([0, '']);
    expect((await cli('alt', ['volume', 'show', id])).code).toBe(3);
  });

  it('the command line exits 4 when it is refused: by role, by password, without a token', async () => {
    const role = await cli('reader', ['volume', 'create', 'x', '--size', '1']);
    expect([role.code, role.stderr]).toEqual([4, expect.stringContaining("Policy doesn't allow volume:create")]);
    const password = await cli('demo', ['volume', 'list'], { OS_PASSWORD: 'wrong' });
    expect([password.code, password.stderr]).toEqual([4, expect.stringContaining('refuses the credentials')]);
    const nothing = await quarry(['--url', daemon.url, 'volume', 'list']);
    expect([nothing.code, nothing.stderr]).toEqual([4, expect.stringContaining('Give a token with --token')]);
    expect((await cli('demo', ['status'])).code).toBe(4);
    expect((await cli('admin', ['status'])).code).toBe(0);
    const region = await cli('demo', ['volume', 'list'], { OS_REGION_NAME: 'Nowhere' });
    expect([region.code, region.stderr]).toEqual([2, expect.stringContaining('in region Nowhere')]);
  });

  it('the openstack command line works through the catalog', async () => {
    const openstack = (name: UserName, ...args: string[]): Promise<Output> =>
      tryRun(python.program('openstack'), args, { env: { ...python.env, ...keystone.env(name) } });
    const made = await openstack('demo', 'volume', 'create', '--size', '1', '-f', 'json', 'by-openstack');
    expect([made.code, made.stderr]).toEqual([0, '']);
    const { id } = JSON.parse(made.stdout);
    const shown = await openstack('reader', 'volume', 'show', '-f', 'value', '-c', 'name', id);
    expect([shown.code, shown.stdout]).toEqual([0, 'by-openstack\n']);
    const refused = await openstack('reader', 'volume', 'set', '--name', 'mine', id);
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining("Policy doesn't allow volume:update")]);
    expect((await openstack('alt', 'volume', 'show', id)).stderr).toMatch(
      /No volume found|could not be found|No Volume/,
    );
    // Four programs that take seconds to start, more on a busy machine.
  }, 180_000);

  it('the daemon logs in with an application credential, and asks the identity service of the catalog', async () => {
    const { userId } = keystone.user('quarry');
    const token = await keystone.token('quarry');
    const credential = await keystone.applicationCredential(token, userId);
    await using other = await start({
      auth_url: keystone.url.replace(/\/v3$/, ''),
      application_credential_id: credential.id,
      application_credential_secret: credential.secret,
      interface: 'public',
      region_name: 'RegionOne',
    });
    const headers = { 'x-auth-token': await keystone.token('demo') };
    const reply = await other.request('GET', '/v3/volumes', undefined, headers);
    expect([reply.status, reply.body]).toEqual([200, { volumes: [] }]);
  });

  it('a daemon with a wrong password starts, answers 503 and says why in its log', async () => {
    await using other = await start({ ...own(), password: 'wrong' });
    const headers = { 'x-auth-token': await keystone.token('demo') };
    const reply = await other.request('GET', '/v3/volumes', undefined, headers);
    expect([reply.status, reply.headers['retry-after']]).toEqual([503, '5']);
    expect(JSON.stringify(reply.body)).not.toContain('wrong');
    expect(other.log).toContain('refuses the credentials');
    expect(other.log).toContain('Check [keystone]');
  });
});
