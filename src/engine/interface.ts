/** What the engine is to those who use it: types only. `engine.ts` gives them out. */

import type { Clock } from '../base/clock.ts';
import type { Files } from '../base/files.ts';
import type { Plane } from '../native/plane.ts';
import type { PoolSettings } from './settings.ts';
import type { ScrubStatus, StoreEvent, VolumeStore } from './volume-store.ts';

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
