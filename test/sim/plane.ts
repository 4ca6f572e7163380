/**
 * The data plane in TypeScript over a simulated disk: the write table, captures, freezes, generations, grants and epochs of
 * docs/architecture.md, and nothing else (no sockets). Requests are split into pieces with pauses between them, so that
 * freezes, captures and the reuse of extents fall into the middle of them.
 */

import type { OpenFile } from '../../src/base/files.ts';
import { extentSum } from '../../src/format/page.ts';
import {
  BLOCK_BYTES,
  ENTRY_OWN,
  EXTENT_BYTES,
  type ExportMode,
  LEAF_BASES_OFFSET,
  LEAF_BYTES,
  LEAF_ENTRIES,
  LEAF_MASKS_OFFSET,
  NO_VOLUME_STATS,
  PLANE_TOKEN_BIT,
  type Plane,
  type PlaneEvent,
  type PlaneStats,
  SLOTS_PER_FILE,
  type SpeedLimits,
  type VolumeHandle,
  type VolumeStats,
} from '../../src/native/plane.ts';
import { NO_LIMITS } from '../../src/native/speed-limits.ts';
import { DiskError, PowerOff, type SimDisk } from './files.ts';

const EIO = 5;
const ENOSPC = 28;
const ALL_BLOCKS = 0xffff;

/** What a client gets. */
export class IoError extends Error {
  readonly errno: number;

  constructor(errno: number, reason = 'the plane refuses') {
    super(`errno ${errno}: ${reason}`);
    this.errno = errno;
  }
}

class NeedLeaf extends Error {
  readonly leafIndex: number;

  constructor(leafIndex: number) {
    super('need leaf');
    this.leafIndex = leafIndex;
  }
}

class NeedExtent extends Error {}

/** A law of docs/durability.md that a plane breaks on purpose, so that tests can see that it is noticed. */
export type BrokenLaw =
  | 'bytes before pointer'
  | 'pointer before reply'
  | 'unpointer before reuse'
  | 'a failed sync is final'
  | 'shared is not written';

/** Of an entry that is still to come. */
class NeedBytes extends Error {
  readonly index: number;

  constructor(index: number) {
    super('need bytes');
    this.index = index;
  }
}

type Entry = {
  extent: number;
  present: number;
  base: number;
  mask: number;
  isOwn: boolean;
  isDirty: boolean;
  /** Came out of a grant after the last capture. */
  isFresh: boolean;
};

type Leaf = { generation: number; readonly entries: Entry[] };

/** Volumes to be frozen at one instant: the last one to come does it for all. */
type Group = {
  missing: number;
  readonly here: SimVolume[];
  readonly frozen: Promise<ReadonlyMap<SimVolume, number[]>>;
  settle(changes: ReadonlyMap<SimVolume, number[]>): void;
};

type Job =
  | { readonly kind: 'flush'; readonly token: number }
  | { readonly kind: 'freeze'; readonly token: number; readonly group: Group }
  | { readonly kind: 'drop-leaves' }
  | { readonly kind: 'close'; readonly done: () => void };

type Waiter = { resolve(): void; reject(error: Error): void };

type Piece = { readonly index: number; readonly start: number; readonly end: number };

class SimVolume {
  readonly handle: VolumeHandle;
  sizeBytes: number;
  readonly readOnly: boolean;
  generation = 1;
  leaves = new Map<number, Leaf>();
  dirty: number[] = [];
  released: number[] = [];
  readonly touched = new Set<number>();
  grants: { first: number; count: number }[] = [];
  lastGrant = 0;
  isAsked = false;
  grantWaiters: Waiter[] = [];
  readonly faultWaiters = new Map<number, Waiter[]>();
  failed = 0;
  inside = 0;
  isFenced = false;
  fenceWaiters: (() => void)[] = [];
  emptyWaiters: (() => void)[] = [];
  jobs: Job[] = [];
  flushWaiters: Waiter[] = [];
  isBusy = false;
  isFilling = false;
  connections = 0;
  limits: SpeedLimits = NO_LIMITS;
  /** Entries whose absent blocks are still to come, and who waits for them. */
  readonly expected = new Set<number>();
  readonly bytesWaiters = new Map<number, Waiter[]>();

  constructor(handle: VolumeHandle, sizeBytes: number, readOnly: boolean) {
    this.handle = handle;
    this.sizeBytes = sizeBytes;
    this.readOnly = readOnly;
  }

  get granted(): number {
    return this.grants.reduce((sum, { count }) => sum + count, 0);
  }
}

export class SimPlane implements Plane {
  readonly #disk: SimDisk;
  readonly #wake: () => void;
  #events: PlaneEvent[] = [];
  readonly #files = new Map<number, { readonly path: string; file: OpenFile | null }>();
  readonly #volumes = new Map<VolumeHandle, SimVolume>();
  readonly #damaged = new Set<number>();
  /** What `loadHoles` was called with. */
  readonly holesTold: { readonly handle: VolumeHandle; readonly firstLeaf: number; readonly count: number }[] = [];
  readonly #questions = new Map<number, (words: bigint[] | null) => void>();
  #lastQuestion = 0;
  #filledBytes = 0;
  readonly #exports = new Map<string, { handle: VolumeHandle } & ExportMode>();
  readonly #pending = new Map<number, { volume: SimVolume; waiters: Waiter[]; job: Job | null }>();
  #lastToken = 0;
  #epoch = 1;
  readonly #running = new Map<number, number>();
  #lastRequest = 0;
  /** Null in every plane but those of tests of the tests. */
  breaks: BrokenLaw | null = null;
  /** Changes per captured event: small, so that captures come in parts. */
  partMax = 5;

  constructor(disk: SimDisk, wake: () => void) {
    this.#disk = disk;
    this.#wake = wake;
  }

  // ---- clients -----------------------------------------------------------------------------------------------------

  /** The handle behind an export name. */
  handleOf(name: string): VolumeHandle {
    const handle = this.#exports.get(name)?.handle;
    if (handle === undefined) throw new Error(`no export ${name}`);
    return handle;
  }

  setConnections(handle: VolumeHandle, connections: number): void {
    this.#volume(handle).connections = connections;
  }

  async read(handle: VolumeHandle, offset: number, length: number): Promise<Uint8Array> {
    const volume = this.#volume(handle);
    const target = new Uint8Array(length);
    for (const piece of pieces(offset, length)) {
      const at = piece.index * EXTENT_BYTES + piece.start - offset;
      await this.#request(volume, async () => {
        const entry = { ...this.#entry(volume, piece.index) };
        this.#requireBytes(volume, entry, piece, blocksTouched(piece));
        // Between looking up and reading: the extents must not be reused now.
        await this.#breathe();
        this.#show(entry, piece.start, target.subarray(at, at + piece.end - piece.start));
      });
    }
    return target;
  }

  async write(handle: VolumeHandle, offset: number, source: Uint8Array): Promise<void> {
    const volume = this.#volume(handle);
    for (const piece of pieces(offset, source.length)) {
      const at = piece.index * EXTENT_BYTES + piece.start - offset;
      const part = source.subarray(at, at + piece.end - piece.start);
      await this.#request(volume, async () => {
        await this.#breathe();
        const partial = blocksTouched(piece) & ~blocksCovered(piece);
        this.#requireBytes(volume, this.#entry(volume, piece.index), piece, partial);
        this.#writePiece(volume, piece, part);
      });
    }
  }

  async trim(handle: VolumeHandle, offset: number, length: number): Promise<void> {
    const volume = this.#volume(handle);
    for (const piece of pieces(offset, length)) {
      await this.#request(volume, async () => {
        await this.#breathe();
        if (volume.expected.has(piece.index)) this.#writeZeros(volume, piece);
        else this.#unmap(volume, piece);
      });
    }
  }

  flushClient(handle: VolumeHandle): Promise<void> {
    const volume = this.#volume(handle);
    if (volume.failed !== 0) return Promise.reject(new IoError(EIO));
    if (!volume.isBusy && volume.touched.size === 0 && volume.dirty.length === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#requestRound(volume, null, { resolve, reject });
    });
  }

  async #breathe(): Promise<void> {
    for (let turns = this.#disk.random.below(3); turns > 0; turns -= 1) await Promise.resolve();
  }

  /** Repeats an attempt until nothing is missing; outside the gate while it waits. */
  async #request(volume: SimVolume, attempt: () => Promise<void>): Promise<void> {
    for (;;) {
      if (volume.failed !== 0) throw new IoError(EIO);
      while (volume.isFenced) await new Promise<void>((resolve) => volume.fenceWaiters.push(resolve));
      this.#lastRequest += 1;
      const id = this.#lastRequest;
      this.#running.set(id, this.#epoch);
      volume.inside += 1;
      let missing: NeedLeaf | NeedExtent | NeedBytes;
      try {
        return await attempt();
      } catch (error) {
        if (error instanceof DiskError) throw new IoError(error.code === 'ENOSPC' ? ENOSPC : EIO, error.message);
        if (!(error instanceof NeedLeaf || error instanceof NeedExtent || error instanceof NeedBytes)) throw error;
        missing = error;
      } finally {
        this.#running.delete(id);
        volume.inside -= 1;
        if (volume.inside === 0) for (const resolve of volume.emptyWaiters.splice(0)) resolve();
      }
      if (missing instanceof NeedBytes) await this.#waitBytes(volume, missing.index);
      else await (missing instanceof NeedLeaf ? this.#waitLeaf(volume, missing.leafIndex) : this.#waitGrant(volume));
    }
  }

  // ---- filling -----------------------------------------------------------------------------------------------------

  #requireBytes(volume: SimVolume, entry: Entry, { index }: Piece, blocks: number): void {
    if (volume.expected.has(index) && (blocks & ~(entry.present | entry.mask)) !== 0) throw new NeedBytes(index);
  }

  #waitBytes(volume: SimVolume, index: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const waiters = volume.bytesWaiters.get(index);
      if (waiters !== undefined) waiters.push({ resolve, reject });
      else {
        volume.bytesWaiters.set(index, [{ resolve, reject }]);
        this.#emit({ kind: 'bytes-wanted', handle: volume.handle, index });
      }
    });
  }

  #wakeBytes(volume: SimVolume, index: number, errno: number): void {
    const waiters = volume.bytesWaiters.get(index) ?? [];
    volume.bytesWaiters.delete(index);
    for (const { resolve, reject } of waiters) errno === 0 ? resolve() : reject(new IoError(errno));
  }

  #writeZeros(volume: SimVolume, piece: Piece): void {
    const start = Math.ceil(piece.start / BLOCK_BYTES) * BLOCK_BYTES;
    const end = Math.floor(piece.end / BLOCK_BYTES) * BLOCK_BYTES;
    if (start < end) this.#writePiece(volume, { ...piece, start, end }, new Uint8Array(end - start));
  }

  /** Through the door for filling: whole blocks, into those that are absent and still to come. */
  async arrive(handle: VolumeHandle, offset: number, source: Uint8Array): Promise<void> {
    const volume = this.#volume(handle);
    for (const piece of pieces(offset, source.length)) {
      await this.#request(volume, async () => {
        await this.#breathe();
        for (let start = piece.start; start < piece.end; start += BLOCK_BYTES) {
          const entry = this.#entry(volume, piece.index);
          const isThere = ((entry.present | entry.mask) >> (start / BLOCK_BYTES)) & 1;
          if (isThere || !volume.expected.has(piece.index)) continue;
          const at = piece.index * EXTENT_BYTES + start - offset;
          this.#writePiece(
            volume,
            { ...piece, start, end: start + BLOCK_BYTES },
            source.subarray(at, at + BLOCK_BYTES),
          );
        }
      });
      this.#wakeBytes(volume, piece.index, 0);
    }
  }

  beginFill(handle: VolumeHandle, runs: Uint32Array): void {
    for (const index of entriesOf(runs)) this.#volume(handle).expected.add(index);
  }

  narrowFill(handle: VolumeHandle, runs: Uint32Array): void {
    const volume = this.#volume(handle);
    for (const index of entriesOf(runs)) {
      volume.expected.delete(index);
      this.#wakeBytes(volume, index, 0);
    }
  }

  failFill(handle: VolumeHandle, index: number): void {
    this.#wakeBytes(this.#volume(handle), index, EIO);
  }

  endFill(handle: VolumeHandle): void {
    const volume = this.#volume(handle);
    volume.expected.clear();
    for (const index of [...volume.bytesWaiters.keys()]) this.#wakeBytes(volume, index, 0);
  }

  publishFill({ name, handle }: { name: string; handle: VolumeHandle }): void {
    this.publish({ name, handle, readOnly: false, isListed: false, isInternal: true, description: '' });
  }

  #waitLeaf(volume: SimVolume, leafIndex: number): Promise<void> {
    if (volume.leaves.has(leafIndex)) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const waiters = volume.faultWaiters.get(leafIndex);
      if (waiters !== undefined) waiters.push({ resolve, reject });
      else {
        volume.faultWaiters.set(leafIndex, [{ resolve, reject }]);
        this.#emit({ kind: 'fault', handle: volume.handle, leafIndex });
      }
    });
  }

  #waitGrant(volume: SimVolume): Promise<void> {
    if (volume.granted > 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      volume.grantWaiters.push({ resolve, reject });
      this.#askGrant(volume);
    });
  }

  #askGrant(volume: SimVolume): void {
    if (volume.isAsked) return;
    volume.isAsked = true;
    this.#emit({ kind: 'want-grant', handle: volume.handle, wanted: 64 });
  }

  #takeExtent(volume: SimVolume): number {
    const run = volume.grants[0];
    if (run === undefined) throw new NeedExtent('need extent');
    const address = run.first;
    if (run.count === 1) volume.grants.shift();
    else volume.grants[0] = { first: run.first + 1, count: run.count - 1 };
    if (volume.granted <= volume.lastGrant / 2) this.#askGrant(volume);
    return address;
  }

  // ---- entries -----------------------------------------------------------------------------------------------------

  #entry(volume: SimVolume, index: number): Entry {
    const leafIndex = Math.floor(index / LEAF_ENTRIES);
    const leaf = volume.leaves.get(leafIndex);
    if (leaf === undefined) throw new NeedLeaf(leafIndex);
    if (leaf.generation !== volume.generation) {
      if (this.breaks !== 'shared is not written') for (const entry of leaf.entries) entry.isOwn = false;
      leaf.generation = volume.generation;
    }
    const entry = leaf.entries[index % LEAF_ENTRIES];
    if (entry === undefined) throw new Error('an index inside the leaf');
    return entry;
  }

  #noteDirty(volume: SimVolume, entry: Entry, index: number): void {
    if (!entry.isDirty) volume.dirty.push(index);
    entry.isDirty = true;
  }

  #fileOf(extent: number): OpenFile {
    const fileNumber = Math.floor(extent / SLOTS_PER_FILE);
    const known = this.#files.get(fileNumber);
    if (known === undefined) throw new Error(`the plane was never told of extent file ${fileNumber}`);
    known.file ??= this.#disk.open(known.path, 'existing');
    return known.file;
  }

  #readExtent(extent: number, start: number, target: Uint8Array): void {
    if (this.#damaged.has(extent)) throw new IoError(EIO, `extent ${extent} is damaged`);
    target.fill(0);
    this.#fileOf(extent).read((extent % SLOTS_PER_FILE) * EXTENT_BYTES + start, target);
  }

  #writeExtent(volume: SimVolume, extent: number, start: number, source: Uint8Array): void {
    volume.touched.add(Math.floor(extent / SLOTS_PER_FILE));
    this.#fileOf(extent).write((extent % SLOTS_PER_FILE) * EXTENT_BYTES + start, source);
  }

  /** The bytes from `start` on as an entry shows them. */
  #show(entry: Entry, start: number, target: Uint8Array): void {
    for (let done = 0; done < target.length; ) {
      const block = Math.floor((start + done) / BLOCK_BYTES);
      const length = Math.min((block + 1) * BLOCK_BYTES - start - done, target.length - done);
      const part = target.subarray(done, done + length);
      if ((entry.present >> block) & 1) this.#readExtent(entry.extent, start + done, part);
      else if ((entry.mask >> block) & 1) this.#readExtent(entry.base, start + done, part);
      else part.fill(0);
      done += length;
    }
  }

  #writePiece(volume: SimVolume, piece: Piece, source: Uint8Array): void {
    if (volume.readOnly) throw new IoError(1);
    const entry = this.#entry(volume, piece.index);
    const touched = blocksTouched(piece);
    if (entry.isOwn && entry.extent !== 0) {
      const missing = touched & ~entry.present;
      this.#writeBlocks(volume, entry, entry.extent, entry.present, piece, source);
      if (missing === 0) return;
      this.#noteDirty(volume, entry, piece.index);
      entry.present |= missing;
      if (entry.present === ALL_BLOCKS) [entry.base, entry.mask] = [0, 0];
      return;
    }
    const target = this.#takeExtent(volume);
    try {
      this.#writeBeside(volume, entry, target, piece, source);
    } catch (error) {
      volume.grants.unshift({ first: target, count: 1 });
      throw error;
    }
  }

  #writeBeside(volume: SimVolume, entry: Entry, target: number, piece: Piece, source: Uint8Array): void {
    const touched = blocksTouched(piece);
    let [present, base, mask] = [touched, 0, 0];
    if (entry.extent !== 0 && entry.mask === 0) {
      mask = entry.present & ~touched;
      base = mask === 0 ? 0 : entry.extent;
    } else if (entry.extent !== 0) {
      const block = new Uint8Array(BLOCK_BYTES);
      for (let at = 0; at < 16; at += 1) {
        if ((((entry.present & ~touched) >> at) & 1) === 0) continue;
        this.#readExtent(entry.extent, at * BLOCK_BYTES, block);
        this.#writeExtent(volume, target, at * BLOCK_BYTES, block);
      }
      present |= entry.present;
      mask = entry.mask & ~present;
      base = mask === 0 ? 0 : entry.base;
    }
    this.#writeBlocks(volume, entry, target, 0, piece, source);
    this.#noteDirty(volume, entry, piece.index);
    if (this.breaks === 'unpointer before reuse' && entry.extent !== 0 && entry.extent !== base)
      volume.grants.unshift({ first: entry.extent, count: 1 });
    Object.assign(entry, { extent: target, present, base, mask, isOwn: true, isFresh: true });
  }

  /** Partial blocks are filled up from what the entry shows, unless the target has them. */
  #writeBlocks(
    volume: SimVolume,
    entry: Entry,
    target: number,
    inTarget: number,
    piece: Piece,
    source: Uint8Array,
  ): void {
    const first = Math.floor(piece.start / BLOCK_BYTES);
    const last = Math.floor((piece.end - 1) / BLOCK_BYTES);
    const isFilled = (block: number): boolean => ((inTarget >> block) & 1) === 1;
    const start = isFilled(first) ? piece.start : first * BLOCK_BYTES;
    const end = isFilled(last) ? piece.end : (last + 1) * BLOCK_BYTES;
    const bytes = new Uint8Array(end - start);
    if (start < piece.start) this.#show(entry, start, bytes.subarray(0, piece.start - start));
    if (end > piece.end) this.#show(entry, piece.end, bytes.subarray(piece.end - start));
    bytes.set(source, piece.start - start);
    this.#writeExtent(volume, target, start, bytes);
  }

  #unmap(volume: SimVolume, piece: Piece): void {
    const entry = this.#entry(volume, piece.index);
    const covered = blocksCovered(piece);
    if (((entry.present | entry.mask) & covered) === 0) return;
    this.#noteDirty(volume, entry, piece.index);
    const [present, mask] = [entry.present & ~covered, entry.mask & ~covered];
    if (present !== 0 || (mask !== 0 && entry.isOwn)) {
      Object.assign(entry, { present, mask, base: mask === 0 ? 0 : entry.base });
      return;
    }
    if (entry.isFresh) volume.released.push(entry.extent);
    else if (entry.isOwn && this.breaks === 'unpointer before reuse')
      volume.grants.unshift({ first: entry.extent, count: 1 });
    const extent = mask === 0 ? 0 : entry.base;
    Object.assign(entry, { extent, present: mask, base: 0, mask: 0, isOwn: false, isFresh: false });
  }

  // ---- captures ----------------------------------------------------------------------------------------------------

  #requestRound(volume: SimVolume, job: Job | null, waiter: Waiter | null): void {
    if (job !== null) volume.jobs.push(job);
    if (waiter !== null) volume.flushWaiters.push(waiter);
    if (volume.isBusy) return;
    volume.isBusy = true;
    this.#startRound(volume);
  }

  #startRound(volume: SimVolume): void {
    queueMicrotask(() => {
      this.#round(volume).catch((error: unknown) => {
        if (!(error instanceof PowerOff)) this.bugs.push(error);
      });
    });
  }

  /** What must not happen in a plane; tests look here. */
  readonly bugs: unknown[] = [];

  async #round(volume: SimVolume): Promise<void> {
    const job = volume.jobs.shift() ?? null;
    if (job?.kind === 'drop-leaves') {
      await this.#fenced([volume], () => {
        if (volume.dirty.length === 0) volume.leaves = new Map();
      });
      return this.#endRound(volume, [], null, 0);
    }
    const waiters = volume.flushWaiters.splice(0);
    let changes: number[];
    if (job?.kind === 'freeze') changes = await this.#frozenWith(volume, job.group);
    else changes = this.#takeChanges(volume);
    const released = volume.released.splice(0);
    const failure = await this.#syncTouched(volume);
    if (released.length > 0) {
      const runs = Uint32Array.from(released.flatMap((extent) => [extent, 1]));
      this.#emit({ kind: 'released', handle: volume.handle, runs });
    }
    if (failure !== null) {
      volume.failed = EIO;
      this.#emit({ kind: 'failed', handle: volume.handle, fileNumber: failure, errno: EIO });
      return this.#endRound(volume, waiters, job, EIO);
    }
    const isAsked = job?.kind === 'flush' || job?.kind === 'freeze';
    // Whoever waited for this round may have written what an earlier one lost.
    if (!isAsked && changes.length === 0) return this.#endRound(volume, waiters, job, volume.failed);
    this.#lastToken += 1;
    const token = isAsked ? job.token : (PLANE_TOKEN_BIT | this.#lastToken) >>> 0;
    if (this.breaks === 'pointer before reply') for (const waiter of waiters.splice(0)) waiter.resolve();
    this.#pending.set(token, { volume, waiters, job });
    this.#handOver(volume, token, job?.kind === 'freeze', changes);
  }

  async #frozenWith(volume: SimVolume, group: Group): Promise<number[]> {
    group.here.push(volume);
    group.missing -= 1;
    if (group.missing === 0) {
      const freeze = (one: SimVolume): [SimVolume, number[]] => {
        const taken = this.#takeChanges(one);
        one.generation += 1;
        return [one, taken];
      };
      group.settle(await this.#fenced(group.here, () => new Map(group.here.map(freeze))));
    }
    return (await group.frozen).get(volume) ?? [];
  }

  /** All fences are up, and all volumes empty, before anything is done. */
  async #fenced<T>(volumes: readonly SimVolume[], work: () => T): Promise<T> {
    for (const volume of volumes) volume.isFenced = true;
    for (const volume of volumes)
      while (volume.inside > 0) await new Promise<void>((resolve) => volume.emptyWaiters.push(resolve));
    const result = work();
    for (const volume of volumes) {
      volume.isFenced = false;
      for (const resolve of volume.fenceWaiters.splice(0)) resolve();
    }
    return result;
  }

  #takeChanges(volume: SimVolume): number[] {
    const changes: number[] = [];
    for (const index of volume.dirty.splice(0).sort((a, b) => a - b)) {
      const entry = this.#entry(volume, index);
      [entry.isDirty, entry.isFresh] = [false, false];
      changes.push(index, entry.extent, (entry.present | (entry.mask << 16)) >>> 0, entry.base);
    }
    return changes;
  }

  /** The file whose sync failed, or null. */
  async #syncTouched(volume: SimVolume): Promise<number | null> {
    const touched = this.breaks === 'bytes before pointer' ? [] : [...volume.touched];
    volume.touched.clear();
    for (const fileNumber of touched) {
      try {
        await this.#fileOf(fileNumber * SLOTS_PER_FILE).sync();
      } catch (error) {
        if (error instanceof DiskError && this.breaks === 'a failed sync is final') continue;
        if (error instanceof DiskError) return fileNumber;
        throw error;
      }
    }
    return null;
  }

  #handOver(volume: SimVolume, token: number, frozen: boolean, changes: readonly number[]): void {
    const words = this.partMax * 4;
    let at = 0;
    do {
      const part = Uint32Array.from(changes.slice(at, at + words));
      at += words;
      this.#emit({ kind: 'captured', handle: volume.handle, token, frozen, last: at >= changes.length, changes: part });
    } while (at < changes.length);
  }

  #endRound(volume: SimVolume, waiters: readonly Waiter[], job: Job | null, errno: number): void {
    for (const waiter of waiters) {
      if (errno === 0) waiter.resolve();
      else waiter.reject(new IoError(errno));
    }
    if (job?.kind === 'close') {
      const runs = Uint32Array.from(volume.grants.splice(0).flatMap(({ first, count }) => [first, count]));
      if (runs.length > 0) this.#emit({ kind: 'released', handle: volume.handle, runs });
      // As the real one: the operation ends behind its events.
      queueMicrotask(() => queueMicrotask(job.done));
    }
    if (volume.jobs.length > 0 || volume.flushWaiters.length > 0) this.#startRound(volume);
    else volume.isBusy = false;
  }

  // ---- Plane -------------------------------------------------------------------------------------------------------

  #volume(handle: VolumeHandle): SimVolume {
    const volume = this.#volumes.get(handle);
    if (volume === undefined) throw new Error(`the plane knows no handle ${handle}`);
    return volume;
  }

  #emit(event: PlaneEvent): void {
    this.#events.push(event);
    if (this.#events.length === 1) queueMicrotask(() => this.#events.length > 0 && this.#wake());
  }

  async listen(address: string): Promise<string> {
    return address;
  }

  async listenInternally(): Promise<void> {}

  setTls(): void {}

  registerFile(fileNumber: number, path: string): void {
    if (this.#files.has(fileNumber)) throw new Error(`extent file ${fileNumber} is registered twice`);
    this.#files.set(fileNumber, { path, file: null });
  }

  forgetFile(fileNumber: number): void {
    this.#files.get(fileNumber)?.file?.close();
    this.#files.delete(fileNumber);
  }

  openVolume(options: { handle: VolumeHandle; sizeBytes: number; readOnly: boolean }): void {
    const { handle, sizeBytes, readOnly } = options;
    if (this.#volumes.has(handle)) throw new Error(`handle ${handle} is taken`);
    this.#volumes.set(handle, new SimVolume(handle, sizeBytes, readOnly));
  }

  closeVolume(handle: VolumeHandle): Promise<void> {
    const volume = this.#volume(handle);
    this.#volumes.delete(handle);
    return new Promise((resolve) => {
      this.#requestRound(volume, { kind: 'close', done: resolve }, null);
    });
  }

  resizeVolume(handle: VolumeHandle, sizeBytes: number): void {
    const volume = this.#volume(handle);
    volume.sizeBytes = Math.max(volume.sizeBytes, sizeBytes);
  }

  /** Kept and not obeyed: there is no time here. */
  setLimits(handle: VolumeHandle, limits: SpeedLimits): void {
    this.#volume(handle).limits = limits;
  }

  limitsOf(handle: VolumeHandle): SpeedLimits {
    return this.#volume(handle).limits;
  }

  publish({ name, handle, ...mode }: { name: string; handle: VolumeHandle } & ExportMode): void {
    this.#volume(handle);
    this.#exports.set(name, { handle, ...mode });
  }

  /** What a client that asks for a list is told. */
  listed(): string[] {
    return [...this.#exports].filter(([, { isListed, isInternal }]) => isListed && !isInternal).map(([name]) => name);
  }

  async unpublish(name: string): Promise<void> {
    this.#exports.delete(name);
  }

  loadLeaf(handle: VolumeHandle, leafIndex: number, page: Uint8Array): void {
    const volume = this.#volumes.get(handle);
    if (volume === undefined) return;
    // The first one wins: a leaf that is there may carry changes.
    if (!volume.leaves.has(leafIndex)) volume.leaves.set(leafIndex, decodeLeaf(page, volume.generation));
    const waiters = volume.faultWaiters.get(leafIndex) ?? [];
    volume.faultWaiters.delete(leafIndex);
    for (const waiter of waiters) waiter.resolve();
  }

  loadHoles(handle: VolumeHandle, firstLeaf: number, count: number): void {
    this.holesTold.push({ handle, firstLeaf, count });
    // The real one keeps the others in mind; here each is asked for when it is needed.
    this.loadLeaf(handle, firstLeaf, new Uint8Array(LEAF_BASES_OFFSET));
  }

  failLeaf(handle: VolumeHandle, leafIndex: number): void {
    const volume = this.#volumes.get(handle);
    const waiters = volume?.faultWaiters.get(leafIndex) ?? [];
    volume?.faultWaiters.delete(leafIndex);
    for (const waiter of waiters) waiter.reject(new IoError(EIO));
  }

  dropLeaves(handle: VolumeHandle): void {
    const volume = this.#volumes.get(handle);
    if (volume !== undefined) this.#requestRound(volume, { kind: 'drop-leaves' }, null);
  }

  fill(handle: VolumeHandle, indices: readonly number[]): boolean {
    const volume = this.#volumes.get(handle);
    if (volume === undefined || volume.readOnly || volume.isFilling) return volume?.isFilling !== true;
    volume.isFilling = true;
    void this.#fillAll(volume, indices).finally(() => {
      volume.isFilling = false;
    });
    return true;
  }

  async #fillAll(volume: SimVolume, indices: readonly number[]): Promise<void> {
    for (const index of indices) {
      try {
        await this.#request(volume, async () => {
          // Once it is closed its extents may be somebody else's.
          if (!this.#volumes.has(volume.handle)) return;
          this.#fillEntry(volume, index);
        });
      } catch (error) {
        if (!(error instanceof IoError)) throw error;
      }
    }
  }

  #fillEntry(volume: SimVolume, index: number): void {
    const entry = this.#entry(volume, index);
    if (!entry.isOwn || entry.extent === 0 || entry.mask === 0) return;
    const block = new Uint8Array(BLOCK_BYTES);
    const absent = entry.mask & ~entry.present;
    for (let at = 0; at < 16; at += 1) {
      if (((absent >> at) & 1) === 0) continue;
      this.#readExtent(entry.base, at * BLOCK_BYTES, block);
      this.#writeExtent(volume, entry.extent, at * BLOCK_BYTES, block);
      this.#filledBytes += BLOCK_BYTES;
    }
    this.#noteDirty(volume, entry, index);
    entry.present |= absent;
    [entry.base, entry.mask] = [0, 0];
  }

  grant(handle: VolumeHandle, first: number, count: number): void {
    const volume = this.#volumes.get(handle);
    if (volume === undefined) {
      this.#emit({ kind: 'released', handle, runs: Uint32Array.of(first, count) });
      return;
    }
    volume.grants.push({ first, count });
    volume.lastGrant = count;
    volume.isAsked = false;
    for (const waiter of volume.grantWaiters.splice(0)) waiter.resolve();
  }

  returnGrants(handle: VolumeHandle): void {
    const runs = this.#volumes.get(handle)?.grants.splice(0) ?? [];
    if (runs.length === 0) return;
    this.#emit({
      kind: 'released',
      handle,
      runs: Uint32Array.from(runs.flatMap(({ first, count }) => [first, count])),
    });
  }

  refuse(handle: VolumeHandle, errno: number): void {
    const volume = this.#volumes.get(handle);
    if (volume === undefined) return;
    volume.isAsked = false;
    for (const waiter of volume.grantWaiters.splice(0)) waiter.reject(new IoError(errno));
  }

  flush(handle: VolumeHandle, token: number): void {
    this.#ask(handle, { kind: 'flush', token });
  }

  freeze(handle: VolumeHandle, token: number): void {
    this.freezeTogether([{ handle, token }]);
  }

  freezeTogether(members: readonly { readonly handle: VolumeHandle; readonly token: number }[]): void {
    const missing = members.filter(({ handle }) => this.#volumes.has(handle)).length;
    let settle!: Group['settle'];
    const frozen = new Promise<ReadonlyMap<SimVolume, number[]>>((resolve) => {
      settle = resolve;
    });
    const group: Group = { missing, here: [], frozen, settle };
    for (const { handle, token } of members) this.#ask(handle, { kind: 'freeze', token, group });
  }

  #ask(handle: VolumeHandle, job: Job): void {
    const volume = this.#volumes.get(handle);
    // As addon.ts answers for a handle that is gone.
    if (volume === undefined) this.#emit({ kind: 'failed', handle, fileNumber: 0, errno: EIO });
    else this.#requestRound(volume, job, null);
  }

  committed(token: number, errno: number): void {
    const pending = this.#pending.get(token);
    this.#pending.delete(token);
    if (pending === undefined) return;
    // Its changes are lost to the engine: nothing written later may be called durable.
    if (errno !== 0) pending.volume.failed = errno;
    this.#endRound(pending.volume, pending.waiters, pending.job, errno);
  }

  /** What a client is told that negotiates a context: changed ranges as starts and ends, or snapshots; null: none such. */
  ask(handle: VolumeHandle, snapshotId: string | null): Promise<bigint[] | null> {
    this.#lastQuestion += 1;
    const id = this.#lastQuestion;
    return new Promise((resolve) => {
      this.#questions.set(id, resolve);
      this.#emit({ kind: 'question', id, handle, snapshotId });
    });
  }

  answer(id: number, words: BigUint64Array | null): void {
    this.#questions.get(id)?.(words === null ? null : [...words]);
    this.#questions.delete(id);
  }

  advanceEpoch(): number {
    this.#epoch += 1;
    return this.#epoch;
  }

  quiescedEpoch(): number {
    let oldest = this.#epoch;
    for (const epoch of this.#running.values()) oldest = Math.min(oldest, epoch);
    return oldest;
  }

  async allocateRun(fileNumber: number, firstSlot: number, count: number): Promise<boolean> {
    await this.#breathe();
    const known = this.#files.get(fileNumber);
    if (known === undefined) throw new Error(`extent file ${fileNumber} is not registered`);
    return this.#disk.reserve(known.path, firstSlot * EXTENT_BYTES, count * EXTENT_BYTES);
  }

  async punchRun(fileNumber: number, firstSlot: number, count: number): Promise<void> {
    await this.#breathe();
    const known = this.#files.get(fileNumber);
    if (known === undefined) throw new Error(`extent file ${fileNumber} is not registered`);
    this.#disk.punch(known.path, firstSlot * EXTENT_BYTES, count * EXTENT_BYTES);
  }

  async sumRun(fileNumber: number, firstSlot: number, count: number): Promise<Uint32Array> {
    await this.#breathe();
    const bytes = new Uint8Array(EXTENT_BYTES);
    return Uint32Array.from({ length: count }, (_, index) => {
      bytes.fill(0);
      try {
        this.#fileOf(fileNumber * SLOTS_PER_FILE).read((firstSlot + index) * EXTENT_BYTES, bytes);
        return extentSum(bytes);
      } catch (error) {
        if (error instanceof DiskError) return 0;
        throw error;
      }
    });
  }

  setDamaged(addresses: readonly number[], isDamaged: boolean): void {
    for (const address of addresses) {
      if (isDamaged) this.#damaged.add(address);
      else this.#damaged.delete(address);
    }
  }

  drain(): PlaneEvent[] {
    return this.#events.splice(0);
  }

  stats(): PlaneStats {
    let connections = 0;
    for (const volume of this.#volumes.values()) connections += volume.connections;
    const filledBytes = this.#filledBytes;
    return { connections, connectionsTotal: connections, handshakesFailed: 0, panics: 0, filledBytes };
  }

  volumeStats(handle: VolumeHandle): VolumeStats {
    const connections = this.#volumes.get(handle)?.connections ?? 0;
    return { ...NO_VOLUME_STATS, connections };
  }

  async close(): Promise<void> {}
}

function decodeLeaf(page: Uint8Array, generation: number): Leaf {
  if (page.length !== LEAF_BYTES && page.length !== LEAF_BASES_OFFSET)
    throw new Error(`a leaf of ${page.length} bytes`);
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
  const hasBases = page.length === LEAF_BYTES;
  const entries = Array.from({ length: LEAF_ENTRIES }, (_, position) => ({
    extent: view.getUint32(position * 8, true),
    present: view.getUint16(position * 8 + 4, true),
    base: hasBases ? view.getUint32(LEAF_BASES_OFFSET + position * 4, true) : 0,
    mask: hasBases ? view.getUint16(LEAF_MASKS_OFFSET + position * 2, true) : 0,
    isOwn: (view.getUint16(position * 8 + 6, true) & ENTRY_OWN) !== 0,
    isDirty: false,
    isFresh: false,
  }));
  return { generation, entries };
}

function pieces(offset: number, length: number): Piece[] {
  const result: Piece[] = [];
  for (let at = offset; at < offset + length; ) {
    const start = at % EXTENT_BYTES;
    const end = Math.min(start + offset + length - at, EXTENT_BYTES);
    result.push({ index: Math.floor(at / EXTENT_BYTES), start, end });
    at += end - start;
  }
  return result;
}

function maskBetween(first: number, past: number): number {
  return past <= first ? 0 : ((1 << (past - first)) - 1) << first;
}

function blocksTouched({ start, end }: Piece): number {
  return maskBetween(Math.floor(start / BLOCK_BYTES), Math.ceil(end / BLOCK_BYTES));
}

function blocksCovered({ start, end }: Piece): number {
  return maskBetween(Math.ceil(start / BLOCK_BYTES), Math.floor(end / BLOCK_BYTES));
}

function* entriesOf(runs: Uint32Array): Generator<number> {
  for (let at = 0; at < runs.length; at += 2)
    for (let index = 0; index < (runs[at + 1] ?? 0); index += 1) yield (runs[at] ?? 0) + index;
}
