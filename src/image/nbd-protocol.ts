/**
 * Numbers and layouts of the NBD protocol that a client needs (fixed newstyle, structured replies, base:allocation).
 * Bytes in, values out: it opens no socket. All integers of the protocol are big-endian.
 */
import { Failure } from '../base/errors.ts';
import type { NbdTls } from './nbd-tls.ts';

export const INIT_MAGIC = 0x4e42444d41474943n; // "NBDMAGIC"
export const OPTION_MAGIC = 0x49484156454f5054n; // "IHAVEOPT"
export const OPTION_REPLY_MAGIC = 0x0003e889045565a9n;
export const REQUEST_MAGIC = 0x25609513;
export const SIMPLE_REPLY_MAGIC = 0x67446698;
export const STRUCTURED_REPLY_MAGIC = 0x668e33ef;

export const HANDSHAKE = { fixedNewstyle: 1, noZeroes: 2 } as const;

export const OPTION = { exportName: 1, abort: 2, startTls: 5, go: 7, structuredReply: 8, setMetaContext: 10 } as const;

export const OPTION_REPLY = { ack: 1, info: 3, metaContext: 4, errorFlag: 0x80000000 } as const;

export const INFO = { export: 0, blockSize: 3 } as const;

export const FLAG = {
  hasFlags: 1 << 0,
  readOnly: 1 << 1,
  flush: 1 << 2,
  trim: 1 << 5,
  writeZeroes: 1 << 6,
} as const;

export const COMMAND = { read: 0, write: 1, disconnect: 2, flush: 3, trim: 4, writeZeroes: 6, blockStatus: 7 } as const;

export const COMMAND_FLAG = { noHole: 1 << 1 } as const;

export const CHUNK = {
  done: 1,
  none: 0,
  offsetData: 1,
  offsetHole: 2,
  blockStatus: 5,
  error: 0x8001,
  errorOffset: 0x8002,
} as const;

export const STATE = { hole: 1, zero: 2 } as const;

/** Longest option reply or non-data chunk that is read: no honest one is near it, and its length comes from the server. */
export const SMALL_PAYLOAD_MAX = 1 << 20;
/** Longest payload of one request. 32 MiB is what every server must take. */
export const REQUEST_BYTES_MAX = 32 << 20;

const OPTION_ERRORS: Readonly<Record<number, string>> = {
  1: 'not supported',
  2: 'refused by policy',
  3: 'invalid request',
  4: 'not supported on its platform',
  5: 'TLS is required',
  6: 'no such export',
  7: 'the server is shutting down',
  8: 'block sizes must be negotiated',
  9: 'request too large',
};

export function optionError(code: number): string {
  return OPTION_ERRORS[code & 0xffff] ?? `error ${code & 0xffff}`;
}

const ERRORS: Readonly<Record<number, string>> = {
  1: 'operation not permitted (the export is read-only)',
  5: 'input/output error',
  12: 'the server is out of memory',
  22: 'invalid request',
  28: 'no space left',
  75: 'request too large',
  95: 'not supported',
  108: 'the server is shutting down',
};

export function requestError(code: number): string {
  return ERRORS[code] ?? `error ${code}`;
}

export function encodeOption(option: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(16);
  head.writeBigUInt64BE(OPTION_MAGIC, 0);
  head.writeUInt32BE(option, 8);
  head.writeUInt32BE(payload.length, 12);
  return Buffer.concat([head, payload]);
}

/** The payload of GO: asks for the block sizes too. */
export function encodeGo(exportName: string): Buffer {
  const name = Buffer.from(exportName);
  const payload = Buffer.alloc(4 + name.length + 4);
  payload.writeUInt32BE(name.length, 0);
  name.copy(payload, 4);
  payload.writeUInt16BE(1, 4 + name.length);
  payload.writeUInt16BE(INFO.blockSize, 6 + name.length);
  return payload;
}

export function encodeMetaContext(exportName: string, context: string): Buffer {
  const name = Buffer.from(exportName);
  const query = Buffer.from(context);
  const payload = Buffer.alloc(4 + name.length + 4 + 4 + query.length);
  payload.writeUInt32BE(name.length, 0);
  name.copy(payload, 4);
  payload.writeUInt32BE(1, 4 + name.length);
  payload.writeUInt32BE(query.length, 8 + name.length);
  query.copy(payload, 12 + name.length);
  return payload;
}

export type Request = {
  readonly flags: number;
  readonly command: number;
  readonly cookie: number;
  readonly offset: number;
  readonly length: number;
};

export function encodeRequest(request: Request): Buffer {
  const head = Buffer.alloc(28);
  head.writeUInt32BE(REQUEST_MAGIC, 0);
  head.writeUInt16BE(request.flags, 4);
  head.writeUInt16BE(request.command, 6);
  head.writeBigUInt64BE(BigInt(request.cookie), 8);
  head.writeBigUInt64BE(BigInt(request.offset), 16);
  head.writeUInt32BE(request.length, 24);
  return head;
}

export type NbdAddress = {
  /** Connect options of node:net. */
  readonly socket: { readonly path: string } | { readonly host: string; readonly port: number };
  readonly exportName: string;
  /** Null: none. */
  readonly tls: NbdTls | null;
};

/**
 * `nbd://host[:port]/export` and `nbd+unix:///export?socket=/path`, as the NBD URI specification spells them, and under TLS `nbds`
 * with libnbd's parameters `tls-certificates` (a folder) and `tls-hostname`.
 */
export function parseNbdUri(uri: string): NbdAddress {
  const bad = (reason: string) =>
    new Failure('bad_request', { reason: `${uri} is no NBD URI that can be used here: ${reason}` });
  let url: URL;
  try {
    url = new URL(uri);
  } catch {
    throw bad('it does not parse');
  }
  const exportName = decodeURIComponent(url.pathname.replace(/^\//, ''));
  const isSecured = url.protocol.startsWith('nbds');
  const tls = (host: string | null): NbdTls | null =>
    isSecured
      ? { folder: url.searchParams.get('tls-certificates'), serverName: url.searchParams.get('tls-hostname') ?? host }
      : null;
  if (url.protocol === 'nbd+unix:' || url.protocol === 'nbds+unix:') {
    const path = url.searchParams.get('socket');
    if (path === null || path === '') throw bad('`?socket=PATH` is missing');
    return { socket: { path }, exportName, tls: tls(null) };
  }
  if (url.protocol === 'nbd:' || url.protocol === 'nbds:') {
    if (url.hostname === '') throw bad('the host is missing');
    const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
    return { socket: { host, port: url.port === '' ? 10809 : Number(url.port) }, exportName, tls: tls(host) };
  }
  throw bad(`the scheme is ${url.protocol.slice(0, -1)}, not nbd, nbds, nbd+unix or nbds+unix`);
}
