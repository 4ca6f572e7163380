/**
 * A real Keystone for tests: on SQLite in a temporary folder, at a free port of loopback, with one project and one user
 * per kind of caller that tests need. The empty database is made once and copied. It knows Quarry only as a URL that the
 * service catalog names.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { cp, mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { request } from 'undici';
import { run } from './peers.ts';
import type { PythonEnvironment } from './python.ts';
import { tempFolder } from './temp.ts';

const READY_MS = 60_000;
/** The first request waits until Keystone is loaded: seconds, but for a busy machine. */
const ANSWER_MS = 90_000;
/** For the hook that starts one: more than it waits for anything, so that the reason of a failure is seen. */
export const KEYSTONE_START_MS = 180_000;
const LOG_CHARS = 8_000;
const REGION = 'RegionOne';
const ADMIN_PASSWORD = 'admin';

/** Everybody's password is the name. `alt` is a member of another project, `quarry` the account of Quarry's own service. */
const ACCOUNTS = [
  { name: 'demo', project: 'demo', roles: ['member'] },
  { name: 'alt', project: 'alt', roles: ['member'] },
  { name: 'reader', project: 'demo', roles: ['reader'] },
  { name: 'manager', project: 'demo', roles: ['manager'] },
  { name: 'quarry', project: 'service', roles: ['admin', 'service'] },
] as const;

export type UserName = 'admin' | (typeof ACCOUNTS)[number]['name'];
export type User = {
  readonly name: string;
  readonly password: string;
  readonly userId: string;
  readonly projectName: string;
  readonly projectId: string;
};

type Json = Record<string, unknown>;

export class Keystone implements AsyncDisposable {
  /** As OS_AUTH_URL has it, with `/v3`. */
  readonly url: string;
  readonly users = new Map<string, User>();
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;
  readonly #removeFolder: () => Promise<void>;
  #adminToken = '';

  constructor(url: string, child: ChildProcess, ended: Promise<void>, removeFolder: () => Promise<void>) {
    this.url = url;
    this.#child = child;
    this.#ended = ended;
    this.#removeFolder = removeFolder;
  }

  user(name: UserName): User {
    const user = this.users.get(name);
    if (user === undefined) throw new Error(`Keystone has no user ${name}`);
    return user;
  }

  /** What a client finds in its environment after sourcing this user's file. */
  env(name: UserName): Record<string, string> {
    const user = this.user(name);
    return {
      OS_AUTH_TYPE: 'password',
      OS_AUTH_URL: this.url,
      OS_USERNAME: user.name,
      OS_PASSWORD: user.password,
      OS_PROJECT_NAME: user.projectName,
      OS_USER_DOMAIN_NAME: 'Default',
      OS_PROJECT_DOMAIN_NAME: 'Default',
      OS_REGION_NAME: REGION,
      OS_IDENTITY_API_VERSION: '3',
      OS_INTERFACE: 'public',
    };
  }

  /** A fresh token: of the user's project, or without any scope. */
  async token(name: UserName, scope: 'project' | 'system' | 'none' = 'project'): Promise<string> {
    const user = this.user(name);
    const scopes = {
      project: { scope: { project: { id: user.projectId } } },
      system: { scope: { system: { all: true } } },
      none: { scope: 'unscoped' },
    };
    return await this.#tokenFor(user.name, user.password, scopes[scope]);
  }

  async #tokenFor(name: string, password: string, scope: Json): Promise<string> {
    const identity = { methods: ['password'], password: { user: { name, domain: { id: 'default' }, password } } };
    const reply = await send(`${this.url}/auth/tokens`, 'POST', { auth: { identity, ...scope } });
    const token = reply.headers['x-subject-token'];
    if (reply.status !== 201 || typeof token !== 'string')
      throw new Error(`no token for ${name}: ${reply.status} ${JSON.stringify(reply.body)}`);
    return token;
  }

  /** The Identity API as its administrator. A refusal is an error that shows it. */
  async call(method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE', path: string, body?: Json): Promise<Json> {
    const reply = await send(`${this.url}${path}`, method, body, { 'x-auth-token': this.#adminToken });
    if (reply.status >= 300)
      throw new Error(`Keystone: ${method} ${path}: ${reply.status} ${JSON.stringify(reply.body)}`);
    return reply.body;
  }

  /** Of the user whose token this is, for the token's project. */
  async applicationCredential(token: string, userId: string): Promise<{ id: string; secret: string }> {
    const wanted = { application_credential: { name: `of ${userId}` } };
    const url = `${this.url}/users/${userId}/application_credentials`;
    const { status, body } = await send(url, 'POST', wanted, { 'x-auth-token': token });
    if (status !== 201) throw new Error(`Keystone: no application credential: ${status} ${JSON.stringify(body)}`);
    const { id, secret } = objectOf(body, 'application_credential');
    return { id: String(id), secret: String(secret) };
  }

  /** Ends a token before its time. */
  async revoke(token: string): Promise<void> {
    const headers = { 'x-auth-token': this.#adminToken, 'x-subject-token': token };
    const { status } = await send(`${this.url}/auth/tokens`, 'DELETE', undefined, headers);
    if (status !== 204) throw new Error(`Keystone did not revoke a token: ${status}`);
  }

  /**
   * The service catalog names a Quarry, given as `http://host:port/v3`: once without the project in its path and once
   * with it, since deployments have both and clients take either.
   */
  async publish(blockStorageUrl: string): Promise<void> {
    const base = blockStorageUrl.replace(/\/+$/, '');
    const entries = [
      { type: 'block-storage', name: 'cinder', url: base },
      { type: 'volumev3', name: 'cinderv3', url: `${base}/%(project_id)s` },
    ];
    for (const { type, name, url } of entries) {
      const known = listOf(await this.call('GET', `/services?type=${type}`), 'services')[0];
      if (known !== undefined) await this.call('DELETE', `/services/${known['id']}`);
      const service = objectOf(await this.call('POST', '/services', { service: { type, name } }), 'service');
      for (const face of ['public', 'internal', 'admin'])
        await this.call('POST', '/endpoints', {
          endpoint: { service_id: service['id'], interface: face, region_id: REGION, url },
        });
    }
  }

  /** The bootstrapped database names no address of its own that is true, and only its administrator. */
  async populate(): Promise<void> {
    const scope = { scope: { project: { name: 'admin', domain: { id: 'default' } } } };
    this.#adminToken = await this.#tokenFor('admin', ADMIN_PASSWORD, scope);
    for (const { id } of listOf(await this.call('GET', '/endpoints'), 'endpoints'))
      await this.call('PATCH', `/endpoints/${id}`, { endpoint: { url: this.url } });
    const roles = new Map<unknown, unknown>();
    for (const role of listOf(await this.call('GET', '/roles'), 'roles')) roles.set(role['name'], role['id']);
    const projects = new Map<string, string>();
    for (const { name, id } of listOf(await this.call('GET', '/projects'), 'projects'))
      projects.set(String(name), String(id));
    const [admin] = listOf(await this.call('GET', '/users?name=admin'), 'users');
    this.#remember('admin', ADMIN_PASSWORD, String(admin?.['id']), 'admin', String(projects.get('admin')));
    for (const account of ACCOUNTS) {
      let projectId = projects.get(account.project);
      if (projectId === undefined) {
        const body = { project: { name: account.project, domain_id: 'default' } };
        projectId = String(objectOf(await this.call('POST', '/projects', body), 'project')['id']);
        projects.set(account.project, projectId);
      }
      const body = { user: { name: account.name, password: account.name, domain_id: 'default' } };
      const userId = String(objectOf(await this.call('POST', '/users', body), 'user')['id']);
      for (const role of account.roles) {
        if (!roles.has(role)) throw new Error(`Keystone has no role ${role}`);
        await this.call('PUT', `/projects/${projectId}/users/${userId}/roles/${roles.get(role)}`);
      }
      this.#remember(account.name, account.name, userId, account.project, projectId);
    }
  }

  #remember(name: UserName, password: string, userId: string, projectName: string, projectId: string): void {
    this.users.set(name, { name, password, userId, projectName, projectId });
  }

  async stop(): Promise<void> {
    this.#child.kill('SIGQUIT');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 10_000);
    await this.#ended;
    clearTimeout(timer);
    await this.#removeFolder();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

function objectOf(body: Json, key: string): Json {
  const value = body[key];
  if (typeof value !== 'object' || value === null) throw new Error(`Keystone's answer has no ${key}`);
  return value as Json;
}

function listOf(body: Json, key: string): Json[] {
  const value = body[key];
  if (!Array.isArray(value)) throw new Error(`Keystone's answer has no list ${key}`);
  return value;
}

async function send(url: string, method: string, body?: Json, headers: Record<string, string> = {}) {
  const reply = await request(url, {
    method: method as 'GET',
    headers: { ...headers, ...(body !== undefined && { 'content-type': 'application/json' }) },
    body: body === undefined ? null : JSON.stringify(body),
    signal: AbortSignal.timeout(ANSWER_MS),
  });
  const text = await reply.body.text();
  return { status: reply.statusCode, headers: reply.headers, body: (text === '' ? {} : JSON.parse(text)) as Json };
}

function configOf(folder: string): string {
  return [
    '[database]',
    `connection = sqlite:///${join(folder, 'keystone.db')}`,
    '[fernet_tokens]',
    `key_repository = ${join(folder, 'fernet')}`,
    '[credential]',
    `key_repository = ${join(folder, 'credential')}`,
    // The least that it takes: the passwords of tests need no protection from guessing, and each token costs one hash.
    '[identity]',
    'password_hash_rounds = 4',
    // In its only process, so never stale; without it each request takes most of a second.
    '[cache]',
    'enabled = true',
    'backend = dogpile.cache.memory',
    '[oslo_policy]',
    'enforce_scope = true',
    '',
  ].join('\n');
}

/** The bootstrapped database and keys, made once per environment. Two runs may make it at once: the first one's stays. */
async function preparedDatabase(python: PythonEnvironment): Promise<string> {
  const prepared = join(python.folder, 'keystone');
  if (existsSync(prepared)) return prepared;
  const making = `${prepared}.${process.pid}`;
  await mkdir(join(making, 'fernet'), { recursive: true, mode: 0o700 });
  await mkdir(join(making, 'credential'), { recursive: true, mode: 0o700 });
  const config = join(making, 'keystone.conf');
  await writeFile(config, configOf(making));
  const { username } = userInfo();
  const keys = ['--keystone-user', username, '--keystone-group', String(process.getgid?.() ?? 0)];
  const urls = ['public', 'internal'].flatMap((face) => [`--bootstrap-${face}-url`, 'http://127.0.0.1/v3']);
  const bootstrap = ['--bootstrap-password', ADMIN_PASSWORD, '--bootstrap-region-id', REGION, ...urls];
  const verbs = [['db_sync'], ['fernet_setup', ...keys], ['credential_setup', ...keys], ['bootstrap', ...bootstrap]];
  for (const verb of verbs)
    await run(python.program('keystone-manage'), ['--config-file', config, ...verb], { env: python.env });
  try {
    await rename(making, prepared);
  } catch (error) {
    await rm(making, { recursive: true, force: true });
    if (!existsSync(prepared)) throw error;
  }
  return prepared;
}

/** One process with one thread serves, since SQLite below Keystone fails requests that write at once. */
const GUNICORN = [
  "bind = '127.0.0.1:0'",
  "worker_class = 'gthread'",
  'workers = 1',
  'threads = 1',
  'control_socket_disable = True',
  "wsgi_app = 'keystone.wsgi.api:application'",
  '',
];

/** Keystone reads sys.argv itself, so all of gunicorn's options come from a file. */
export async function startKeystone(python: PythonEnvironment): Promise<Keystone> {
  const prepared = await preparedDatabase(python);
  const folder = await tempFolder();
  await cp(prepared, folder.path, { recursive: true });
  const config = join(folder.path, 'keystone.conf');
  await writeFile(config, configOf(folder.path));
  const options = join(folder.path, 'gunicorn.conf.py');
  await writeFile(options, GUNICORN.join('\n'));
  const child = spawn(python.program('gunicorn'), [], {
    cwd: folder.path,
    env: { ...python.env, GUNICORN_CMD_ARGS: `-c ${options}`, OS_KEYSTONE_CONFIG_FILES: config },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const killAtExit = () => child.kill('SIGKILL');
  process.once('exit', killAtExit);
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  ended.finally(() => process.removeListener('exit', killAtExit));
  const url = await listeningUrl(child, ended);
  const keystone = new Keystone(url, child, ended, folder.remove);
  try {
    await keystone.populate();
  } catch (error) {
    await keystone.stop();
    throw error;
  }
  return keystone;
}

/** The address as gunicorn's log names it. Requests sent before its worker is up wait in the socket's queue. */
function listeningUrl(child: ChildProcess, ended: Promise<void>): Promise<string> {
  return new Promise((resolve, reject) => {
    let log = '';
    const fail = (reason: string) => reject(new Error(`Keystone ${reason}\n${log.slice(-LOG_CHARS)}`));
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      fail(`did not listen within ${READY_MS} ms`);
    }, READY_MS);
    const read = (chunk: Buffer) => {
      log += chunk.toString();
      const address = log.match(/Listening at: (http:\/\/127\.0\.0\.1:\d+)/)?.[1];
      if (address === undefined) return;
      clearTimeout(timer);
      resolve(`${address}/v3`);
    };
    child.stdout?.on('data', read);
    child.stderr?.on('data', read);
    child.once('error', (error) => fail(`could not be started: ${error.message}`));
    ended.then(() => {
      clearTimeout(timer);
      fail('ended before it listened');
    });
  });
}
