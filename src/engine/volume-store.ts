/**
 * What a store of volumes can be asked, and what it answers: the shapes that the engine and all that stands between it and the
 * control plane share. Types only; ids are the UUIDs that users see, sizes and offsets are bytes.
 */
import type { ExportMode } from '../native/plane.ts';

export type ByteRange = {
  readonly offset: number;
  readonly length: number;
  /** For a map: data or hole. For a diff: `data` = changed and mapped, `hole` = changed to zeros. */
  readonly kind: 'data' | 'hole';
};

export type VolumeUsage = {
  readonly id: string;
  readonly kind: 'volume' | 'snapshot';
  readonly sizeBytes: number;
  /** Bytes that are mapped, at extent granularity. */
  readonly mappedBytes: number;
  /** NBD connections now. */
  readonly connections: number;
  /** Seconds that its connections have waited for their turn because its speed is limited, since the daemon opened it. */
  readonly throttledSeconds: number;
  /** Set when the volume refuses I/O, with the reason. */
  readonly failed: string | null;
};

/** How much of the pool one volume or snapshot takes; null where damage keeps it from being known. */
export type VolumeSpace = {
  readonly id: string;
  readonly kind: 'volume' | 'snapshot';
  readonly mappedBytes: number;
  /** Of what is mapped: what other volumes or snapshots hold too. */
  readonly sharedBytes: number | null;
  /** What deleting this one alone would free: also what it keeps alive behind what is mapped. */
  readonly exclusiveBytes: number | null;
};

/** `full`: writers that need space get ENOSPC. */
export type PoolLevel = 'ok' | 'low' | 'critical' | 'full';

export type PoolStats = {
  readonly capacityBytes: number;
  readonly freeBytes: number;
  readonly reservedBytes: number;
  /** What all volumes would take if they were full. */
  readonly provisionedBytes: number;
  /** How many times the capacity that may be. */
  readonly maxOverSubscription: number;
  /** Percent of the capacity that new volumes do not count on. */
  readonly reservedPercentage: number;
  readonly level: PoolLevel;
  /** Distinct extents in use. */
  readonly mappedBytes: number;
  /** Freed, not yet given back to the filesystem. */
  readonly reclaimBytes: number;
  readonly metadataBytes: number;
  /** Copied in the background, since the start, so that extents which few blocks kept alive became free. */
  readonly filledBytes: number;
  readonly volumes: number;
  readonly snapshots: number;
  readonly connections: number;
};

export type StoreEvent =
  | { readonly kind: 'volume-failed'; readonly id: string; readonly reason: string }
  /** Clients wait for what is there of a volume that is being filled. */
  | { readonly kind: 'bytes-wanted'; readonly id: string; readonly offset: number }
  /** The pool is fuller than before, or less full. */
  | { readonly kind: 'pool-level'; readonly level: PoolLevel; readonly freeBytes: number }
  /** The disk has changed something; the reason says what, where, and who shows it. */
  | {
      readonly kind: 'damage';
      readonly reason: string;
      /** Of an extent whose bytes can be given to `heal`; null: it is a table. */
      readonly address: number | null;
      readonly shown: readonly Place[];
    };

/** Where a volume or snapshot shows something of the pool, in bytes. */
export type Place = {
  readonly id: string;
  readonly kind: 'volume' | 'snapshot';
  readonly offset: number;
  readonly length: number;
};

/** Something on the disk that is not what it should be. */
export type Finding = {
  /** In the data folder. */
  readonly path: string;
  readonly reason: string;
  /** Of the extent; null: it is a table's page. */
  readonly address: number | null;
  /** Not more than a bounded number of them. */
  readonly shown: readonly Place[];
};

/** The pass that runs, or the last one since the start. Times are milliseconds since the epoch, null: not yet. */
export type ScrubStatus = {
  readonly isRunning: boolean;
  readonly startedAt: number | null;
  readonly endedAt: number | null;
  readonly readBytes: number;
  readonly pages: number;
  /** Given a sum in this pass, and compared with the one they had. */
  readonly sealedBytes: number;
  readonly comparedBytes: number;
  /** Known to be damaged, whoever found it: reading it fails. */
  readonly damagedBytes: number;
  readonly findings: readonly Finding[];
};

/**
 * How fast a volume may be used: operations and bytes per second, in all and by direction; null or absent is no limit. `Max` is
 * the rate of a burst (0 or absent: none), `MaxLength` how many seconds a burst at that rate may last (1 when absent).
 */
export type VolumeLimits = {
  readonly [Key in LimitName as Key | `${Key}Max` | `${Key}MaxLength`]?: number | null;
};
export type LimitName = `${'total' | 'read' | 'write'}${'Iops' | 'Bytes'}Sec`;

export type PublishOptions = { readonly name: string; readonly targetId: string } & Omit<ExportMode, 'isInternal'> & {
    /** For this process itself: clients do not find it. Left out: for clients. */
    readonly isInternal?: boolean;
  };

/** Of a volume: whole pieces of 64 KiB, or up to its end. */
export type FillRange = { readonly offset: number; readonly length: number };

/** Filling a volume that is served already. What clients wrote meanwhile wins over what comes. */
export interface FillStore {
  /**
   * What is absent in these ranges is still to come: to be called before the volume is published, again after each start of the process.
   * The volume cannot be shared (snapshots, clones) until the end. Requests that need what is absent wait; `bytes-wanted` tells of them.
   */
  beginFill(options: { id: string; ranges: readonly FillRange[] }): Promise<void>;
  /** Nothing comes there: what is absent is zeros. */
  narrowFill(options: { id: string; ranges: readonly FillRange[] }): Promise<void>;
  /** Requests that wait for this place fail; the next one asks again. */
  failFill(options: { id: string; offset: number }): Promise<void>;
  /** After all has come and was flushed. */
  endFill(id: string): Promise<void>;
  /** A name, for `unpublish`, under which writes go only where something is still to come and nothing is yet. */
  publishFill(options: { name: string; targetId: string }): Promise<void>;
}

/** Every call is idempotent by id: repeated after a crash it ends in the same state and does not fail because a first try had worked. */
export interface VolumeStore extends FillStore {
  /** Fails with `no_backend` where more would be promised than the pool's settings allow; so does `resizeVolume`. */
  createVolume(options: { id: string; sizeBytes: number; sourceId: string | null }): Promise<void>;
  /** A volume or a snapshot. Unknown ids are fine: they are gone. Fails with `wrong_state` while clients are connected. */
  delete(id: string): Promise<void>;
  /** Grow only, also in use. */
  resizeVolume(options: { id: string; sizeBytes: number }): Promise<void>;
  createSnapshot(options: { id: string; volumeId: string }): Promise<void>;
  /** Snapshots of several volumes at one instant: a write acknowledged before another began is in none without being in all. All or none. */
  createSnapshots(options: readonly { id: string; volumeId: string }[]): Promise<void>;
  revertVolume(options: { id: string; snapshotId: string }): Promise<void>;

  /** In force for requests that begin after it returns, on every connection; null: no limits. Forgotten when the process ends. */
  setLimits(options: { id: string; limits: VolumeLimits | null }): Promise<void>;

  /**
   * Makes a volume or snapshot reachable over NBD under a name. The same name again, for the same target: nothing happens. What
   * is not listed can only be reached by who knows the name.
   */
  publish(options: PublishOptions): Promise<void>;
  /** Returns when no client that came through this name can do I/O any more. */
  unpublish(name: string): Promise<void>;

  map(id: string): Promise<ByteRange[]>;
  /** What changed from one volume or snapshot to another (null: from nothing). */
  diff(options: { fromId: string | null; toId: string }): Promise<ByteRange[]>;

  usage(ids: readonly string[] | null): Promise<VolumeUsage[]>;
  /** Null: of all, as they are now or were a moment ago. */
  space(ids: readonly string[] | null): Promise<readonly VolumeSpace[]>;
  /** Begins a pass of the scrub unless one runs. */
  startScrub(): Promise<void>;
  scrubStatus(): Promise<ScrubStatus>;
  /**
   * The bytes of a damaged extent, as `place` shows them. False, and nothing has changed, when they do not have the sum that was kept
   * (or there is none) or cannot be written.
   */
  heal(options: { address: number; place: Place; bytes: Uint8Array }): Promise<boolean>;
  stats(): Promise<PoolStats>;
  close(): Promise<void>;
}
