/**
 * An identity service for tests that must decide what it does and when: it issues, revokes and forgets tokens, holds
 * answers back and fails. It speaks just the two calls of the Identity API that are asked of it; a real Keystone is met
 * elsewhere.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export type Grant = {
  readonly userId?: string;
  readonly projectId?: string | null;
  readonly roles?: readonly string[];
  readonly isSystem?: boolean;
  readonly isAdminProject?: boolean;
  readonly expiresAtMs?: number;
};

const HOUR_MS = 3_600_000;

export class Identity implements AsyncDisposable {
  readonly url: string;
  /** How often it was asked about each token. */
  readonly asked = new Map<string, number>();
  /** Bodies of logins. */
  readonly logins: unknown[] = [];
  /** Its answer to every question about a token, while it is set. */
  answer: { readonly status: number; readonly body: string } | null = null;
  /** The service catalog in the answer to a login. */
  catalog: unknown = [];
  /** Logins are refused. */
  refuses = false;
  /** Until this resolves, questions about tokens wait. */
  gate: Promise<void> = Promise.resolve();
  readonly #server: Server;
  readonly #grants = new Map<string, Grant>();
  readonly #own = new Set<string>();

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.url = `http://127.0.0.1:${port}/identity/v3`;
  }

  static async open(): Promise<Identity> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const identity = new Identity(server, (server.address() as AddressInfo).port);
    server.on('request', (request, reply) => void identity.#serve(request, reply));
    return identity;
  }

  grant(token: string, grant: Grant): void {
    this.#grants.set(token, grant);
  }

  revoke(token: string): void {
    this.#grants.delete(token);
  }

  /** As after a change of its keys: no service's own token is valid any longer. */
  forgetLogins(): void {
    this.#own.clear();
  }

  /** Drops the connections that clients keep for their next request. */
  dropConnections(): void {
    this.#server.closeAllConnections();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #serve(request: IncomingMessage, reply: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const send = (status: number, body: unknown, headers: Record<string, string> = {}): void => {
      reply.writeHead(status, { 'content-type': 'application/json', ...headers });
      reply.end(typeof body === 'string' ? body : JSON.stringify(body));
    };
    const { pathname: path, searchParams } = new URL(request.url ?? '', this.url);
    if (path !== '/identity/v3/auth/tokens') return send(404, error('no such path'));
    if (request.method === 'POST') {
      this.logins.push(JSON.parse(Buffer.concat(chunks).toString()));
      if (this.refuses) return send(401, error('The request you have made requires authentication.'));
      const token = `login-${this.logins.length}`;
      this.#own.add(token);
      const { token: about } = body({ userId: 'quarry', projectId: 'service' });
      return send(201, { token: { ...about, catalog: this.catalog } }, { 'x-subject-token': token });
    }
    const subject = String(request.headers['x-subject-token']);
    this.asked.set(subject, (this.asked.get(subject) ?? 0) + 1);
    await this.gate;
    if (this.answer !== null) return send(this.answer.status, this.answer.body);
    if (!this.#own.has(String(request.headers['x-auth-token']))) return send(401, error('not you'));
    const grant = this.#grants.get(subject);
    const isExpired = (grant?.expiresAtMs ?? Number.POSITIVE_INFINITY) <= Date.now();
    if (isExpired && searchParams.get('allow_expired') !== '1') return send(404, error('expired'));
    return grant === undefined ? send(404, error('no such token')) : send(200, body(grant));
  }
}

function error(message: string): unknown {
  return { error: { code: 0, title: 'x', message } };
}

function body(grant: Grant): { token: object } {
  const { userId = 'u', projectId = 'p', roles = ['member'], isSystem, isAdminProject, expiresAtMs } = grant;
  return {
    token: {
      user: { id: userId },
      ...(projectId !== null && { project: { id: projectId } }),
      ...(isSystem === true && { system: { all: true } }),
      ...(isAdminProject !== undefined && { is_admin_project: isAdminProject }),
      roles: roles.map((name) => ({ id: name, name })),
      expires_at: new Date(expiresAtMs ?? Date.now() + HOUR_MS).toISOString(),
    },
  };
}
