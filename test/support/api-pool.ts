/**
 * Requests to a daemon over several connections at once, so that they meet inside it, and what its API shows of itself
 * as a whole. It knows paths and bodies, and no test's intentions.
 */
import { Pool } from 'undici';
import type { Daemon } from './daemon.ts';

/** As many as a test or benchmark has requests at once. */
const CONNECTIONS = 256;
const HEADERS = { 'content-type': 'application/json', 'openstack-api-version': 'volume 3.71' };

// biome-ignore lint/suspicious/noExplicitAny: an answer is compared field by field, which is its check
export type Json = any;
export type Answer = { readonly status: number; readonly body: Json };

export class ApiPool implements AsyncDisposable {
  readonly #pool: Pool;

  constructor(daemon: Daemon) {
    const socketPath = daemon.url.slice('unix:'.length);
    this.#pool = new Pool('http://localhost', { socketPath, connections: CONNECTIONS, pipelining: 1 });
  }

  async ask(method: string, path: string, body?: unknown): Promise<Answer> {
    const payload = body === undefined ? null : JSON.stringify(body);
    const reply = await this.#pool.request({
      path: `/v3${path}`,
      method: method as 'GET',
      headers: HEADERS,
      body: payload,
    });
    const text = await reply.body.text();
    return { status: reply.statusCode, body: text === '' ? null : JSON.parse(text) };
  }

  /** The object that was made; fails where none was. */
  async make(path: string, body: unknown): Promise<Json> {
    const { status, body: made } = await this.ask('POST', path, body);
    if (status >= 300) throw new Error(`POST ${path}: ${status} ${JSON.stringify(made)}`);
    return Object.values(made)[0];
  }

  act(id: string, body: unknown): Promise<Answer> {
    return this.ask('POST', `/volumes/${id}/action`, body);
  }

  async list(what: string): Promise<Json[]> {
    return (await this.ask('GET', `/${what}/detail?all_tenants=1`)).body[what.replace('volume-', '')];
  }

  /** Every object of every project. */
  async everything(): Promise<World> {
    const [volumes, snapshots, groups, groupSnapshots, attachments, transfers] = await Promise.all(
      ['volumes', 'snapshots', 'groups', 'group_snapshots', 'attachments', 'volume-transfers'].map((what) =>
        this.list(what),
      ),
    );
    const status = (await this.ask('GET', '/quarry/status')).body;
    return { volumes, snapshots, groups, groupSnapshots, attachments, transfers, status } as World;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool.destroy();
  }
}

export type World = Readonly<
  Record<'volumes' | 'snapshots' | 'groups' | 'groupSnapshots' | 'attachments' | 'transfers', Json[]>
> & { readonly status: Json };
