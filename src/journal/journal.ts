/**
 * The journal: records in, durable order out. Group commit: whatever is appended while a sync runs goes into the next
 * frame, and everybody in it waits for one sync. Knows frames, not meanings.
 *
 * Invariants: a frame is written only after the sync of the frame before it returned (so a valid frame after a bad one proves
 * damage); frames of one half follow each other from its start; a half is written again only after a checkpoint holds all of it.
 */

import { assert } from '../base/assert.ts';
import type { OpenFile } from '../base/files.ts';
import { encodeFrame, frameSize } from '../format/frame.ts';

/** Records of one frame; the rest waits for the next one. Keeps one commit from holding up the others for long. */
const GROUP_BYTES_MAX = 1 << 20;
/** And no more than this part of a half, so that frames fill it well. */
const GROUPS_PER_HALF = 8;

type Waiter = { resolve(): void; reject(error: Error): void };

type Group = { readonly sequence: number; readonly records: Uint32Array[]; bytes: number; readonly waiters: Waiter[] };

export type JournalStart = {
  /** Sequence of the last frame that recovery applied. */
  readonly sequence: number;
  /** The half that goes on (0 or 1), and where its next frame stands. */
  readonly half: number;
  readonly offset: number;
  /** Whether the other half's frames are all in a durable checkpoint. */
  readonly isOtherFree: boolean;
};

export class Journal {
  readonly #halves: readonly [OpenFile, OpenFile];
  readonly #halfBytes: number;
  readonly #onFailure: (error: Error) => void;
  #half: number;
  #offset: number;
  #isOtherFree: boolean;
  /** Groups not yet durable, oldest first; the last one is open unless sealed. */
  readonly #groups: Group[] = [];
  #isLastSealed = true;
  #lastSequence: number;
  /** From this sequence on frames go to the other half. */
  #switchAfter: number | null = null;
  #isWriting = false;
  #failure: Error | null = null;
  #onRoom: (() => void) | null = null;
  readonly #onFull: () => void;

  /** `onFull`: the next frame has no room, and only a checkpoint that begins after this call can give it some. */
  constructor(
    halves: readonly [OpenFile, OpenFile],
    halfBytes: number,
    start: JournalStart,
    on: { failure: (error: Error) => void; full: () => void },
  ) {
    this.#halves = halves;
    this.#halfBytes = halfBytes;
    this.#half = start.half;
    this.#offset = start.offset;
    this.#isOtherFree = start.isOtherFree;
    this.#lastSequence = start.sequence;
    this.#onFailure = on.failure;
    this.#onFull = on.full;
  }

  /** How full the half in use is, 0 to 1. */
  get fill(): number {
    return this.#offset / this.#halfBytes;
  }

  get isOtherFree(): boolean {
    return this.#isOtherFree;
  }

  /** Sequence of the last frame that was begun. */
  get sequence(): number {
    return this.#lastSequence;
  }

  /** Resolves when these records, and all appended before, are durable. */
  append(records: readonly Uint32Array[]): Promise<void> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    const bytes = records.reduce((sum, words) => sum + words.byteLength, 0);
    assert(frameSize(bytes) <= this.#halfBytes, 'an append fits into one half');
    let group = this.#groups.at(-1);
    if (
      group === undefined ||
      this.#isLastSealed ||
      group.bytes + bytes > Math.min(GROUP_BYTES_MAX, this.#halfBytes / GROUPS_PER_HALF)
    ) {
      this.#lastSequence += 1;
      group = { sequence: this.#lastSequence, records: [], bytes: 0, waiters: [] };
      this.#groups.push(group);
      this.#isLastSealed = false;
    }
    group.records.push(...records);
    group.bytes += bytes;
    const { waiters } = group;
    return new Promise((resolve, reject) => {
      waiters.push({ resolve, reject });
      // In a turn of its own: what the caller's turn appends shares the frame.
      if (!this.#isWriting) {
        this.#isWriting = true;
        queueMicrotask(() => void this.#write());
      }
    });
  }

  /**
   * Everything appended so far is in frames up to the sequence returned; what comes later is not. Later frames go to the other half, unless
   * that holds frames from before a crash: then this checkpoint only frees it.
   */
  mark(): number {
    this.#isLastSealed = true;
    if (this.#isOtherFree) this.#switchAfter = this.#lastSequence;
    this.#isOtherFree = false;
    return this.#lastSequence;
  }

  /** The checkpoint of the last mark is durable. */
  release(): void {
    this.#isOtherFree = true;
    this.#wake();
  }

  /** The checkpoint of the last mark was given up. Frames that went to the other half already stay there. */
  unmark(): void {
    if (this.#switchAfter === null) return;
    this.#switchAfter = null;
    this.#isOtherFree = true;
    this.#wake();
  }

  #wake(): void {
    const resume = this.#onRoom;
    this.#onRoom = null;
    resume?.();
  }

  async #write(): Promise<void> {
    try {
      for (let group = this.#groups[0]; group !== undefined; group = this.#groups[0]) {
        // Closed before its place is sought: it must not grow any more.
        if (this.#groups.length === 1) this.#isLastSealed = true;
        await this.#place(frameSize(group.bytes), group.sequence);
        const frame = encodeFrame(group.sequence, group.records);
        const file = this.#halves[this.#half as 0 | 1];
        file.write(this.#offset, frame);
        this.#offset += frame.length;
        await file.sync();
        this.#groups.shift();
        for (const waiter of group.waiters) waiter.resolve();
      }
      this.#isWriting = false;
    } catch (error) {
      this.#fail(error instanceof Error ? error : new Error(String(error)));
    }
  }

  /** Sees to it that the next frame has room at the current place. */
  async #place(bytes: number, sequence: number): Promise<void> {
    for (;;) {
      const fits = this.#offset + bytes <= this.#halfBytes;
      // A frame from before the mark that no longer fits moves on too, once the checkpoint that holds it is durable.
      const isHeld = this.#isOtherFree && !fits;
      if (this.#switchAfter !== null && (sequence > this.#switchAfter || isHeld)) {
        this.#switchAfter = null;
        this.#half = 1 - this.#half;
        this.#offset = 0;
        continue;
      }
      if (fits) return;
      // Full before its checkpoint is done: until then nothing can be acknowledged.
      const room = new Promise<void>((resolve) => {
        this.#onRoom = resolve;
      });
      // A running one that will make the switch possible is enough. One whose switch is behind us only frees the other half.
      if (this.#switchAfter === null) this.#onFull();
      await room;
    }
  }

  /** Law 5: never retried as if it had worked. The process has to end; recovery is the only retry. */
  #fail(error: Error): void {
    this.#failure = error;
    for (const group of this.#groups.splice(0)) for (const waiter of group.waiters) waiter.reject(error);
    this.#onFailure(error);
  }
}
