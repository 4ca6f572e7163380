/**
 * The engine: what a pool holds and everything that may be asked of it. The only file of this folder that others run (besides check.ts;
 * types and defaults have files of their own). Decides synchronously, then waits for durability; talks to the plane, the journal and the disk, and
 * knows nothing of HTTP, users or names other than export names.
 *
 * Every operation is idempotent by id. Records are applied in the turn in which they are appended, so the order of the
 * state and of the journal is the same.
 */

import { randomUUID } from 'node:crypto';
import type { Clock } from '../base/clock.ts';
import { Failure } from '../base/errors.ts';
import type { Files } from '../base/files.ts';
import { type EngineRecord, encodeRecord } from '../format/record.ts';
import { Journal } from '../journal/journal.ts';
import { EXTENT_BYTES, type ExportMode, NO_VOLUME_STATS, type Plane } from '../native/plane.ts';
import { speedLimitsOf } from '../native/speed-limits.ts';
import { Checkpointer } from './checkpointer.ts';
import { Damage } from './damage.ts';
import { diffOf, mapOf } from './diff.ts';
import { Dropper } from './dropping.ts';
import { Exports, lineageOf, type Opened } from './exports.ts';
import { Figures } from './figures.ts';
import { Filler } from './filler.ts';
import { Fills } from './fills.ts';
import type { Engine, EngineOptions, EngineParts } from './interface.ts';
import { PAGES_PATH } from './pages.ts';
import { PlaneServant } from './plane-servant.ts';
import { Provisioning } from './provisioning.ts';
import {
  CHECKPOINT_PATHS,
  createPool,
  EXTENTS_PATH,
  JOURNAL_PATHS,
  poolExists,
  type Recovered,
  recover,
} from './recovery.ts';
import { requireFits, requireGroup, requireSize } from './requests.ts';
import { Scrubber } from './scrub.ts';
import { DEFAULT_POOL_SETTINGS } from './settings.ts';
import { extentPath, Space } from './space.ts';
import type { State, StoredObject } from './state.ts';
import { Turns } from './turns.ts';
import type {
  ByteRange,
  FillRange,
  Place,
  PoolStats,
  PublishOptions,
  ScrubStatus,
  VolumeLimits,
  VolumeSpace,
  VolumeUsage,
} from './volume-store.ts';

export type { Engine, EngineOptions, EngineParts } from './interface.ts';
export type { PoolSettings } from './settings.ts';

const LOCK_PATH = 'lock';
const COMMIT_PERIOD_MS = 10_000;
const TIDY_PERIOD_MS = 1_000;
/** A half is used up to here before a checkpoint begins; the rest is room for what is committed meanwhile. */
const JOURNAL_FILL_MAX = 0.5;
const DIRTY_PAGES_MAX = 8192;

export const DEFAULT_ENGINE_OPTIONS: EngineOptions = {
  ...DEFAULT_POOL_SETTINGS,
  journalHalfBytes: 16 * 2 ** 20,
  cleanPagesMax: 4096,
};

type Parked = { readonly number: number; readonly mode: ExportMode };

export async function openEngine(parts: EngineParts): Promise<Engine> {
  const options = { ...DEFAULT_ENGINE_OPTIONS, ...parts.options };
  const release = parts.files.lock(LOCK_PATH);
  try {
    if (!poolExists(parts.files)) {
      await createPool(parts.files, { poolId: randomUUID(), journalHalfBytes: options.journalHalfBytes });
    }
    const recovered = recover(parts.files, { mode: 'existing', cleanPagesMax: options.cleanPagesMax });
    const engine = new PoolEngine(parts, options, recovered, release);
    await engine.begin(recovered);
    return engine;
  } catch (error) {
    release();
    throw error;
  }
}

class PoolEngine implements Engine {
  readonly #files: Files;
  readonly #plane: Plane;
  readonly #clock: Clock;
  readonly #options: EngineOptions;
  readonly #state: State;
  readonly #journal: Journal;
  readonly #checkpointer: Checkpointer;
  readonly #space: Space;
  readonly #figures: Figures;
  readonly #filler: Filler;
  readonly #provisioning: Provisioning;
  readonly #scrubber: Scrubber;
  readonly #exports: Exports;
  readonly #servant: PlaneServant;
  readonly #fills: Fills;
  readonly #onFatal: (error: Error) => void;
  readonly #closers: (() => void)[] = [];
  readonly #turns = new Turns();
  readonly #dropper: Dropper;
  #isClosing = false;
  /** The last one found no space, or the journal waits for one. */
  #isCheckpointDue = false;
  /** Export names of a volume that is being reverted: they come back with it unless they are taken away meanwhile. */
  readonly #parked = new Map<string, Parked>();

  constructor(parts: EngineParts, options: EngineOptions, recovered: Recovered, release: () => void) {
    this.#files = parts.files;
    this.#plane = parts.plane;
    this.#clock = parts.clock;
    this.#options = options;
    this.#state = recovered.state;
    this.#onFatal = parts.onFatal;
    const [zero, one] = JOURNAL_PATHS;
    const halves = [parts.files.open(zero, 'existing'), parts.files.open(one, 'existing')] as const;
    const { journalHalfBytes } = recovered.header;
    this.#journal = new Journal(halves, journalHalfBytes, recovered.journal, {
      failure: parts.onFatal,
      full: () => this.#checkpointNext(),
    });
    const { files, clock } = parts;
    const [state, journal] = [this.#state, this.#journal];
    this.#checkpointer = new Checkpointer({ files, state, journal, clock, number: recovered.checkpointNumber });
    // Throws at once what keeps the records from being applied; rejects when the journal fails.
    const append = (records: EngineRecord[]): Promise<void> => this.#applyAndJournal(records);
    const damage = new Damage(parts.plane);
    this.#dropper = new Dropper({ state, clock, append });
    this.#space = new Space({ ...parts, state, append, options, damage, dropper: this.#dropper });
    this.#scrubber = new Scrubber({
      ...parts,
      ...{ state, append, damage, settings: options },
      rootProblem: () => this.#checkpointer.problemOnDisk(),
    });
    this.#figures = new Figures({ state, clock });
    this.#provisioning = new Provisioning({
      ...{ state, files, settings: options, onEvent: parts.onEvent },
      // How much a deletion under way brings is not known before its end.
      comingBytes: () => (this.#dropper.isRunning ? Number.POSITIVE_INFINITY : this.#space.reclaimBytes),
    });
    this.#exports = new Exports(parts.plane);
    const bytesPerTick = (options.fillBytesPerSecond * TIDY_PERIOD_MS) / 1000;
    this.#filler = new Filler({ plane: parts.plane, state, exports: this.#exports, bytesPerTick });
    this.#fills = new Fills(parts.plane, this.#exports);
    this.#servant = new PlaneServant({ ...parts, state, append, space: this.#space, exports: this.#exports });
    this.#closers.push(() => {
      for (const half of halves) half.close();
      recovered.pagesFile.close();
      this.#checkpointer.close();
      release();
    });
  }

  async begin(recovered: Recovered): Promise<void> {
    for (const fileNumber of this.#state.files.keys()) {
      const path = extentPath(fileNumber);
      if (!this.#files.exists(path)) throw new Failure('corrupt', { path, reason: 'an extent file is missing' });
      this.#plane.registerFile(fileNumber, this.#files.absolute(path));
    }
    await this.#syncAll();
    this.#removeStrayFiles();
    // Frees the half that holds frames from before the crash, and makes the next start short.
    if (recovered.framesReplayed > 0) await this.#checkpoint();
    this.#closers.push(this.#clock.every(COMMIT_PERIOD_MS, () => this.#servant.commitAll()));
    this.#closers.push(this.#clock.every(TIDY_PERIOD_MS, () => this.#tidy()));
    this.#background(this.#dropper.run());
    this.#background(this.#scrubber.begin());
  }

  /**
   * What was read may be in the page cache only, written by a process that died before its sync returned. From here on it is built
   * upon (slots and extents are reused, clients see it), so it has to be as durable as it looks. Costs nothing where all is clean.
   */
  async #syncAll(): Promise<void> {
    const extentFiles = [...this.#state.files.keys()].map(extentPath);
    for (const path of [...JOURNAL_PATHS, ...CHECKPOINT_PATHS, PAGES_PATH, ...extentFiles]) {
      const file = this.#files.open(path, 'existing');
      try {
        await file.sync();
      } finally {
        file.close();
      }
    }
    await this.#files.syncFolder(EXTENTS_PATH);
  }

  /** A file that no record names: made right before a crash, or removed right before one. */
  #removeStrayFiles(): void {
    for (const name of this.#files.list(EXTENTS_PATH)) {
      const fileNumber = Number.parseInt(name, 10);
      if (!this.#state.files.has(fileNumber)) this.#files.remove(`${EXTENTS_PATH}/${name}`);
    }
  }

  /**
   * Applies now, resolves when durable. A page that cannot be read makes it fail with nothing changed; any other exception
   * leaves the state half changed: the process has to end.
   */
  async #append(records: readonly EngineRecord[]): Promise<void> {
    await this.#applyAndJournal(records);
  }

  #applyAndJournal(records: readonly EngineRecord[]): Promise<void> {
    let isPrepared = false;
    try {
      this.#state.pages.holding(() => {
        for (const record of records) this.#state.prepare(record);
        isPrepared = true;
        for (const record of records) this.#state.apply(record, this.#journal.sequence);
      });
    } catch (error) {
      if (isPrepared || !(error instanceof Failure))
        this.#onFatal(error instanceof Error ? error : new Error(String(error)));
      throw error;
    }
    this.#figures.note(records);
    const durable = this.#journal.append(records.map(encodeRecord));
    this.#space.landed(this.#state.takeLanded());
    this.#space.freed(this.#state.takeFreed(), durable);
    if (this.#journal.fill > JOURNAL_FILL_MAX || this.#state.pages.dirtyCount > DIRTY_PAGES_MAX) this.#checkpointSoon();
    return durable;
  }

  #checkpointSoon(): void {
    // One that found no space is tried again by the timer, not by every commit.
    if (this.#checkpointer.isRunning || this.#isCheckpointDue) return;
    // In a turn of its own: the caller is in the middle of one synchronous step.
    queueMicrotask(() => void this.#checkpoint().catch(() => {}));
  }

  /** One that begins after now: what runs already does not help. */
  #checkpointNext(): void {
    this.#isCheckpointDue = true;
    const ended = this.#checkpointer.isRunning ? this.#checkpoint() : Promise.resolve();
    // A failure has ended everything.
    ended.then(() => this.#checkpoint()).catch(() => {});
  }

  async checkpoint(): Promise<void> {
    if (await this.#checkpoint()) return;
    const { freeBytes } = this.#files.space();
    throw new Failure('out_of_space', { freeBytes, reservedBytes: this.#options.reserveBytes });
  }

  /** False: the disk is full; the timer tries again. */
  async #checkpoint(): Promise<boolean> {
    try {
      this.#isCheckpointDue = !(await this.#checkpointer.run());
      return !this.#isCheckpointDue;
    } catch (error) {
      this.#onFatal(error instanceof Error ? error : new Error(String(error)));
      throw error;
    }
  }

  #background(work: Promise<void>): void {
    work.catch((error: unknown) => this.#onFatal(error instanceof Error ? error : new Error(String(error))));
  }

  #tidy(): void {
    this.#provisioning.watch();
    this.#filler.tick();
    if (this.#space.hasWork) this.#background(this.#space.tidy());
    if (this.#isCheckpointDue) this.#checkpoint().catch(() => {});
    if (this.#scrubber.isDue) this.#background(this.#scrubber.run());
  }

  // ---- deletion in the background --------------------------------------------------------------------------------------

  async #reclaimAndReown(lineage: number, relatives: Iterable<number>): Promise<void> {
    await this.#dropper.run();
    this.#filler.look(relatives);
    // What the deleted object shared may now belong to one volume alone: a leaf loaded again knows.
    for (const { handle, object } of this.#exports.all()) {
      if (object.kind === 'volume' && lineageOf(this.#state, object) === lineage) this.#plane.dropLeaves(handle);
    }
  }

  async settle(): Promise<void> {
    await this.#dropper.run();
    while (this.#space.hasReclaimable) {
      await this.#space.tidy();
      await this.#clock.pause();
    }
  }

  // ---- operations --------------------------------------------------------------------------------------------------------

  #inTurn<T>(id: string, work: () => Promise<T>): Promise<T> {
    return this.#turns.take([id], work);
  }

  #find(id: string, kind: 'volume' | 'snapshot' | null = null): StoredObject {
    const object = this.#state.byId.get(id);
    if (object === undefined || (kind !== null && object.kind !== kind)) {
      throw new Failure('not_found', { kind: kind === 'snapshot' ? 'Snapshot' : 'Volume', id });
    }
    return object;
  }

  async createVolume(options: { id: string; sizeBytes: number; sourceId: string | null }): Promise<void> {
    const { id, sizeBytes, sourceId } = options;
    requireSize(sizeBytes);
    await this.#inTurn(id, async () => {
      const known = this.#state.byId.get(id);
      if (known !== undefined) return this.#sameOr(known, 'volume');
      this.#provisioning.require(sizeBytes);
      if (sourceId === null) return this.#append([this.#createRecord(id, 'volume', sizeBytes, 0)]);
      const source = this.#find(sourceId);
      requireFits(sizeBytes, source);
      await this.#share(source, () => {
        // As things are now, after the freeze.
        this.#provisioning.require(sizeBytes);
        requireFits(sizeBytes, source);
        return this.#createRecord(id, 'volume', sizeBytes, source.number);
      });
    });
  }

  async createSnapshot(options: { id: string; volumeId: string }): Promise<void> {
    const { id, volumeId } = options;
    await this.#inTurn(id, async () => {
      const known = this.#state.byId.get(id);
      if (known !== undefined) return this.#sameOr(known, 'snapshot');
      const volume = this.#find(volumeId, 'volume');
      await this.#share(volume, () => this.#createRecord(id, 'snapshot', volume.sizeBytes, volume.number));
    });
  }

  #sameOr(known: StoredObject, kind: 'volume' | 'snapshot'): void {
    if (known.kind !== kind)
      throw new Failure('conflict', { reason: `${known.id} exists already and is a ${known.kind}.` });
  }

  #createRecord(id: string, kind: 'volume' | 'snapshot', sizeBytes: number, sourceNumber: number): EngineRecord {
    return { type: 'create', number: this.#state.nextObjectNumber, kind, sizeBytes, sourceNumber, id };
  }

  /** What the source is at one instant: the plane is frozen for it if it serves the source. `record` is made at that instant. */
  async #share(source: StoredObject, record: () => EngineRecord): Promise<void> {
    this.#fills.refuse(source);
    const opened = this.#exports.of(source);
    if (opened === undefined || source.kind === 'snapshot') return this.#append([record()]);
    this.#requireSound(source, opened);
    await this.#servant.freeze(opened, () => {
      if (!this.#state.objects.has(source.number)) throw new Failure('not_found', { kind: 'Volume', id: source.id });
      return [record()];
    });
  }

  #requireSound({ id }: StoredObject, opened: Opened | undefined): void {
    const failure = opened?.failure ?? null;
    if (failure !== null) throw new Failure('io_error', { reason: `volume ${id} refuses I/O: ${failure}` });
  }

  async resizeVolume(options: { id: string; sizeBytes: number }): Promise<void> {
    const { id, sizeBytes } = options;
    requireSize(sizeBytes);
    await this.#inTurn(id, async () => {
      const volume = this.#find(id, 'volume');
      if (sizeBytes === volume.sizeBytes) return;
      if (sizeBytes < volume.sizeBytes)
        throw new Failure('bad_request', {
          reason: `Volume ${id} has ${volume.sizeBytes} bytes and cannot shrink to ${sizeBytes}.`,
        });
      this.#provisioning.require(sizeBytes - volume.sizeBytes);
      await this.#append([{ type: 'resize', number: volume.number, sizeBytes }]);
      const opened = this.#exports.of(volume);
      if (opened !== undefined) this.#plane.resizeVolume(opened.handle, sizeBytes);
    });
  }

  async delete(id: string): Promise<void> {
    await this.#inTurn(id, async () => {
      const object = this.#state.byId.get(id);
      if (object === undefined) return;
      const lineage = lineageOf(this.#state, object);
      const relatives = this.#figures.relativesOf(object);
      const opened = this.#exports.of(object);
      if (opened !== undefined) {
        this.#requireUnused(opened);
        await this.#exports.close(opened);
        this.#space.forget(opened.handle);
      }
      await this.#append([{ type: 'delete', number: object.number }]);
      this.#exports.forgetLimits(id);
      this.#fills.forget(object);
      this.#space.abandon(object.number);
      this.#background(this.#reclaimAndReown(lineage, relatives));
    });
  }

  #requireUnused(opened: Opened): void {
    const connections = this.#exports.connections(opened);
    if (connections === 0) return;
    const { kind, id } = opened.object;
    throw new Failure('wrong_state', {
      reason: `Invalid ${kind}: ${kind} ${id} has ${connections} connected NBD client(s). Disconnect them first.`,
    });
  }

  async createSnapshots(wanted: readonly { id: string; volumeId: string }[]): Promise<void> {
    requireGroup(wanted);
    // The volumes too: none of them may be taken away meanwhile, nor begin to be served, when its writes would not be frozen.
    const ids = wanted.flatMap(({ id, volumeId }) => [id, volumeId]);
    await this.#turns.take(ids, async () => {
      if (wanted.length === 0 || this.#areThere(wanted)) return;
      const pairs = wanted.map(({ id, volumeId }) => ({ id, volume: this.#find(volumeId, 'volume') }));
      for (const { volume } of pairs) this.#fills.refuse(volume);
      for (const { volume } of pairs) this.#requireSound(volume, this.#exports.of(volume));
      const records = (): EngineRecord[] =>
        pairs.map(({ id, volume }, index) => {
          const record = this.#createRecord(id, 'snapshot', volume.sizeBytes, volume.number);
          return { ...record, number: this.#state.nextObjectNumber + index };
        });
      const members = new Set(pairs.flatMap(({ volume }) => this.#exports.of(volume) ?? []));
      await (members.size === 0 ? this.#append(records()) : this.#servant.freezeTogether([...members], records));
    });
  }

  /** All or none of them: one that was made now would be of another instant. */
  #areThere(wanted: readonly { id: string }[]): boolean {
    const known = wanted.flatMap(({ id }) => this.#state.byId.get(id) ?? []);
    for (const object of known) this.#sameOr(object, 'snapshot');
    if (known.length > 0 && known.length < wanted.length) {
      const reason = `${known.length} of ${wanted.length} snapshots of one instant exist already, among them ${known[0]?.id}.`;
      throw new Failure('conflict', { reason });
    }
    return known.length > 0;
  }

  async setLimits(options: { id: string; limits: VolumeLimits | null }): Promise<void> {
    const limits = speedLimitsOf(options.limits);
    await this.#inTurn(options.id, async () => this.#exports.setLimits(this.#find(options.id), limits));
  }

  async revertVolume(options: { id: string; snapshotId: string }): Promise<void> {
    await this.#inTurn(options.id, async () => {
      const volume = this.#find(options.id, 'volume');
      const snapshot = this.#find(options.snapshotId, 'snapshot');
      if (snapshot.sizeBytes > volume.sizeBytes)
        throw new Failure('bad_request', { reason: `Snapshot ${snapshot.id} is larger than volume ${volume.id}.` });
      this.#fills.refuse(volume);
      const opened = this.#exports.of(volume);
      if (opened !== undefined) {
        this.#requireUnused(opened);
        for (const [name, mode] of opened.names) this.#parked.set(name, { number: volume.number, mode });
        await this.#exports.close(opened);
        this.#space.forget(opened.handle);
      }
      try {
        // It may have been deleted meanwhile.
        this.#find(snapshot.id, 'snapshot');
        await this.#append([{ type: 'revert', number: volume.number, sourceNumber: snapshot.number }]);
      } finally {
        this.#publishParked(volume);
      }
      this.#background(this.#reclaimAndReown(lineageOf(this.#state, volume), this.#figures.relativesOf(volume)));
    });
  }

  #publishParked(volume: StoredObject): void {
    for (const [name, { number, mode }] of this.#parked) {
      if (number !== volume.number) continue;
      this.#parked.delete(name);
      this.#exports.publish(this.#exports.open(volume), name, mode);
    }
  }

  async publish(options: PublishOptions): Promise<void> {
    const { name, targetId, isListed, description } = options;
    const isInternal = options.isInternal === true;
    await this.#inTurn(targetId, async () => {
      const object = this.#find(targetId);
      const readOnly = options.readOnly || object.kind === 'snapshot';
      const current = this.#exports.named(name);
      const mode = current?.names.get(name);
      const isSame = current?.object === object && mode?.readOnly === readOnly && mode.isInternal === isInternal;
      if (isSame && mode?.isListed === isListed) return;
      // Whether it is listed concerns no connection.
      if (current !== undefined && !isSame) await this.#exports.unpublish(name);
      this.#parked.delete(name);
      this.#exports.publish(this.#exports.open(object), name, { readOnly, isListed, isInternal, description });
    });
  }

  async unpublish(name: string): Promise<void> {
    this.#parked.delete(name);
    await this.#exports.unpublish(name);
  }

  async beginFill({ id, ranges }: { id: string; ranges: readonly FillRange[] }): Promise<void> {
    await this.#inTurn(id, async () => this.#fills.begin(this.#find(id, 'volume'), ranges));
  }

  async narrowFill({ id, ranges }: { id: string; ranges: readonly FillRange[] }): Promise<void> {
    this.#fills.narrow(this.#state.byId.get(id), ranges);
  }

  async failFill({ id, offset }: { id: string; offset: number }): Promise<void> {
    this.#fills.fail(this.#state.byId.get(id), offset);
  }

  async endFill(id: string): Promise<void> {
    await this.#inTurn(id, async () => this.#fills.end(this.#state.byId.get(id)));
  }

  async publishFill({ name, targetId }: { name: string; targetId: string }): Promise<void> {
    await this.#inTurn(targetId, async () => this.#fills.publish(this.#find(targetId, 'volume'), name));
  }

  async map(id: string): Promise<ByteRange[]> {
    const object = this.#find(id);
    await this.#commit(object);
    return mapOf(this.#state, object);
  }

  async diff(options: { fromId: string | null; toId: string }): Promise<ByteRange[]> {
    const from = options.fromId === null ? null : this.#find(options.fromId);
    const to = this.#find(options.toId);
    for (const object of [from, to]) if (object !== null) await this.#commit(object);
    return diffOf(this.#state, from, to);
  }

  /** Brings what clients wrote into the committed state. */
  async #commit(object: StoredObject): Promise<void> {
    const opened = this.#exports.of(object);
    if (opened !== undefined && object.kind === 'volume' && opened.failure === null) await this.#servant.commit(opened);
  }

  async usage(ids: readonly string[] | null): Promise<VolumeUsage[]> {
    const objects = ids === null ? [...this.#state.objects.values()] : ids.map((id) => this.#state.byId.get(id));
    return objects.flatMap((object) => {
      if (object === undefined) return [];
      const opened = this.#exports.of(object);
      const stats = opened === undefined ? NO_VOLUME_STATS : this.#plane.volumeStats(opened.handle);
      return {
        id: object.id,
        kind: object.kind,
        sizeBytes: object.sizeBytes,
        mappedBytes: object.mapped * EXTENT_BYTES,
        connections: stats.connections,
        throttledSeconds: stats.throttledUs / 1e6,
        failed: opened?.failure ?? null,
      };
    });
  }

  async space(ids: readonly string[] | null): Promise<readonly VolumeSpace[]> {
    return ids === null ? this.#figures.all() : this.#figures.of(ids);
  }

  async stats(): Promise<PoolStats> {
    const { totalBytes, freeBytes } = this.#files.space();
    let snapshots = 0;
    for (const { kind } of this.#state.objects.values()) if (kind === 'snapshot') snapshots += 1;
    return {
      capacityBytes: totalBytes,
      freeBytes,
      reservedBytes: this.#options.reserveBytes,
      provisionedBytes: this.#provisioning.provisionedBytes,
      maxOverSubscription: this.#options.maxOverSubscription,
      reservedPercentage: this.#options.reservedPercentage,
      level: this.#provisioning.level,
      mappedBytes: this.#state.usedExtents * EXTENT_BYTES,
      reclaimBytes: this.#space.reclaimBytes,
      metadataBytes: this.#state.pages.usedBytes,
      filledBytes: this.#plane.stats().filledBytes,
      volumes: this.#state.objects.size - snapshots,
      snapshots,
      connections: this.#plane.stats().connections,
    };
  }

  async scrub(): Promise<ScrubStatus> {
    await this.#scrubber.run();
    return this.#scrubber.status();
  }

  async startScrub(): Promise<void> {
    this.#background(this.#scrubber.run());
  }

  async scrubStatus(): Promise<ScrubStatus> {
    return this.#scrubber.status();
  }

  async heal(options: { address: number; place: Place; bytes: Uint8Array }): Promise<boolean> {
    return await this.#scrubber.heal(options);
  }

  onPlaneEvents(): void {
    this.#servant.serve();
  }

  async close(): Promise<void> {
    if (this.#isClosing) return;
    this.#isClosing = true;
    this.#dropper.stop();
    await this.#scrubber.stop();
    await this.#turns.close();
    await Promise.all([...this.#exports.all()].map((opened) => this.#exports.close(opened)));
    await this.#dropper.ended();
    await this.#space.ended();
    this.#space.settle();
    // On a full disk the journal has it all.
    await this.#checkpoint();
    for (const closer of this.#closers.reverse()) closer();
  }
}
