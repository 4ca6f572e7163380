/**
 * Volumes that are served while they are filled from a backup: begun before they are published, at their restore and at each
 * start; a few of them at a time in the background, all of them for what clients wait for. And what may not be done to them.
 */
import { Failure } from '../base/errors.ts';
import { allFills, fillsFrom, findFill } from '../catalog/fills.ts';
import type { FillRow, Reader } from '../catalog/schema.ts';
import type { Control } from './control.ts';
import { Filling, type FillProgress } from './filling.ts';

/** In the background; each takes some 50 MiB of memory. */
const AT_ONCE_MAX = 2;

export type FillsOptions = {
  readonly waitMs: number;
  readonly pause: (ms: number, signal: AbortSignal) => Promise<void>;
};

export class Fills {
  readonly #control: Control;
  readonly #options: FillsOptions;
  readonly #fillings = new Map<string, Filling>();
  readonly #line: (() => void)[] = [];
  #atOnce = 0;
  #isStopped = false;

  constructor(control: Control, options: FillsOptions) {
    this.#control = control;
    this.#options = options;
  }

  /** Before anything is published: what is absent in these volumes is not zeros. */
  async beginAll(): Promise<void> {
    const { catalog, log } = this.#control;
    for (const row of await allFills(catalog.reader)) {
      // Its restore has not got so far, and will begin it.
      if (row.ranges === null) continue;
      try {
        await this.begin(row);
      } catch (error) {
        // Gone from the backend, where its deletion was under way: then it is not published either.
        log.error({ volumeId: row.volume_id, err: error }, 'a volume cannot be filled');
      }
    }
  }

  /** Before the volume is published. */
  async begin(row: FillRow): Promise<void> {
    const { volume_id: id, ranges } = row;
    if (ranges === null || this.#fillings.has(id)) return;
    const pairs = JSON.parse(ranges) as readonly (readonly [number, number])[];
    await this.#control.backend.beginFill({ id, ranges: pairs.map(([offset, length]) => ({ offset, length })) });
    if (this.#isStopped || this.#fillings.has(id)) return;
    const options = { row, ...this.#options, inTurn: <T>(work: () => Promise<T>) => this.#inTurn(work) };
    this.#fillings.set(id, new Filling(this.#control, options, () => this.#fillings.delete(id)));
  }

  want(volumeId: string, offset: number): void {
    const filling = this.#fillings.get(volumeId);
    if (filling !== undefined) filling.want(offset);
    // Cancelled, or the end is near: nobody brings it.
    else void this.#control.backend.failFill({ id: volumeId, offset }).catch(() => {});
  }

  /** For a volume that goes. */
  async cancel(volumeId: string): Promise<void> {
    const filling = this.#fillings.get(volumeId);
    if (filling === undefined) return;
    this.#fillings.delete(volumeId);
    await filling.stop();
  }

  /** For one that did not go after all. */
  async resume(volumeId: string): Promise<void> {
    const row = await findFill(this.#control.catalog.reader, volumeId);
    if (row !== undefined) await this.begin(row);
  }

  has(volumeId: string): boolean {
    return this.#fillings.has(volumeId);
  }

  progressOf(volumeId: string): FillProgress | null {
    return this.#fillings.get(volumeId)?.progress ?? null;
  }

  stop(): void {
    this.#isStopped = true;
    for (const filling of this.#fillings.values()) void filling.stop();
    for (const wake of this.#line.splice(0)) wake();
  }

  async close(): Promise<void> {
    this.stop();
    await Promise.all([...this.#fillings.values()].map((filling) => filling.stop()));
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    while (this.#atOnce >= AT_ONCE_MAX && !this.#isStopped)
      await new Promise<void>((resolve) => this.#line.push(resolve));
    this.#atOnce += 1;
    try {
      return await work();
    } finally {
      this.#atOnce -= 1;
      this.#line.shift()?.();
    }
  }
}

/** Snapshots, clones, backups: what would take what is still to come for zeros. */
export async function refuseWhileFilling({ fills }: Control, reader: Reader, volumeId: string): Promise<void> {
  if (!fills.has(volumeId) && (await findFill(reader, volumeId)) === undefined) return;
  const reason = `Invalid volume: volume ${volumeId} is still being filled from its backup. Wait until its usage says that it is not.`;
  throw new Failure('wrong_state', { reason });
}

/** Its chunks are needed. */
export async function refuseWhileFilledFrom(reader: Reader, backupId: string): Promise<void> {
  const [first] = await fillsFrom(reader, backupId);
  if (first === undefined) return;
  const reason = `Invalid backup: volume ${first.volume_id} is still being filled from backup ${backupId}. Wait for that, or delete the volume.`;
  throw new Failure('wrong_state', { reason });
}
