/**
 * The command line's only way to a daemon: HTTP to a host or a unix socket, errors as they are explained to people. It
 * knows status codes and the shape of the API's errors, and nothing of volumes.
 */
import { FAILURES, Failure } from '../base/errors.ts';
import type { Connection } from './connection.ts';
import { type Json, object } from './decode.ts';

const MICROVERSION = 'volume 3.71';
/** A daemon that answers at all does so much sooner: long work is a status that is asked for, not an open request. */
const ANSWER_TIMEOUT_MS = 60_000;

const HOW_TO_LOG_IN =
  'Give a token with --token or QUARRY_TOKEN, or log in with OS_AUTH_URL and the other OS_* variables.';

/** The daemon refused. The sentence is the daemon's own. */
export class ApiError extends Error {
  readonly status: number;
  readonly exit: number;

  constructor(status: number, message: string) {
    super(message);
    this.name = 'ApiError';
    this.status = status;
    this.exit = exitOf(status, message);
  }
}

/** A 400 is either a bad request or a wrong state; the API tells them apart by how the message begins. */
function exitOf(status: number, message: string): number {
  if (status === 400) {
    const isState =
      /^Invalid (volume|snapshot|backup|Group|GroupSnapshot): |^(Target volume type is|Qos specs) still in use/.test(
        message,
      );
    return isState ? FAILURES.wrong_state.exit : FAILURES.bad_request.exit;
  }
  const row = Object.values(FAILURES).find((candidate) => candidate.http === status);
  return row?.exit ?? 1;
}

type Target = { readonly origin: string; readonly socketPath: string | null; readonly prefix: string };

function parseUrl(url: string): Target {
  if (url.startsWith('unix:')) {
    return { origin: 'http://localhost', socketPath: url.replace(/^unix:(\/\/)?/, ''), prefix: '/v3' };
  }
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch {
    throw new Failure('bad_request', { reason: `"${url}" is no URL. Use http://HOST:PORT or unix:PATH.` });
  }
  if (parsed.protocol !== 'http:' && parsed.protocol !== 'https:') {
    throw new Failure('bad_request', { reason: `"${url}" is neither http://HOST:PORT nor unix:PATH.` });
  }
  const path = parsed.pathname.replace(/\/+$/, '');
  return { origin: parsed.origin, socketPath: null, prefix: path === '' ? '/v3' : path };
}

function faultMessage(status: number, body: unknown): string {
  for (const fault of Object.values(typeof body === 'object' && body !== null ? body : {})) {
    if (typeof fault === 'object' && fault !== null && 'message' in fault && typeof fault.message === 'string') {
      return fault.message;
    }
  }
  return `The daemon answered with status ${status} and no explanation.`;
}

function parsedOrNull(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return null;
  }
}

type Dispatcher = import('undici').Client;

export class ApiClient {
  readonly url: string;
  readonly #target: Target;
  readonly #certificates: string | null;
  readonly #headers: Readonly<Record<string, string>>;
  #dispatcher: Promise<Dispatcher> | null = null;

  constructor(options: Connection) {
    this.url = options.url;
    this.#target = parseUrl(options.url);
    this.#certificates = options.certificates;
    this.#headers = {
      accept: 'application/json',
      'openstack-api-version': MICROVERSION,
      ...(options.token === null ? {} : { 'x-auth-token': options.token }),
    };
  }

  /** `path` is what follows `/v3`. Null for an answer without a body. */
  async request(method: 'GET' | 'POST' | 'PUT' | 'DELETE', path: string, body?: Json): Promise<Json | null> {
    this.#dispatcher ??= this.#connect();
    const dispatcher = await this.#dispatcher;
    let status: number;
    let answer: string;
    try {
      const reply = await dispatcher.request({
        method,
        path: `${this.#target.prefix}${path}`,
        headers: { ...this.#headers, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
        body: body === undefined ? null : JSON.stringify(body),
      });
      status = reply.statusCode;
      answer = await reply.body.text();
    } catch (error) {
      throw new Failure('unreachable', { url: this.url, reason: reasonOf(error) });
    }
    const parsed = answer === '' ? null : parsedOrNull(answer);
    if (status >= 400) {
      const message = faultMessage(status, parsed);
      throw new ApiError(status, status === 401 ? `${message} ${HOW_TO_LOG_IN}` : message);
    }
    return parsed === null ? null : object(parsed, 'the answer');
  }

  async get(path: string): Promise<Json> {
    return object(await this.request('GET', path), 'the answer');
  }

  /** A request whose answer has a body. */
  async send(method: 'POST' | 'PUT', path: string, body: Json): Promise<Json> {
    return object(await this.request(method, path, body), 'the answer');
  }

  async close(): Promise<void> {
    if (this.#dispatcher !== null) await (await this.#dispatcher).destroy();
  }

  /** Loaded on the first request: `quarry --help` and `quarry serve` need no HTTP client. */
  async #connect(): Promise<Dispatcher> {
    const { Client } = await import('undici');
    const { origin, socketPath } = this.#target;
    const timeouts = { headersTimeout: ANSWER_TIMEOUT_MS, bodyTimeout: ANSWER_TIMEOUT_MS };
    return new Client(origin, {
      ...timeouts,
      ...(socketPath !== null && { socketPath }),
      ...(this.#certificates !== null && { connect: { ca: this.#certificates } }),
    });
  }
}

/** What OpenSSL says of a certificate whose authority is not one that we trust. */
const UNTRUSTED: ReadonlySet<string> = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
]);

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const code = 'code' in error ? error.code : null;
  if (code === 'ECONNREFUSED') return 'connection refused';
  if (code === 'ENOENT') return 'there is no such socket';
  if (typeof code === 'string' && UNTRUSTED.has(code))
    return `${error.message}; name the authority to trust with --cacert or OS_CACERT`;
  return error.message;
}
