/**
 * What the engine asks of the data plane, and what the plane tells it. Types only: `addon.ts` implements this over
 * the Rust addon, `test/sim/plane.ts` over a simulated disk. The protocol is described in docs/architecture.md.
 *
 * Units: sizes and offsets are bytes; extent addresses, indices and counts are extents of 64 KiB.
 */

/** Bytes per extent and per block, and blocks per extent. Both sizes stand in the pool's header. */
export const EXTENT_BYTES = 65536;
export const BLOCK_BYTES = 4096;
/** Slots per extent file (1 GiB); address = fileNumber * SLOTS_PER_FILE + slot. File numbers start at 1, so address 0 is "none". */
export const SLOTS_PER_FILE = 16384;
/** Entries per map leaf: a leaf covers 32 MiB of a volume. */
export const LEAF_ENTRIES = 512;

/**
 * A leaf as it crosses the border, little-endian:
 *
 *   offset  size
 *        0  4096  entries: 512 x { u32 extent address (0 = hole), u16 present bits, u16 flags }
 *     4096  2048  base addresses: 512 x u32 (0 = none)
 *     6144  1024  base masks: 512 x u16
 *
 * Present bit b says block b of the extent holds data. A block that is not present is read from the base extent when
 * its bit in the base mask is set, and is zeros otherwise. A base never has a base of its own.
 */
export const LEAF_BASES_OFFSET = LEAF_ENTRIES * 8;
export const LEAF_MASKS_OFFSET = LEAF_BASES_OFFSET + LEAF_ENTRIES * 4;
export const LEAF_BYTES = LEAF_MASKS_OFFSET + LEAF_ENTRIES * 2;

/** Flag of an entry given to the plane: the extent is referenced by this volume's head alone and is written in place. */
export const ENTRY_OWN = 1;

/** A change as it crosses the border: four u32 words { index, extent, present | baseMask << 16, base }. index = offset / 64 KiB. */
export const CHANGE_WORDS = 4;

export type VolumeHandle = number;

/** Plain counters, monotonic since the start of the daemon unless said otherwise. */
export type PlaneStats = {
  /** Now open. */
  readonly connections: number;
  readonly connectionsTotal: number;
  readonly handshakesFailed: number;
  readonly panics: number;
  /** Copied in the background from bases into extents. */
  readonly filledBytes: number;
};

export type VolumeStats = {
  /** Connections in transmission phase, now. */
  readonly connections: number;
  readonly readOps: number;
  readonly readBytes: number;
  readonly writeOps: number;
  readonly writeBytes: number;
  readonly flushOps: number;
  readonly trimOps: number;
  readonly trimBytes: number;
  readonly errors: number;
  /** Time that connections have waited because the volume's speed is limited, all of them together. */
  readonly throttledUs: number;
};

/** Of a volume that nobody has used. */
export const NO_VOLUME_STATS: VolumeStats = {
  connections: 0,
  readOps: 0,
  readBytes: 0,
  writeOps: 0,
  writeBytes: 0,
  flushOps: 0,
  trimOps: 0,
  trimBytes: 0,
  errors: 0,
  throttledUs: 0,
};

/** Per second. An average of 0 is no limit, a burst of 0 none; a burst lasts at least one second. */
export type Rate = { readonly average: number; readonly burst: number; readonly burstSeconds: number };

export type SpeedLimits = {
  readonly totalOps: Rate;
  readonly readOps: Rate;
  readonly writeOps: Rate;
  readonly totalBytes: Rate;
  readonly readBytes: Rate;
  readonly writeBytes: Rate;
};

export type PlaneEvent =
  /** A leaf is needed that is not resident: answer with loadLeaf. */
  | { readonly kind: 'fault'; readonly handle: VolumeHandle; readonly leafIndex: number }
  /** The grant runs low (or is empty): answer with grant or refuse. `wanted` is a hint in extents. */
  | { readonly kind: 'want-grant'; readonly handle: VolumeHandle; readonly wanted: number }
  /**
   * Entries that changed since the last capture, whose data has been synced (law 1). Parts of one capture arrive in
   * order with the same token; after the part with `last` the engine makes all of them durable and answers
   * committed(token). `frozen`: this capture ends at a freeze; everything captured belongs to the frozen state,
   * everything later does not.
   */
  | {
      readonly kind: 'captured';
      readonly handle: VolumeHandle;
      readonly token: number;
      readonly frozen: boolean;
      readonly last: boolean;
      /** CHANGE_WORDS u32 per change, ascending by index within a part. */
      readonly changes: Uint32Array;
    }
  /** Granted extents that will not be used after all, as pairs { first address, count }: they are free once quiesced. */
  | { readonly kind: 'released'; readonly handle: VolumeHandle; readonly runs: Uint32Array }
  | {
      /**
       * A client negotiates and waits (not for ever): answer with `answer`. With a snapshot: what the volume or snapshot
       * behind the handle, with all that was written to it until now, has changed since; without: which may be asked about.
       */
      readonly kind: 'question';
      readonly id: number;
      readonly handle: VolumeHandle;
      readonly snapshotId: string | null;
    }
  /** Requests wait for the bytes of this entry (offset / 64 KiB) of a volume that is being filled: fill it, or failFill. */
  | { readonly kind: 'bytes-wanted'; readonly handle: VolumeHandle; readonly index: number }
  /** A sync of an extent file failed: final for every volume in that file. The plane already refuses their I/O. */
  | { readonly kind: 'failed'; readonly handle: VolumeHandle; readonly fileNumber: number; readonly errno: number };

/** PEM files for TLS; with `clientCa` only clients with a certificate from it get in. */
export type TlsOptions = {
  readonly certificate: string;
  readonly key: string;
  readonly clientCa?: string;
  /** Clients without TLS are turned away, instead of being served too. */
  readonly isRequired: boolean;
};

/** How an export is shown to clients. */
export type ExportMode = {
  readonly readOnly: boolean;
  readonly isListed: boolean;
  /** Found through `listenInternally` and not by clients; all others are found by clients only. */
  readonly isInternal: boolean;
  readonly description: string;
};

/** NBD connections at once. */
export type ConnectionLimits = { readonly connectionsMax: number; readonly exportConnectionsMax: number };

export interface Plane {
  /** Binds and serves; resolves with the addresses as bound (a port 0 is replaced). `unix:PATH` or `host:port`. */
  listen(address: string): Promise<string>;
  /** A unix socket for this process alone: no TLS whatever clients have to do, no limit, internal exports and no others. */
  listenInternally(path: string): Promise<void>;
  /** Reads the files; they hold for connections made from now on. Throws what is wrong with them, with nothing changed. */
  setTls(options: TlsOptions): void;

  /** Tells where an extent file lies; opened on first use. `forgetFile` closes it (before unlink). */
  registerFile(fileNumber: number, path: string): void;
  forgetFile(fileNumber: number): void;

  /** Makes a volume or snapshot known under a handle chosen by the engine. Nothing is loaded until it is used. */
  openVolume(options: { handle: VolumeHandle; sizeBytes: number; readOnly: boolean }): void;
  /** Fences, captures and syncs what is dirty (a last `captured`), returns grants (`released`), then resolves. */
  closeVolume(handle: VolumeHandle): Promise<void>;
  /** Grow only. */
  resizeVolume(handle: VolumeHandle, sizeBytes: number): void;

  /** In force for requests that begin after it, on every connection. */
  setLimits(handle: VolumeHandle, limits: SpeedLimits): void;

  /** Again for the same volume and mode: only whether it is listed changes. What is not listed is found by its exact name alone. */
  publish(options: { name: string; handle: VolumeHandle } & ExportMode): void;
  /** No new connection finds the name; connections made through it are fenced and closed; then resolves. */
  unpublish(name: string): Promise<void>;

  /**
   * Absent blocks of these entries (runs: first and count) are still to come; before the volume is published. Requests that need them wait,
   * and what clients unmap there becomes zeros that are written: a block that is there stays there until `endFill`.
   */
  beginFill(handle: VolumeHandle, runs: Uint32Array): void;
  /** Nothing comes for these: absent is zeros. */
  narrowFill(handle: VolumeHandle, runs: Uint32Array): void;
  /** Requests that wait for this entry fail with EIO; the next one asks again. */
  failFill(handle: VolumeHandle, index: number): void;
  /** Everything has come, and is durable. */
  endFill(handle: VolumeHandle): void;
  /** An internal export whose writes go only into absent blocks that are still to come; others they leave as they are. */
  publishFill(options: { name: string; handle: VolumeHandle }): void;

  /** Answers a fault. `page` is LEAF_BYTES long, or LEAF_BASES_OFFSET long when no entry has a base. */
  loadLeaf(handle: VolumeHandle, leafIndex: number, page: Uint8Array): void;
  /**
   * Answers a fault: the map has no such leaf, and none of the `count` from it on. It gets one only by a capture, or by a revert,
   * which closes the volume before.
   */
  loadHoles(handle: VolumeHandle, firstLeaf: number, count: number): void;
  /** The leaf could not be read: waiting requests get EIO. */
  failLeaf(handle: VolumeHandle, leafIndex: number): void;
  /** Forgets all resident leaves of a volume without changes, under a fence, so that ownership is computed anew. */
  dropLeaves(handle: VolumeHandle): void;
  /** Copies what these own entries show of their bases into their extents, in the background; false: still busy with the last ones. */
  fill(handle: VolumeHandle, indices: readonly number[]): boolean;

  grant(handle: VolumeHandle, firstAddress: number, count: number): void;
  /** Takes back what the volume has not used; comes as `released`. Its next write asks again. */
  returnGrants(handle: VolumeHandle): void;
  /** Writes that wait for an extent fail with this errno (ENOSPC); the next one asks again. */
  refuse(handle: VolumeHandle, errno: number): void;

  /** Captures what is dirty, syncs it, emits `captured` (always, even when nothing was dirty) with this token. */
  flush(handle: VolumeHandle, token: number): void;
  /** The same with a fence: after the capture every entry counts as shared. Emits `captured` with `frozen`. */
  freeze(handle: VolumeHandle, token: number): void;
  /** The same for several volumes, each named once, at one instant: no request runs in any of them while their lists are taken. */
  freezeTogether(members: readonly { readonly handle: VolumeHandle; readonly token: number }[]): void;
  /** The capture of this token is durable (errno 0) or failed; clients that wait for it are answered. */
  committed(token: number, errno: number): void;

  /** Changed ranges as pairs of start and end, or snapshots as pairs of the halves of their ids; null: there is no such snapshot. */
  answer(id: number, words: BigUint64Array | null): void;

  /**
   * Epochs, for reuse of freed extents (law 3): `advanceEpoch` returns a tag; once `quiescedEpoch` is at least that
   * tag, no request that began before the call is still running.
   */
  advanceEpoch(): number;
  quiescedEpoch(): number;

  /** Reserves (or gives back) space of an extent file; false when the filesystem has none left. Off the JS thread. */
  allocateRun(fileNumber: number, firstSlot: number, count: number): Promise<boolean>;
  punchRun(fileNumber: number, firstSlot: number, count: number): Promise<void>;

  /**
   * The CRC-32 (ISO-HDLC; 0 stands as 1) of each extent of a run, as it is on the disk; 0: it cannot be read. Off the JS thread.
   */
  sumRun(fileNumber: number, firstSlot: number, count: number): Promise<Uint32Array>;
  /** Reads of these extents fail with EIO from now on, or no longer. */
  setDamaged(addresses: readonly number[], isDamaged: boolean): void;

  /** Every waiting event, oldest first; the callback given at construction says when there are some. */
  drain(): PlaneEvent[];

  stats(): PlaneStats;
  volumeStats(handle: VolumeHandle): VolumeStats;

  /** Stops accepting, finishes requests in flight, closes connections. Volumes are closed by closeVolume before. */
  close(): Promise<void>;
}

/** Tokens chosen by the plane itself (a client's FLUSH) have this bit set; the engine's own tokens do not. */
export const PLANE_TOKEN_BIT = 0x80000000;
