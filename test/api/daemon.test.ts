import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'undici';
import { describe, expect, test } from 'vitest';
import { MemoryBackend } from '../../src/backend/memory.ts';
import { Failure } from '../../src/base/errors.ts';
import { readConfig, type ServeFlags } from '../../src/daemon/config.ts';
import { runServe, type Surroundings } from '../../src/daemon/main.ts';

class Folder implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), 'quarry-daemon-'));
  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

type Ready = { ready: true; api: string[]; nbd: string[]; data: string; version: string };

async function serve(flags: ServeFlags, backend = new MemoryBackend(), more: Partial<Surroundings> = {}) {
  let stop = (): void => {};
  const stopAsked = new Promise<string>((resolve) => {
    stop = () => resolve('test');
  });
  let fatal = (_error: Error): void => {};
  let ended = Promise.resolve();
  const ready = await new Promise<Ready>((resolve, reject) => {
    ended = runServe(
      { logLevel: 'fatal', logFormat: 'json', ...flags },
      {
        createBackend: async ({ onFatal }) => {
          fatal = onFatal;
          return backend;
        },
        print: (line) => resolve(JSON.parse(line)),
        stopAsked,
        exitSoon: () => {},
        ...more,
      },
    );
    ended.catch(reject);
  });
  const stopped = (): Promise<void> => {
    stop();
    return ended;
  };
  return { ready, ended, stop: stopped, fatal };
}

async function get(url: string, path: string): Promise<number> {
  const client = url.startsWith('unix:')
    ? new Client('http://localhost', { socketPath: url.slice('unix:'.length) })
    : new Client(url);
  const { statusCode, body } = await client.request({ method: 'GET', path });
  await body.dump();
  await client.close();
  return statusCode;
}

const TLS = { nbdTls: 'require', nbdTlsCert: 'cert', nbdTlsKey: 'key' } as const;

describe('the daemon', () => {
  test('says when it serves, answers at every address, and stops cleanly', async () => {
    using folder = new Folder();
    const data = join(folder.path, 'deep', 'data');
    const socket = join(folder.path, 'api.sock');
    const told: string[] = [];
    const daemon = await serve({ data, api: [`127.0.0.1:0,unix:${socket}`] }, new MemoryBackend(), {
      notifySocket: '/run/notify',
      sendDatagram: (path, text) => told.push(`${path} ${text}`),
    });
    const { ready } = daemon;
    expect(ready).toMatchObject({ ready: true, data, nbd: ['unix:/nowhere/nbd.sock'] });
    expect(ready.api).toEqual([expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/), `unix:${socket}`]);
    for (const url of ready.api) expect(await get(url, '/v3/volumes')).toBe(200);
    expect(told).toEqual(['/run/notify READY=1']);
    await daemon.stop();
    expect(told).toEqual(['/run/notify READY=1', '/run/notify STOPPING=1']);
    expect(existsSync(socket)).toBe(false);
    await expect(get(ready.api[0] ?? '', '/')).rejects.toThrow();
  });

  test('takes over the socket of a killed one, and not that of a living one', async () => {
    using folder = new Folder();
    const socket = join(folder.path, 'api.sock');
    writeFileSync(socket, '');
    const flags = { data: join(folder.path, 'a'), api: `unix:${socket}` };
    const daemon = await serve(flags);
    await expect(serve({ ...flags, data: join(folder.path, 'b') })).rejects.toMatchObject({ code: 'cannot_listen' });
    expect(await get(`unix:${socket}`, '/v3')).toBe(200);
    await daemon.stop();
  });

  test('ends with the cause when its store is lost', async () => {
    using folder = new Folder();
    const daemon = await serve({ data: folder.path, api: '127.0.0.1:0' });
    const cause = new Error('the journal failed');
    daemon.fatal(cause);
    await expect(daemon.ended).rejects.toBe(cause);
  });

  test('refuses a catalog that is none', async () => {
    using folder = new Folder();
    writeFileSync(join(folder.path, 'catalog.db'), 'x'.repeat(4096));
    await expect(serve({ data: folder.path, api: '127.0.0.1:0' })).rejects.toMatchObject({ code: 'corrupt' });
  });
});

describe('settings', () => {
  const read = (flags: ServeFlags) => readConfig(flags, { isTerminal: false });
  const failure = (flags: ServeFlags): Failure => {
    try {
      read(flags);
    } catch (error) {
      if (error instanceof Failure) return error;
      throw error;
    }
    throw new Error('accepted');
  };

  test('have defaults below the data folder', () => {
    expect(read({ data: '/srv/q' })).toMatchObject({
      dataDir: '/srv/q',
      api: [{ kind: 'tcp', host: '127.0.0.1', port: 8776 }],
      nbd: ['unix:/srv/q/nbd.sock'],
      catalogPath: '/srv/q/catalog.db',
      logLevel: 'info',
      logFormat: 'json',
      quotaDefaults: { volumes: -1, gigabytes: -1 },
    });
  });

  test.each([
    ['toml', 'data = "/srv/q"\napi = ["127.0.0.1:1", "unix:/a.sock"]\nlog_level = "debug"\n[quota]\nvolumes = 7\n'],
    ['json', '{"data":"/srv/q","api":["127.0.0.1:1","unix:/a.sock"],"log_level":"debug","quota":{"volumes":7}}'],
  ])('come from a %s file, and flags win', (extension, content) => {
    using folder = new Folder();
    const config = join(folder.path, `quarry.${extension}`);
    writeFileSync(config, content);
    expect(read({ config, logLevel: 'warn' })).toMatchObject({
      dataDir: '/srv/q',
      api: [{ port: 1 }, { path: '/a.sock' }],
      logLevel: 'warn',
      quotaDefaults: { volumes: 7, snapshots: -1 },
    });
  });

  test.each([
    ['colour = "red"', "unknown key 'colour'"],
    ['log-level = "debug"', "Did you mean 'log_level'?"],
    ['[quota]\nboats = 1', "unknown key 'quota.boats'"],
    ['[quota]\nvolumes = -2', 'quota.volumes is -2'],
    ['[pool]\nsize = 1', "unknown key 'pool.size'"],
    [
      '[pool]\nmax_over_subscription_ratio = 0.5',
      'pool.max_over_subscription_ratio is 0.5, but must be a number from 1',
    ],
    ['[pool]\nreserved_percentage = 101', 'pool.reserved_percentage is 101'],
    ['[pool]\nreserve_bytes = 1', 'pool.reserve_bytes is 1, but must be a whole number from 67108864'],
    ['[pool]\nfill_bytes_per_second = -1', 'pool.fill_bytes_per_second is -1'],
    ['[pool]\nlow_percentage = 99', 'pool.low_percentage is 99, but must not be above'],
    ['nbd_connections_max = 0', 'nbd_connections_max is 0, but must be a whole number'],
    ['nbd_export_connections_max = 1.5', 'nbd_export_connections_max is 1.5'],
    ['backup_bytes_per_second = 1000', 'backup_bytes_per_second is 1000, but must be'],
    ['restore_wait_seconds = -1', 'restore_wait_seconds is -1, but must be'],
    ['data = 1', 'data is 1, but must be a text'],
    ['data = ', 'is not TOML'],
    ['public_endpoint = "nowhere"', "public_endpoint is 'nowhere'"],
  ])('in a file: %j is an error that names the key', (content, message) => {
    using folder = new Folder();
    const config = join(folder.path, 'quarry.toml');
    writeFileSync(config, content);
    expect(failure({ config }).message).toContain(message);
  });

  test.each([
    [{ config: '/nowhere.toml' }, 'bad_request', '/nowhere.toml cannot be read'],
    [{ auth: 'keystone' }, 'bad_request', 'needs a [keystone] table'],
    [{ auth: 'token' }, 'bad_request', 'needs at least one [[tokens]] table'],
    [{ auth: 'magic' }, 'bad_request', "--auth is 'magic'"],
    [{ catalog: 'postgres://db/x' }, 'not_supported', 'not built yet'],
    [{ catalog: 'x.db' }, 'bad_request', 'sqlite:PATH'],
    [{ backups: 'ftp://bucket' }, 'bad_request', 'file:DIR, s3://bucket/prefix or none'],
    [{ backups: 's3://bucket/a//b' }, 'bad_request', 'single slashes'],
    [{ backups: 's3://bucket', s3Endpoint: 'here' }, 'bad_request', "--s3-endpoint is 'here'"],
    [{ api: '0.0.0.0:8776' }, 'bad_request', 'or say --insecure'],
    [{ api: 'example.com:8776' }, 'bad_request', 'or say --insecure'],
    [{ nbd: '[::]:10809' }, 'bad_request', 'or say --insecure'],
    [{ nbdTls: 'maybe' }, 'bad_request', "--nbd-tls is 'maybe'"],
    [{ nbdTls: 'require', nbdTlsCert: 'a' }, 'bad_request', '--nbd-tls require needs'],
    [{ nbdTlsClientCa: 'ca' }, 'bad_request', 'need --nbd-tls allow or require'],
    [{ ...TLS, nbd: '0.0.0.0:1' }, 'bad_request', 'or say --insecure'],
    [{ ...TLS, nbdTls: 'allow', nbdTlsClientCa: 'ca', nbd: '0.0.0.0:1' }, 'bad_request', 'or say --insecure'],
    [{ ...TLS, nbdTlsClientCa: 'ca', api: '0.0.0.0:1' }, 'bad_request', 'or say --insecure'],
    [{ apiTlsCert: 'a' }, 'bad_request', 'need each other'],
    [{ apiTlsKey: 'a' }, 'bad_request', 'need each other'],
    [{ apiTlsCert: 'a', apiTlsKey: 'b', api: '0.0.0.0:1' }, 'bad_request', 'or say --insecure'],
    [{ api: '8776' }, 'bad_request', 'neither host:port nor unix:PATH'],
    [{ api: '127.0.0.1:99999' }, 'bad_request', 'neither host:port nor unix:PATH'],
    [{ nbd: `unix:/${'x'.repeat(120)}` }, 'bad_request', 'sockets allow 107'],
    [{ logLevel: 'loud' }, 'bad_request', "--log-level is 'loud'"],
    [{ logFormat: 'xml' }, 'bad_request', "--log-format is 'xml'"],
  ] as const)('%j is refused', (flags, code, message) => {
    const error = failure(flags);
    expect([error.code, error.message]).toEqual([code, expect.stringContaining(message)]);
  });

  test('loopback and, when spelled out, everything else is accepted without authentication', () => {
    for (const api of ['127.0.0.1:1', '127.9.9.9:1', 'localhost:1', '[::1]:1', 'unix:/a']) read({ api });
    read({ api: '0.0.0.0:1', nbd: '0.0.0.0:2', insecure: true });
    const guarded = read({ ...TLS, nbdTlsClientCa: 'ca', nbd: '0.0.0.0:2' });
    expect(guarded.nbdTls).toMatchObject({ isRequired: true, clientCa: expect.stringMatching(/^\/.*\/ca$/) });
  });
});
