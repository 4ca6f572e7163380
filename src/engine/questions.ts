/**
 * Answers what clients ask while they negotiate: which snapshots there are behind an export, and what changed since one. One
 * question after the other, a slice per turn, so that however many ask, whoever does I/O waits no longer. Knows no NBD.
 *
 * What was written before the question is captured first, so it is in the answer. What is written while the answer is drawn up may
 * or may not be.
 */

import type { Clock } from '../base/clock.ts';
import { Failure } from '../base/errors.ts';
import type { Plane, PlaneEvent } from '../native/plane.ts';
import { diffPart } from './diff.ts';
import { type Opened, snapshotsBehind } from './exports.ts';
import type { State, StoredObject } from './state.ts';
import type { ByteRange } from './volume-store.ts';

/** Compared in one turn: a few milliseconds when their pages have to be read. */
const LEAVES_PER_TURN = 64;
/** In one answer: 4 MiB. Beyond it close neighbours become one range: the answer then says too much, never too little. */
export const CHANGED_RANGES_MAX = 2 ** 18;
const FIRST_GAP_BYTES = 65536;

type Question = PlaneEvent & { kind: 'question' };

export class Questions {
  readonly #plane: Plane;
  readonly #state: State;
  readonly #clock: Clock;
  readonly #commit: (opened: Opened) => Promise<void>;
  readonly #onFatal: (error: Error) => void;
  #last: Promise<void> = Promise.resolve();

  constructor(parts: {
    plane: Plane;
    state: State;
    clock: Clock;
    commit: (opened: Opened) => Promise<void>;
    onFatal: (error: Error) => void;
  }) {
    this.#plane = parts.plane;
    this.#state = parts.state;
    this.#clock = parts.clock;
    this.#commit = parts.commit;
    this.#onFatal = parts.onFatal;
  }

  serve(opened: Opened | undefined, { id, snapshotId }: Question): void {
    if (opened === undefined) return this.#plane.answer(id, null);
    if (snapshotId === null) return this.#plane.answer(id, idsOf(snapshotsBehind(this.#state, opened.object)));
    this.#last = this.#last.then(async () => {
      try {
        this.#plane.answer(id, await this.#changes(opened, snapshotId));
      } catch (error) {
        this.#plane.answer(id, null);
        // A damaged page, or a volume that refuses I/O: it is known elsewhere, and nothing is known to have changed or not.
        if (!(error instanceof Failure)) this.#onFatal(error instanceof Error ? error : new Error(String(error)));
      }
    });
  }

  async #changes(opened: Opened, snapshotId: string): Promise<BigUint64Array | null> {
    const to = opened.object;
    const from = snapshotsBehind(this.#state, to).find(({ id }) => id === snapshotId);
    if (from === undefined || opened.failure !== null) return null;
    if (to.kind === 'volume') await this.#commit(opened);
    const changes = new Changes();
    let firstLeaf: number | null = 0;
    while (firstLeaf !== null) {
      // Either may be deleted between two turns, and its pages with it.
      if (!this.#state.isThere(from) || !this.#state.isThere(to)) return null;
      const part = diffPart(this.#state, { from, to }, { firstLeaf, leavesMax: LEAVES_PER_TURN });
      for (const range of part.ranges) changes.add(range);
      firstLeaf = part.nextLeaf;
      if (firstLeaf !== null) await this.#clock.pause();
    }
    return changes.words();
  }
}

function idsOf(snapshots: readonly StoredObject[]): BigUint64Array {
  return BigUint64Array.from(
    snapshots.flatMap(({ id }) => {
      const digits = id.replaceAll('-', '');
      return [BigInt(`0x${digits.slice(0, 16)}`), BigInt(`0x${digits.slice(16)}`)];
    }),
  );
}

/** Ranges in ascending order; adjacent ones are one, and close ones too once there are too many. */
export class Changes {
  #bounds: number[] = [];
  #gapBytes = 0;
  readonly #rangesMax: number;

  constructor(rangesMax = CHANGED_RANGES_MAX) {
    this.#rangesMax = rangesMax;
  }

  add({ offset, length }: ByteRange): void {
    this.#put(offset, offset + length);
    while (this.#bounds.length > this.#rangesMax * 2) this.#coarsen();
  }

  #put(start: number, end: number): void {
    const lastEnd = this.#bounds.at(-1);
    if (lastEnd !== undefined && start - lastEnd <= this.#gapBytes) this.#bounds[this.#bounds.length - 1] = end;
    else this.#bounds.push(start, end);
  }

  #coarsen(): void {
    this.#gapBytes = this.#gapBytes === 0 ? FIRST_GAP_BYTES : this.#gapBytes * 2;
    const bounds = this.#bounds;
    this.#bounds = [];
    for (let at = 0; at < bounds.length; at += 2) this.#put(bounds[at] ?? 0, bounds[at + 1] ?? 0);
  }

  words(): BigUint64Array {
    return BigUint64Array.from(this.#bounds, BigInt);
  }
}
