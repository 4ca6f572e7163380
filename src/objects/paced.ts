/**
 * An object store that is used at a limited rate, both directions together, so that backups leave room on the line and
 * on the disks for what is served meanwhile. A request begins when the bytes of those before it have had their time. It
 * counts the bytes of objects; what else a request takes is small beside them.
 */
import { Failure } from '../base/errors.ts';
import type { ObjectInfo, ObjectRange, ObjectStore, PutOptions } from './objects.ts';

export type PaceOptions = {
  readonly bytesPerSecond: number;
  /** Milliseconds that never go back. */
  readonly elapsedMs: () => number;
  /** Resolves after a while, or when the signal says so. */
  readonly pause: (ms: number, signal: AbortSignal) => Promise<void>;
  /** Aborted when everything stops: nobody waits for his turn any longer. */
  readonly signal: AbortSignal;
};

export class PacedObjects implements ObjectStore {
  readonly place: string;
  readonly #objects: ObjectStore;
  readonly #options: PaceOptions;
  /** When everything that was let through has had its time. */
  #freeMs: number;

  constructor(objects: ObjectStore, options: PaceOptions) {
    this.place = objects.place;
    this.#objects = objects;
    this.#options = options;
    this.#freeMs = options.elapsedMs();
  }

  async put(key: string, body: Buffer, options: PutOptions): Promise<'stored' | 'exists'> {
    await this.#turn(body.length);
    return this.#objects.put(key, body, options);
  }

  async get(key: string, range: ObjectRange | null): Promise<Buffer | null> {
    const expected = range === null ? 0 : 'last' in range ? range.last : range.length;
    await this.#turn(expected);
    const bytes = await this.#objects.get(key, range);
    // How long a whole object is, only its answer tells; those after it wait for that.
    if (range === null && bytes !== null) this.#charge(bytes.length);
    return bytes;
  }

  list(prefix: string): AsyncIterable<ObjectInfo> {
    return this.#objects.list(prefix);
  }

  folders(prefix: string): Promise<string[]> {
    return this.#objects.folders(prefix);
  }

  delete(keys: readonly string[]): Promise<void> {
    return this.#objects.delete(keys);
  }

  close(): void {
    this.#objects.close();
  }

  async #turn(bytes: number): Promise<void> {
    const { elapsedMs, pause, signal } = this.#options;
    const waitMs = this.#charge(bytes) - elapsedMs();
    if (waitMs > 0) await pause(waitMs, signal);
    if (signal.aborted) throw new Failure('shutting_down');
  }

  /** When these bytes may begin. */
  #charge(bytes: number): number {
    const beginMs = Math.max(this.#options.elapsedMs(), this.#freeMs);
    this.#freeMs = beginMs + (bytes * 1000) / this.#options.bytesPerSecond;
    return beginMs;
  }
}
