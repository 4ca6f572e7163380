/**
 * What a backup repository may ask of the place where its objects lie. Objects are whole: a reader sees one as it was
 * put or not at all. It knows keys and bytes, not what they mean.
 */
import { Failure } from '../base/errors.ts';

export type ObjectInfo = { readonly key: string; readonly sizeBytes: number; readonly modifiedMs: number };

/** A part of an object: from an offset, or the last bytes. */
export type ObjectRange = { readonly offset: number; readonly length: number } | { readonly last: number };

export type PutOptions = {
  /** Only where no such object is. Ignored by some servers: a repository finds that out (`repository.ts`). */
  readonly ifAbsent: boolean;
};

export interface ObjectStore {
  /** For people: where the objects are. No credentials. */
  readonly place: string;
  /** Durable when it returns. `exists`: there was one already, with other bytes, and it is unchanged. */
  put(key: string, body: Buffer, options: PutOptions): Promise<'stored' | 'exists'>;
  /** Null when there is no such object in a store that is there. A range that goes past the end gives what there is. */
  get(key: string, range: ObjectRange | null): Promise<Buffer | null>;
  /** Every object whose key starts with the prefix, which ends in a slash. */
  list(prefix: string): AsyncIterable<ObjectInfo>;
  /** The names directly below a prefix that have objects below them. */
  folders(prefix: string): Promise<string[]>;
  /** What is not there is fine. */
  delete(keys: readonly string[]): Promise<void>;
  close(): void;
}

const KEY = /^[A-Za-z0-9_-][A-Za-z0-9._-]*(\/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$/;
const KEY_CHARS_MAX = 512;

/** Keys are ours alone, but some are made of what an import record says: nothing may leave the repository. */
export function requireKey(key: string): void {
  if (key.length <= KEY_CHARS_MAX && KEY.test(key)) return;
  throw new Failure('bad_request', { reason: `'${key.slice(0, 100)}' is no key of an object.` });
}

export function unavailable(place: string, error: unknown): Failure {
  const { name, message } = error instanceof Error ? error : { name: '', message: String(error) };
  const what = message === '' || message === 'UnknownError' ? name : message;
  return new Failure('objects_unavailable', { reason: `${place}: ${what}` });
}
