/**
 * One of the states in which a simulated disk may be found if the power failed now: drawn from a seed, read-only, and laid over the
 * disk without copying it, so that many can be tried of one moment while the run goes on. The rules are those of `afterCrash`.
 */

import type { Files, OpenFile } from '../../src/base/files.ts';
import { CHUNK, type Chunk, DiskError, type Inode, torn, ZERO_CHUNK } from './files.ts';
import type { Random } from './random.ts';

/** Chance that something uncertain is there in its newest state: almost all of it, half, almost none. */
const KEPT = [0.95, 0.5, 0.05];
const TORN = 0.15;

type Found = { readonly inode: Inode; readonly size: number; readonly chosen: ReadonlyMap<number, Chunk> };

export type DiskNow = {
  readonly entries: ReadonlyMap<string, Inode>;
  readonly durableEntries: ReadonlyMap<string, Inode>;
  readonly folders: ReadonlySet<string>;
};

export class CrashView implements Files {
  readonly #files = new Map<string, Found>();
  readonly #folders: ReadonlySet<string>;
  readonly #random: Random;
  readonly #kept: number;
  /** Two views of one moment with the same signature are the same state. */
  signature = 0;

  constructor({ entries, durableEntries, folders }: DiskNow, random: Random) {
    this.#random = random;
    this.#folders = folders;
    this.#kept = random.pick(KEPT);
    for (const [path, inode] of entries) {
      const durable = durableEntries.get(path);
      const found = inode === durable ? inode : this.#choose([durable, inode]);
      if (found !== undefined) this.#files.set(path, this.#found(found));
    }
    for (const [path, inode] of durableEntries) {
      if (!entries.has(path) && this.#choose([inode, undefined]) !== undefined)
        this.#files.set(path, this.#found(inode));
    }
  }

  /** One of several; the last is the newest. Equal ones are no choice. */
  #choose<T>(versions: readonly T[]): T {
    const newest = versions.length - 1;
    if (versions.every((version) => version === versions[newest])) return versions[newest] as T;
    const choice = this.#random.chance(this.#kept) ? newest : this.#random.below(newest);
    this.#sign(choice);
    return versions[choice] as T;
  }

  #sign(choice: number): void {
    this.signature = (Math.imul(this.signature ^ (choice + 1), 0x01000193) + 0x9e3779b9) >>> 0;
  }

  #found(inode: Inode): Found {
    if (inode.dirty.size === 0 && inode.syncing.size === 0 && inode.size === inode.durableSize)
      return { inode, size: inode.size, chosen: NOTHING };
    const flights = [...inode.syncing];
    const size = this.#choose([inode.durableSize, ...flights.map((flight) => flight.size), inode.size]);
    const chosen = new Map<number, Chunk>();
    const uncertain = new Set(inode.dirty);
    for (const { chunks } of flights) for (const chunk of chunks.keys()) uncertain.add(chunk);
    const isData = inode.path.endsWith('.dat');
    for (const chunk of uncertain) {
      const versions = [inode.durable.get(chunk)];
      for (const { chunks } of flights) if (chunks.has(chunk)) versions.push(chunks.get(chunk));
      versions.push(inode.now.get(chunk));
      if (!isData && this.#random.chance(TORN)) {
        chosen.set(chunk, torn(this.#random, versions));
        this.#sign(this.#random.below(2 ** 31));
      } else chosen.set(chunk, this.#choose(versions));
    }
    return { inode, size, chosen };
  }

  /** The 4 KiB themselves: what is the same is the same object. */
  chunk(path: string, index: number): Chunk {
    const found = this.#files.get(path);
    if (found === undefined || index * CHUNK >= found.size) return undefined;
    return found.chosen.has(index) ? found.chosen.get(index) : found.inode.durable.get(index);
  }

  open(path: string): OpenFile {
    const found = this.#files.get(path);
    if (found === undefined) throw new DiskError('ENOENT', 'open', path);
    return {
      read: (offset, target) => this.#read(path, found, offset, target),
      write: refuse,
      truncate: refuse,
      size: () => found.size,
      sync: async () => refuse(),
      close() {},
    };
  }

  #read(path: string, { size }: Found, offset: number, target: Uint8Array): number {
    const count = Math.max(0, Math.min(target.length, size - offset));
    for (let done = 0; done < count; ) {
      const within = (offset + done) % CHUNK;
      const length = Math.min(CHUNK - within, count - done);
      const chunk = this.chunk(path, Math.floor((offset + done) / CHUNK)) ?? ZERO_CHUNK;
      target.set(length === CHUNK ? chunk : chunk.subarray(within, within + length), done);
      done += length;
    }
    return count;
  }

  exists(path: string): boolean {
    return this.#files.has(path) || this.#folders.has(path);
  }

  list(path: string): string[] {
    const prefix = `${path}/`;
    const below = [...this.#files.keys()].filter((name) => name.startsWith(prefix));
    return below.map((name) => name.slice(prefix.length)).sort();
  }

  remove(): void {
    refuse();
  }

  makeFolder(): void {
    refuse();
  }

  async syncFolder(): Promise<void> {
    refuse();
  }

  space(): { totalBytes: number; freeBytes: number } {
    return refuse();
  }

  lock(): () => void {
    return refuse();
  }

  absolute(path: string): string {
    return path;
  }
}

const NOTHING: ReadonlyMap<number, Chunk> = new Map();

function refuse(): never {
  throw new Error('what a crash left is only looked at');
}
