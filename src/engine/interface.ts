/** What the engine is to those who use it: types only. `engine.ts` gives them out. */

import type { Clock } from '../base/clock.ts';
import type { Files } from '../base/files.ts';
import type { ExportMode, Plane } from '../native/plane.ts';
import type { NamedLimits } from '../native/speed-limits.ts';
import type { MapRange } from './diff.ts';

export type EngineOptions = {
  readonly reserveBytes: number;
  readonly journalHalfBytes: number;
  /** Clean map pages kept in memory, 8 KiB each. */
  readonly cleanPagesMax: number;
};

export type EngineEvent = { readonly kind: 'volume-failed'; readonly id: string; readonly reason: string };

export type ObjectUsage = {
  readonly id: string;
  readonly kind: 'volume' | 'snapshot';
  readonly sizeBytes: number;
  readonly mappedBytes: number;
  readonly connections: number;
  readonly throttledSeconds: number;
  readonly failed: string | null;
};

export type EngineStats = {
  readonly capacityBytes: number;
  readonly freeBytes: number;
  readonly reservedBytes: number;
  readonly mappedBytes: number;
  readonly reclaimBytes: number;
  readonly metadataBytes: number;
  readonly volumes: number;
  readonly snapshots: number;
  readonly connections: number;
};

export interface Engine {
  createVolume(options: { id: string; sizeBytes: number; sourceId: string | null }): Promise<void>;
  delete(id: string): Promise<void>;
  resizeVolume(options: { id: string; sizeBytes: number }): Promise<void>;
  createSnapshot(options: { id: string; volumeId: string }): Promise<void>;
  createSnapshots(options: readonly { id: string; volumeId: string }[]): Promise<void>;
  setLimits(options: { id: string; limits: NamedLimits | null }): Promise<void>;
  revertVolume(options: { id: string; snapshotId: string }): Promise<void>;
  publish(options: { name: string; targetId: string } & ExportMode): Promise<void>;
  unpublish(name: string): Promise<void>;
  map(id: string): Promise<MapRange[]>;
  diff(options: { fromId: string | null; toId: string }): Promise<MapRange[]>;
  usage(ids: readonly string[] | null): Promise<ObjectUsage[]>;
  stats(): Promise<EngineStats>;
  checkpoint(): Promise<void>;
  /** Waits until everything deleted has been given back to the filesystem. */
  settle(): Promise<void>;
  /** The plane has events: drained and handled here. */
  onPlaneEvents(): void;
  close(): Promise<void>;
}

export type EngineParts = {
  readonly files: Files;
  readonly plane: Plane;
  readonly clock: Clock;
  readonly options?: Partial<EngineOptions>;
  readonly onEvent: (event: EngineEvent) => void;
  /** The journal or a checkpoint failed: nothing can be acknowledged any more and the process has to end (law 5). */
  readonly onFatal: (error: Error) => void;
};
