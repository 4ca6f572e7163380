/**
 * Speaks the OpenStack Identity API v3: gets a token for credentials, asks about somebody's token. The daemon and the
 * command line are its users; what a token permits is not its business.
 */
import type { Agent } from 'undici';
import { Failure } from '../base/errors.ts';
import { decodeToken, type TokenInfo } from './token.ts';

/** By id, or by name in a domain. */
export type Named =
  | { readonly id: string }
  | { readonly name: string; readonly domain: { readonly id: string } | { readonly name: string } };

export type Scope =
  | { readonly kind: 'project'; readonly project: Named }
  | { readonly kind: 'domain'; readonly domain: { readonly id: string } | { readonly name: string } }
  | { readonly kind: 'system' }
  | { readonly kind: 'default' };

export type Credentials =
  | { readonly kind: 'password'; readonly user: Named; readonly password: string; readonly scope: Scope }
  | { readonly kind: 'token'; readonly token: string; readonly scope: Scope }
  | {
      /** By id, or by name with the user it belongs to. Its scope is fixed. */
      readonly kind: 'application-credential';
      readonly credential: { readonly id: string } | { readonly name: string; readonly user: Named };
      readonly secret: string;
    };

/** A token that is asked about; also one that has expired, where that is allowed. */
export type Subject = { readonly token: string; readonly mayBeExpired: boolean };

export type Issued = { readonly token: string; readonly info: TokenInfo };

export type IdentityOptions = {
  /** With or without `/v3` at the end. */
  readonly url: string;
  /** Certificates to trust instead of the system's; PEM. */
  readonly certificates: string | null;
};

/** How long a caller may wait for the identity service: shorter than the patience of those who wait for us. */
const TIMEOUT_MS = 10_000;
const CONNECTIONS_MAX = 16;
/** A token with a large catalog has some hundred KiB. */
const ANSWER_BYTES_MAX = 4 * 1024 * 1024;

type Answer = { readonly status: number; readonly headers: Readonly<Record<string, unknown>>; readonly body: unknown };
type Ask = { readonly method: 'GET' | 'POST'; readonly url: string; headers?: Record<string, string>; body?: unknown };

export class IdentityClient {
  readonly url: string;
  readonly #certificates: string | null;
  #agent: Promise<Agent> | null = null;

  constructor({ url, certificates }: IdentityOptions) {
    this.url = versionedUrl(url);
    this.#certificates = certificates;
  }

  /** Fails with `unauthorized` when the service does not accept the credentials. */
  async authenticate(credentials: Credentials): Promise<Issued> {
    const body = { auth: authOf(credentials) };
    const answer = await this.#ask({ method: 'POST', url: `${this.url}/auth/tokens`, body });
    if (answer.status === 401 || answer.status === 403 || answer.status === 404)
      throw new Failure('unauthorized', { reason: `${this.url} refuses the credentials: ${messageOf(answer)}` });
    const token = answer.headers['x-subject-token'];
    if (answer.status !== 201 || typeof token !== 'string') throw this.#unexpected(answer);
    return { token, info: decodeToken(this.url, answer.body) };
  }

  /** Null: not a valid token. Fails with `unauthorized` when our own token is not valid (any longer). */
  async validate(subject: Subject, own: { token: string; url: string }): Promise<TokenInfo | null> {
    const answer = await this.#ask({
      method: 'GET',
      url: `${own.url}/auth/tokens?nocatalog${subject.mayBeExpired ? '&allow_expired=1' : ''}`,
      headers: { 'x-auth-token': own.token, 'x-subject-token': subject.token },
    });
    if (answer.status === 404) return null;
    if (answer.status === 401) throw new Failure('unauthorized', { reason: `${own.url} refuses this daemon's token.` });
    if (answer.status === 403)
      throw new Failure('identity_unavailable', {
        url: own.url,
        reason: `this daemon's user may not validate tokens: give it the role service or admin (${messageOf(answer)})`,
      });
    if (answer.status !== 200) throw this.#unexpected(answer);
    return decodeToken(own.url, answer.body);
  }

  async close(): Promise<void> {
    if (this.#agent !== null) await (await this.#agent).destroy();
  }

  async #ask(ask: Ask): Promise<Answer> {
    try {
      return await this.#send(ask).catch((error: unknown) => {
        // The service had closed a connection that was kept for the next request; both calls may be repeated.
        if (!isDropped(error)) throw error;
        return this.#send(ask);
      });
    } catch (error) {
      throw new Failure('identity_unavailable', { url: this.url, reason: reasonOf(error) });
    }
  }

  async #send({ method, url, headers, body }: Ask): Promise<Answer> {
    this.#agent ??= this.#connect();
    const agent = await this.#agent;
    const target = new URL(url);
    const reply = await agent.request({
      origin: target.origin,
      path: `${target.pathname}${target.search}`,
      method,
      headers: { accept: 'application/json', ...headers, ...(body !== undefined && JSON_BODY) },
      body: body === undefined ? null : JSON.stringify(body),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    return { status: reply.statusCode, headers: reply.headers, body: await bodyOf(reply.body) };
  }

  #unexpected(answer: Answer): Failure {
    const reason = `it answered with status ${answer.status}: ${messageOf(answer)}`;
    return new Failure('identity_unavailable', { url: this.url, reason });
  }

  /** Loaded when it is needed: most commands of the command line never ask an identity service. */
  async #connect(): Promise<Agent> {
    const { Agent } = await import('undici');
    return new Agent({
      connections: CONNECTIONS_MAX,
      connect: { timeout: TIMEOUT_MS, ...(this.#certificates !== null && { ca: this.#certificates }) },
    });
  }
}

const JSON_BODY = { 'content-type': 'application/json' };

export function versionedUrl(url: string): string {
  const bare = url.replace(/\/+$/, '');
  return bare.endsWith('/v3') ? bare : `${bare}/v3`;
}

async function bodyOf(stream: AsyncIterable<Buffer>): Promise<unknown> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of stream) {
    bytes += chunk.length;
    if (bytes > ANSWER_BYTES_MAX) throw new Error(`its answer has more than ${ANSWER_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch {
    return null;
  }
}

function messageOf({ status, body }: Answer): string {
  const error = (body as { error?: { message?: unknown } } | null)?.error;
  return typeof error?.message === 'string' ? error.message : `status ${status} without an explanation`;
}

function isDropped(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'UND_ERR_SOCKET' || error.code === 'ECONNRESET');
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error.name === 'TimeoutError') return `no answer within ${TIMEOUT_MS / 1000} seconds`;
  const code = 'code' in error ? error.code : null;
  return code === 'ECONNREFUSED' ? 'connection refused' : error.message || String(code ?? error.name);
}

function authOf(credentials: Credentials): unknown {
  switch (credentials.kind) {
    case 'password': {
      const user = { ...credentials.user, password: credentials.password };
      return { identity: { methods: ['password'], password: { user } }, ...scopeOf(credentials.scope) };
    }
    case 'token':
      return { identity: { methods: ['token'], token: { id: credentials.token } }, ...scopeOf(credentials.scope) };
    case 'application-credential': {
      const application = { ...credentials.credential, secret: credentials.secret };
      return { identity: { methods: ['application_credential'], application_credential: application } };
    }
  }
}

function scopeOf(scope: Scope): { scope?: unknown } {
  switch (scope.kind) {
    case 'project':
      return { scope: { project: scope.project } };
    case 'domain':
      return { scope: { domain: scope.domain } };
    case 'system':
      return { scope: { system: { all: true } } };
    case 'default':
      return {};
  }
}
