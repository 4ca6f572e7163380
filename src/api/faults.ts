/**
 * Errors as the Block Storage API words them: one key, a code, a message. The one place where a `Failure` becomes an
 * HTTP status; what is neither a Failure nor a Fault is a bug, is logged and tells the client nothing.
 */
import type { FastifyReply, FastifyRequest } from 'fastify';
import { FAILURES, Failure } from '../base/errors.ts';
import type { Log } from '../base/log.ts';

/** An error of the protocol itself, which no other edge has. */
export class Fault extends Error {
  readonly status: number;
  readonly key: string;

  constructor(status: number, key: string, message: string) {
    super(message);
    this.name = 'Fault';
    this.status = status;
    this.key = key;
  }
}

export const badRequest = (message: string): Fault => new Fault(400, 'badRequest', message);
export const forbidden = (message: string): Fault => new Fault(403, 'forbidden', message);
export const noSuchRoute = (): Fault => new Fault(404, 'itemNotFound', 'The resource could not be found.');
export const tooNew = (minor: number): Fault =>
  new Fault(404, 'itemNotFound', `API version 3.${minor} is not supported on this method.`);

const IDENTITY_RETRY_SECONDS = '5';
const INTERNAL = 'The server has either erred or is incapable of performing the requested operation.';

export function answerError(log: Log, error: unknown, request: FastifyRequest, reply: FastifyReply): void {
  const retryAfter = retryAfterOf(error);
  if (retryAfter !== null) reply.header('retry-after', retryAfter);
  const { status, key, message, unexpected } = faultOf(error);
  if (unexpected) log.error({ request: request.id, url: request.url, err: error }, 'a request failed unexpectedly');
  const retry = retryAfter !== null && status !== 503 ? { retryAfter } : {};
  // The identity service's own form: its clients read it.
  const title = status === 401 ? { title: 'Unauthorized' } : {};
  reply
    .code(status)
    .type('application/json')
    .send(JSON.stringify({ [key]: { code: status, ...title, message, ...retry } }));
}

/** Seconds; null where asking again changes nothing. */
function retryAfterOf(error: unknown): string | null {
  if (!(error instanceof Failure)) return null;
  switch (error.code) {
    // Quotas do not pass with time, but clients expect the header with 413.
    case 'over_quota':
      return '0';
    case 'rate_limited':
      return String(error.fields['seconds'] ?? 1);
    case 'identity_unavailable':
      return IDENTITY_RETRY_SECONDS;
    default:
      return null;
  }
}

type Answer = { status: number; key: string; message: string; unexpected: boolean };

function faultOf(error: unknown): Answer {
  if (error instanceof Fault)
    return { status: error.status, key: error.key, message: error.message, unexpected: false };
  if (error instanceof Failure) {
    const { http, fault } = FAILURES[error.code];
    const status = http ?? 500;
    // Damage and failed disks are for the log; the client learns that it is not its fault.
    const isInternal = status === 500;
    return { status, key: fault, message: isInternal ? INTERNAL : error.message, unexpected: isInternal };
  }
  switch (statusOf(error)) {
    case 413:
      return { status: 413, key: 'overLimit', message: 'Request is too large.', unexpected: false };
    case 415:
      return { status: 415, key: 'badMediaType', message: 'Unsupported Content-Type', unexpected: false };
    case 400:
      return { status: 400, key: 'badRequest', message: 'Malformed request body', unexpected: false };
    case 404:
      return { status: 404, key: 'itemNotFound', message: 'The resource could not be found.', unexpected: false };
    default:
      return { status: 500, key: 'computeFault', message: INTERNAL, unexpected: true };
  }
}

/** Fastify's own errors carry their status. */
function statusOf(error: unknown): number | null {
  if (!(error instanceof Error) || !('statusCode' in error) || !('code' in error)) return null;
  if (typeof error.code !== 'string' || !error.code.startsWith('FST_')) return null;
  return typeof error.statusCode === 'number' ? error.statusCode : null;
}
