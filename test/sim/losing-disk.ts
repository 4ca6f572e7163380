/**
 * The disk of a machine whose power fails: 4 KiB blocks in memory, those written since the last flush in every version they had.
 * What the next start finds is drawn from a seed: of each such block any version, or sectors of several. It knows nothing of
 * who writes to it, but for the stamp that marks blocks which must not be torn.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Random } from './random.ts';

export const BLOCK = 4096;
const SECTOR = 512;
const ZEROS = new Uint8Array(BLOCK);
/** Of the blocks that were not flushed: almost none are lost, or half, or almost all, each for itself or with the newest first. */
const LOSSES = [0.05, 0.5, 0.95];
const TORN = 0.2;
/** As a disk of its kind takes. */
const FLUSH_MS_MAX = 4;

export type LosingDiskOptions = {
  readonly seed: number;
  readonly sizeBytes: number;
  /** Blocks with this in front are written whole or not at all (docs/durability.md says why that is assumed of data). */
  readonly stamp: Uint8Array;
  /** Flushes are answered, and what they cover is kept as unsafe as it was: of all blocks, or of stamped ones. */
  readonly lie?: 'none' | 'stamped' | 'all';
};

export class PowerOff extends Error {}

export class LosingDisk {
  readonly options: LosingDiskOptions;
  readonly #random: Random;
  readonly #durable: Map<number, Uint8Array>;
  /** By block, oldest first: what was written since what is durable. */
  readonly #unsafe = new Map<number, Uint8Array[]>();
  #endsAt = Number.POSITIVE_INFINITY;
  #onEnd = (): void => {};
  isOff = false;
  readonly ended = new Promise<void>((resolve) => {
    this.#onEnd = resolve;
  });
  /** What the crash did, for a test that wants to know that it did something. */
  lost = 0;
  torn = 0;

  constructor(options: LosingDiskOptions, durable: Map<number, Uint8Array> = new Map()) {
    this.options = options;
    this.#random = new Random(options.seed);
    this.#durable = durable;
  }

  read(offset: number, length: number): Uint8Array {
    this.#requirePower();
    const target = new Uint8Array(length);
    for (const { block, within, count, at } of pieces(offset, length))
      target.set(this.#newest(block).subarray(within, within + count), at);
    return target;
  }

  write(offset: number, source: Uint8Array): void {
    this.#requirePower();
    if (this.#unsafe.size >= this.#endsAt) this.#end();
    this.#requirePower();
    for (const { block, within, count, at } of pieces(offset, source.length)) {
      const version = count === BLOCK ? new Uint8Array(BLOCK) : this.#newest(block).slice();
      version.set(source.subarray(at, at + count), within);
      const versions = this.#unsafe.get(block);
      if (versions === undefined) this.#unsafe.set(block, [version]);
      else versions.push(version);
    }
  }

  /** Takes its time: what is written meanwhile is not covered, and the power may fail before it is done. */
  async flush(): Promise<void> {
    this.#requirePower();
    const covered = [...this.#unsafe].map(([block, versions]) => [block, versions.at(-1) ?? ZEROS] as const);
    await sleep(this.#random.below(FLUSH_MS_MAX));
    this.#requirePower();
    for (const [block, version] of covered) {
      if (this.#liesAbout(version)) continue;
      this.#durable.set(block, version);
      const versions = this.#unsafe.get(block) ?? [];
      // Flushes overlap: another one may have brought a newer version already.
      const past = versions.indexOf(version) + 1;
      if (past === versions.length) this.#unsafe.delete(block);
      else versions.splice(0, past);
    }
  }

  /** The power fails at the next write that finds this many blocks not flushed, when a failure does most harm. */
  endAt(unsafeBlocks: number): void {
    this.#endsAt = unsafeBlocks;
  }

  #end(): void {
    this.isOff = true;
    this.#onEnd();
  }

  /** From now on every request fails; what is returned is what lies there when the power is back. */
  powerOff(): LosingDisk {
    this.#end();
    const random = this.#random;
    const durable = new Map(this.#durable);
    const loss = random.pick(LOSSES);
    for (const [block, versions] of this.#unsafe) {
      const before = this.#durable.get(block) ?? ZEROS;
      const all = [before, ...versions];
      const isTearable = block > 0 && !all.some((version) => this.#isStamped(version));
      if (random.chance(TORN) && isTearable) {
        durable.set(block, mixed(random, all));
        this.torn += 1;
      } else if (random.chance(loss)) {
        const kept = all[random.below(all.length - 1)] ?? before;
        durable.set(block, kept);
        this.lost += 1;
      } else durable.set(block, versions.at(-1) ?? before);
    }
    return new LosingDisk({ ...this.options, seed: random.below(2 ** 31) }, durable);
  }

  #newest(block: number): Uint8Array {
    return this.#unsafe.get(block)?.at(-1) ?? this.#durable.get(block) ?? ZEROS;
  }

  #liesAbout(version: Uint8Array): boolean {
    const { lie = 'none' } = this.options;
    return lie === 'all' || (lie === 'stamped' && this.#isStamped(version));
  }

  #isStamped(version: Uint8Array): boolean {
    return this.options.stamp.every((byte, at) => version[at] === byte);
  }

  #requirePower(): void {
    if (this.isOff) throw new PowerOff('the power is off');
  }
}

function pieces(offset: number, length: number): { block: number; within: number; count: number; at: number }[] {
  const result: { block: number; within: number; count: number; at: number }[] = [];
  for (let at = 0; at < length; ) {
    const within = (offset + at) % BLOCK;
    const count = Math.min(BLOCK - within, length - at);
    result.push({ block: Math.floor((offset + at) / BLOCK), within, count, at });
    at += count;
  }
  return result;
}

/** Each sector of one of the versions. */
function mixed(random: Random, versions: readonly Uint8Array[]): Uint8Array {
  const block = new Uint8Array(BLOCK);
  for (let at = 0; at < BLOCK; at += SECTOR)
    block.set((versions[random.below(versions.length)] ?? ZEROS).subarray(at, at + SECTOR), at);
  return block;
}
