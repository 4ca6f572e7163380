/**
 * Addresses to listen on, as people write them: `host:port`, `[::1]:port`, `unix:PATH`.
 */
import { isIPv4 } from 'node:net';
import { resolve } from 'node:path';
import { Failure } from '../base/errors.ts';

export type Address = { readonly text: string } & (
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
);

/** What `sun_path` holds, less its final zero. */
const UNIX_PATH_BYTES_MAX = 107;

/** Several in one text are separated by commas; a comma inside a path is not taken for one. */
export function splitAddresses(texts: readonly string[]): string[] {
  return texts.flatMap((text) => text.split(/,(?=unix:|[^,/]+:\d+(?:,|$))/)).map((text) => text.trim());
}

export function parseAddress(flag: string, text: string): Address {
  const refuse = (why: string): Failure => new Failure('bad_request', { reason: `--${flag} '${text}' ${why}` });
  if (text.startsWith('unix:')) {
    const path = resolve(text.slice('unix:'.length));
    if (text === 'unix:') throw refuse('names no path.');
    if (Buffer.byteLength(path) > UNIX_PATH_BYTES_MAX)
      throw refuse(
        `is a path of ${Buffer.byteLength(path)} bytes; sockets allow ${UNIX_PATH_BYTES_MAX}. Choose a shorter one.`,
      );
    return { kind: 'unix', path, text: `unix:${path}` };
  }
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || port > 65535) throw refuse('is neither host:port nor unix:PATH.');
  return { kind: 'tcp', host, port, text };
}

export function isLoopback(address: Address): boolean {
  if (address.kind === 'unix') return true;
  const { host } = address;
  return host === 'localhost' || host === '::1' || (isIPv4(host) && host.startsWith('127.'));
}
