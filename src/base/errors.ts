/**
 * The one table of errors. A `Failure` carries a code and fields, never prose: the sentence is made here, so that
 * every edge (HTTP, command line, log) says the same thing. docs/errors.md is generated from this table.
 */

export type FailureCode = keyof typeof FAILURES;

type Fields = Readonly<Record<string, string | number | boolean | null>>;

type Row = {
  /** HTTP status; null where the code never reaches the API. */
  readonly http: number | null;
  /** The key of the Block Storage API's error body. */
  readonly fault: string;
  /** Exit code of the command line (docs/cli.md). */
  readonly exit: number;
  /** The sentence shown to people; `{field}` is replaced by the field's value. */
  readonly message: string;
};

export const FAILURES = {
  bad_request: { http: 400, fault: 'badRequest', exit: 2, message: '{reason}' },
  wrong_state: { http: 400, fault: 'badRequest', exit: 4, message: '{reason}' },
  unauthorized: { http: 401, fault: 'unauthorized', exit: 4, message: 'Authentication is required: {reason}' },
  forbidden: { http: 403, fault: 'forbidden', exit: 4, message: '{reason}' },
  not_found: { http: 404, fault: 'itemNotFound', exit: 3, message: '{kind} {id} could not be found.' },
  over_quota: { http: 413, fault: 'overLimit', exit: 4, message: '{reason}' },
  out_of_space: {
    http: 507,
    fault: 'computeFault',
    exit: 4,
    message:
      'The pool has no space left: {freeBytes} bytes free, {reservedBytes} kept in reserve. Delete or trim something.',
  },
  out_of_range: { http: 400, fault: 'badRequest', exit: 2, message: '{reason}' },
  no_backend: {
    http: null,
    fault: 'computeFault',
    exit: 4,
    message: 'No valid backend was found: {reason}',
  },
  conflict: { http: 409, fault: 'conflictingRequest', exit: 4, message: '{reason}' },
  read_only: { http: 409, fault: 'conflictingRequest', exit: 4, message: '{reason}' },
  not_supported: { http: 501, fault: 'notImplemented', exit: 4, message: '{reason}' },
  io_error: { http: 500, fault: 'computeFault', exit: 1, message: 'Input/output error: {reason}' },
  corrupt: { http: 500, fault: 'computeFault', exit: 5, message: '{path} is damaged: {reason}' },
  newer_format: {
    http: 500,
    fault: 'computeFault',
    exit: 5,
    message: '{path} has format version {found}; this program reads up to {supported}. Use a newer quarry.',
  },
  locked: {
    http: 503,
    fault: 'serviceUnavailable',
    exit: 5,
    message: '{path} is in use by another quarry daemon (process {pid}). Stop it or choose another --data folder.',
  },
  objects_unavailable: {
    http: 503,
    fault: 'serviceUnavailable',
    exit: 1,
    message: 'The object store cannot be reached: {reason}',
  },
  identity_unavailable: {
    http: 503,
    fault: 'serviceUnavailable',
    exit: 5,
    message: 'The identity service {url} cannot be used: {reason}.',
  },
  rate_limited: { http: 429, fault: 'overLimit', exit: 4, message: 'Too many requests: try again in {seconds} s.' },
  shutting_down: { http: 503, fault: 'serviceUnavailable', exit: 5, message: 'The daemon is shutting down.' },
  unreachable: {
    http: null,
    fault: 'serviceUnavailable',
    exit: 5,
    message: 'No quarry daemon answers at {url}: {reason}. Start one with `quarry serve`.',
  },
  cannot_listen: {
    http: null,
    fault: 'serviceUnavailable',
    exit: 5,
    message: 'Cannot listen on {address}: {reason}. Stop it or choose another address.',
  },
  cancelled: { http: null, fault: 'badRequest', exit: 130, message: 'Cancelled.' },
} as const satisfies Record<string, Row>;

/** An error that somebody can act on. Anything else that is thrown is a bug. */
export class Failure extends Error {
  readonly code: FailureCode;
  readonly fields: Fields;

  constructor(code: FailureCode, fields: Fields = {}) {
    super(sentence(code, fields));
    this.name = 'Failure';
    this.code = code;
    this.fields = fields;
  }

  /** What crosses a thread or a process: see {@link failureFrom}. */
  toJSON(): { code: FailureCode; fields: Fields } {
    return { code: this.code, fields: this.fields };
  }
}

export function failureFrom(plain: { code: FailureCode; fields: Fields }): Failure {
  return new Failure(plain.code, plain.fields);
}

function sentence(code: FailureCode, fields: Fields): string {
  return FAILURES[code].message.replace(/\{(\w+)\}/g, (_, name: string) => String(fields[name] ?? '?'));
}
