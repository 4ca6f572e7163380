/** What the engine is to those who use it: types only. `engine.ts` gives them out. */

import type { Clock } from '../base/clock.ts';
import type { Files } from '../base/files.ts';
import type { Plane } from '../native/plane.ts';
import type { ScrubStatus, StoreEvent, VolumeStore } from './volume-store.ts';

export type PoolSettings = {
  /** Kept free on the filesystem for journal, checkpoints and the catalog: no extent is granted into it. */
  readonly reserveBytes: number;
  /** Volumes together may be so many times as large as the filesystem. */
  readonly maxOverSubscription: number;
  /** Of the filesystem, in percent: what new volumes do not count on. Those there are may fill it. */
  readonly reservedPercentage: number;
  /** How full, in percent, the pool is when somebody has to be told, and when it is urgent. */
  readonly lowPercentage: number;
  readonly criticalPercentage: number;
  /** Bytes that the scrub reads in a second; 0: as fast as the disk goes. */
  readonly scrubBytesPerSecond: number;
  /** From the end of one pass of the scrub to the start of the next; 0: none by itself. */
  readonly scrubIntervalMs: number;
  /** Extents filled up so that their bases become free; 0: never. */
  readonly fillBytesPerSecond: number;
};

export type EngineOptions = PoolSettings & {
  readonly journalHalfBytes: number;
  /** Clean map pages kept in memory, 8 KiB each. */
  readonly cleanPagesMax: number;
};

export interface Engine extends VolumeStore {
  checkpoint(): Promise<void>;
  /** A pass of the scrub, to its end. */
  scrub(): Promise<ScrubStatus>;
  /** Waits until everything deleted has been given back to the filesystem. */
  settle(): Promise<void>;
  /** The plane has events: drained and handled here. */
  onPlaneEvents(): void;
}

export type EngineParts = {
  readonly files: Files;
  readonly plane: Plane;
  readonly clock: Clock;
  readonly options?: Partial<EngineOptions>;
  readonly onEvent: (event: StoreEvent) => void;
  /** The journal or a checkpoint failed: nothing can be acknowledged any more and the process has to end (law 5). */
  readonly onFatal: (error: Error) => void;
};
