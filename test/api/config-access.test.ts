/** What the configuration says about who may ask, and what it may not say. */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'undici';
import { describe, expect, test } from 'vitest';
import { StaticTokens } from '../../src/api/auth/static-tokens.ts';
import { MemoryBackend } from '../../src/backend/memory.ts';
import { Failure } from '../../src/base/errors.ts';
import { type Config, readConfig, type ServeFlags } from '../../src/daemon/config.ts';
import { runServe } from '../../src/daemon/main.ts';

class ConfigFile implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), 'quarry-config-'));
  readonly path = join(this.folder, 'quarry.toml');

  constructor(content: string) {
    this.write(content);
  }

  write(content: string): void {
    writeFileSync(this.path, content);
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

function read(content: string, flags: ServeFlags = {}): Config {
  using file = new ConfigFile(content);
  return readConfig({ config: file.path, ...flags }, { isTerminal: false });
}

function refusal(content: string): string {
  try {
    read(content);
  } catch (error) {
    if (error instanceof Failure && error.code === 'bad_request') return error.message;
    throw error;
  }
  throw new Error('accepted');
}

const SECRET = 'a-long-enough-token';
const DIGEST = createHash('sha256').update(SECRET).digest('hex');
const entry = (secret: string, roles = '["member"]'): string =>
  `[[tokens]]\n${secret}\nproject_id = "web"\nuser_id = "ann"\nroles = ${roles}\n`;
const tokens = (...entries: string[]): string => `auth = "token"\n${entries.join('')}`;
const keystone = (...lines: string[]): string =>
  ['auth = "keystone"', '[keystone]', 'auth_url = "https://id/v3"', ...lines, ''].join('\n');
const PASSWORD = ['username = "quarry"', 'password = "p"', 'project_name = "service"'];

describe('tokens', () => {
  test.each([
    ['as they are', `token = "${SECRET}"`],
    ['as digests', `token_sha256 = "${DIGEST.toUpperCase()}"`],
  ])('%s let their bearers in, and nobody else', async (_, secret) => {
    const { access } = read(tokens(entry(secret)), { api: '0.0.0.0:8776', nbd: '0.0.0.0:10809' });
    if (access.kind !== 'token') throw new Error(access.kind);
    const known = new StaticTokens(access.tokens);
    expect(await known.identify(SECRET)).toMatchObject({ projectId: 'web', userId: 'ann', roles: ['member'] });
    for (const wrong of [DIGEST, `${SECRET} `, SECRET.slice(1)]) expect(await known.identify(wrong)).toBeNull();
  });

  test.each([
    [tokens(), 'at least one [[tokens]] table'],
    [tokens(entry('')), 'tokens[0] needs either token or token_sha256'],
    [tokens(entry(`token = "${SECRET}"\ntoken_sha256 = "${DIGEST}"`)), 'and not both'],
    [tokens(entry('token = "fifteen-letters"')), 'at least 16 characters'],
    [tokens(entry('token = "with spaces and so on"')), 'without spaces'],
    [tokens(entry('token_sha256 = "abc"')), '64 hexadecimal digits'],
    [
      tokens(entry(`token = "${SECRET}"`), entry(`token_sha256 = "${DIGEST}"`)),
      'tokens[1] is the same token as tokens[0]',
    ],
    [tokens(entry(`token = "${SECRET}"`, '["king"]')), 'a list of some of admin, manager, member, reader, service'],
    [tokens(entry(`token = "${SECRET}"`, '[]')), 'tokens[0].roles'],
    [tokens(entry(`token = "${SECRET}"\ncolour = "red"`)), "unknown key 'tokens[0].colour'"],
    [tokens(entry(`token = "${SECRET}"`).replace('"web"', '"a/b"')), "tokens[0].project_id is 'a/b'"],
    [tokens(entry(`token = "${SECRET}"`).replace('user_id = "ann"\n', '')), 'tokens[0].user_id is missing'],
    [entry(`token = "${SECRET}"`), 'only with --auth token, not with --auth none'],
    ['auth = "token"\ntokens = 1\n', 'must be a list of tables'],
  ])('are refused where they make no sense: %#', (content, message) => {
    const said = refusal(content);
    expect(said).toContain(message);
    expect(said).not.toContain(SECRET);
  });
});

describe('keystone', () => {
  test('is reached with a password or an application credential', () => {
    expect(read(keystone(...PASSWORD)).access).toEqual({
      kind: 'keystone',
      keystone: {
        url: 'https://id/v3',
        publicUrl: 'https://id/v3',
        credentials: {
          kind: 'password',
          user: { name: 'quarry', domain: { name: 'Default' } },
          password: 'p',
          scope: { kind: 'project', project: { name: 'service', domain: { name: 'Default' } } },
        },
        certificates: null,
        endpoint: null,
        cacheSeconds: 300,
      },
    });
    const credential = ['application_credential_id = "c"', 'application_credential_secret = "s"'];
    const more = ['www_authenticate_uri = "https://public"', 'region_name = "north"', 'token_cache_seconds = 5'];
    expect(read(keystone(...credential, ...more)).access).toMatchObject({
      keystone: {
        publicUrl: 'https://public',
        credentials: { kind: 'application-credential', credential: { id: 'c' }, secret: 's' },
        endpoint: { interface: 'internal', region: 'north' },
        cacheSeconds: 5,
      },
    });
  });

  test.each([
    ['auth = "keystone"\n', 'needs a [keystone] table'],
    ['auth = "keystone"\n[keystone]\nusername = "x"\n', 'keystone.auth_url is missing'],
    [keystone().replace('https://id/v3', 'ftp://id'), "keystone.auth_url is 'ftp://id'"],
    [keystone('username = "quarry"'), 'keystone.project_name is missing'],
    [keystone('username = "quarry"', 'project_name = "service"'), 'keystone.password is missing'],
    [keystone('application_credential_id = "c"'), 'keystone.application_credential_secret is missing'],
    [
      keystone(...PASSWORD, 'token_cache_seconds = 301'),
      'token_cache_seconds is 301, but must be a whole number from 0 to 300',
    ],
    [keystone(...PASSWORD, 'cafile = "/nonexistent.pem"'), '/nonexistent.pem cannot be read'],
    [keystone(...PASSWORD, 'pasword = "x"'), "unknown key 'keystone.pasword'"],
    [keystone(...PASSWORD).replace('"keystone"', '"none"'), 'only with --auth keystone'],
  ])('is refused where it makes no sense: %#', (content, message) => {
    expect(refusal(content)).toContain(message);
  });
});

describe('limits', () => {
  test('are off unless they are set', () => {
    const none = read('');
    expect([none.rateLimits, none.bodyBytesMax, none.openMetrics]).toEqual([
      { addressPerMinute: null, projectPerMinute: null },
      114_688,
      false,
    ]);
    const set = read('body_bytes_max = 200000\nopen_metrics = true\n[rate_limit]\naddress_per_minute = 60\n');
    expect([set.rateLimits, set.bodyBytesMax, set.openMetrics]).toEqual([
      { addressPerMinute: 60, projectPerMinute: null },
      200_000,
      true,
    ]);
  });

  test.each([
    ['body_bytes_max = 1\n', 'body_bytes_max is 1, but must be a whole number from 65536'],
    ['body_bytes_max = 100000000\n', 'body_bytes_max is 100000000'],
    ['[rate_limit]\naddress_per_minute = 0\n', 'rate_limit.address_per_minute is 0'],
    ['[rate_limit]\nper_hour = 1\n', "unknown key 'rate_limit.per_hour'"],
  ])('are refused where they make no sense: %#', (content, message) => {
    expect(refusal(content)).toContain(message);
  });
});

test('a token that is taken out of the file ends when the file is read again, and a wrong file changes nothing', async () => {
  const second = 'another-long-token';
  using file = new ConfigFile(tokens(entry(`token = "${SECRET}"`), entry(`token = "${second}"`)));
  let stop = (): void => {};
  let reload = (): void => {};
  const stopAsked = new Promise<string>((resolve) => {
    stop = () => resolve('test');
  });
  let ended = Promise.resolve();
  const url = await new Promise<string>((resolve, reject) => {
    ended = runServe(
      { config: file.path, data: join(file.folder, 'data'), api: '127.0.0.1:0', logLevel: 'fatal', logFormat: 'json' },
      {
        createBackend: async () => new MemoryBackend(),
        print: (line) => resolve(JSON.parse(line).api[0]),
        stopAsked,
        exitSoon: () => {},
        onReload: (wanted) => {
          reload = wanted;
          return () => {};
        },
      },
    );
    ended.catch(reject);
  });
  const client = new Client(url);
  const status = async (token: string): Promise<number> => {
    const headers = { 'x-auth-token': token };
    const { statusCode, body } = await client.request({ method: 'GET', path: '/v3/volumes', headers });
    await body.dump();
    return statusCode;
  };
  try {
    expect([await status(SECRET), await status(second)]).toEqual([200, 200]);
    file.write('auth = "token"\n');
    reload();
    expect([await status(SECRET), await status(second)]).toEqual([200, 200]);
    file.write(tokens(entry(`token = "${second}"`)));
    reload();
    expect([await status(SECRET), await status(second)]).toEqual([401, 200]);
  } finally {
    await client.close();
    stop();
    await ended;
  }
});
