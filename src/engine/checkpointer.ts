/**
 * Checkpoints: the state at one journal position, written beside the old one, then named by a new root. Work goes on
 * meanwhile. Knows the order, not what the pages mean.
 */

import type { Clock } from '../base/clock.ts';
import { type Files, isOutOfSpace, type OpenFile } from '../base/files.ts';
import { type Checkpoint, decodeCheckpoint, encodeCheckpoint } from '../format/checkpoint.ts';
import type { Journal } from '../journal/journal.ts';
import { CHECKPOINT_PATHS } from './recovery.ts';
import type { State } from './state.ts';

/** Pages written in one turn of the event loop: 64 x 8 KiB take well under a millisecond in the page cache. */
const PAGES_PER_TURN = 64;

/** Where the journal stands, and that a checkpoint holds what it had. */
export type JournalMarks = Pick<Journal, 'mark' | 'unmark' | 'release'>;

export class Checkpointer {
  readonly #state: State;
  readonly #journal: JournalMarks;
  readonly #clock: Clock;
  readonly #roots: readonly [OpenFile, OpenFile];
  #number: number;
  #running: Promise<boolean> | null = null;

  constructor(parts: { files: Files; state: State; journal: JournalMarks; clock: Clock; number: number }) {
    this.#state = parts.state;
    this.#journal = parts.journal;
    this.#clock = parts.clock;
    this.#number = parts.number;
    const [zero, one] = CHECKPOINT_PATHS;
    this.#roots = [parts.files.open(zero, 'existing'), parts.files.open(one, 'existing')];
  }

  get isRunning(): boolean {
    return this.#running !== null;
  }

  /**
   * Joins one that runs. False: the disk is full, nothing has changed, and it can be tried again. Rejects when the disk fails, which is
   * final for the pool (law 5).
   */
  run(): Promise<boolean> {
    this.#running ??= this.#write().finally(() => {
      this.#running = null;
    });
    return this.#running;
  }

  async #write(): Promise<boolean> {
    const { pages } = this.#state;
    const number = this.#number + 1;
    // One synchronous step: the journal position, the page table and everything else are of the same moment.
    const root = this.#capture(number);
    const file = this.#roots[(number % 2) as 0 | 1];
    const isWritten = await this.#unlessFull(async () => {
      while (pages.writeSome(PAGES_PER_TURN)) await this.#clock.pause();
    });
    // A sync that fails is final, whatever it says; only a write that found no space has left everything as it was.
    if (isWritten) await pages.sync();
    if (!isWritten || !(await this.#unlessFull(async () => file.write(0, encodeCheckpoint(root))))) {
      pages.abortCheckpoint();
      this.#journal.unmark();
      return false;
    }
    await file.sync();
    this.#number = number;
    pages.endCheckpoint();
    this.#journal.release();
    return true;
  }

  async #unlessFull(write: () => Promise<void>): Promise<boolean> {
    try {
      await write();
      return true;
    } catch (error) {
      if (isOutOfSpace(error)) return false;
      throw error;
    }
  }

  #capture(number: number): Checkpoint {
    const state = this.#state;
    const sequence = this.#journal.mark();
    const table = state.pages.beginCheckpoint(number);
    return {
      number,
      sequence,
      poolId: state.poolId,
      nextObjectNumber: state.nextObjectNumber,
      objects: [...state.objects.values()].map((object) => ({ ...object })),
      files: [...state.files.values()].map((file) => ({
        ...file,
        references: file.references.slice(),
        sums: file.sums.slice(),
      })),
      drops: [...state.drops],
      damaged: [...state.damaged],
      ...table,
    };
  }

  /** What is wrong with the newest root on the disk, or null; the next checkpoint writes the other one. */
  problemOnDisk(): string | null {
    if (this.isRunning || this.#number === 0) return null;
    const file = this.#roots[(this.#number % 2) as 0 | 1];
    const bytes = new Uint8Array(file.size());
    const root = decodeCheckpoint(bytes.subarray(0, file.read(0, bytes)));
    if ('kind' in root)
      return `the newest root, ${CHECKPOINT_PATHS[this.#number % 2]}, is damaged: ${'reason' in root ? root.reason : 'newer'}`;
    return root.number === this.#number ? null : `root ${root.number} stands where root ${this.#number} should`;
  }

  close(): void {
    for (const file of this.#roots) file.close();
  }
}
