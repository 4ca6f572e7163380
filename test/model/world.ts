/**
 * One pool under random operations, with a model beside it: engine and simulated plane over a simulated disk that loses power, dies with
 * its cache intact, fails and fills up. After every start the pool is checked and everything readable is compared.
 */

import { appendFileSync } from 'node:fs';
import { checkPool } from '../../src/engine/check.ts';
import { type Engine, openEngine } from '../../src/engine/engine.ts';
import { SimClock } from '../sim/clock.ts';
import { SimDisk } from '../sim/files.ts';
import { type BrokenLaw, IoError, SimPlane } from '../sim/plane.ts';
import { Random } from '../sim/random.ts';
import { BLOCK, CELL, Content, fill, isSame, stampsOf, type Version, ZEROS } from './content.ts';
import { Probe } from './probe.ts';

const MIB = 2 ** 20;
const EXTENT = 65536;
const VOLUME_BYTES = 64 * MIB;
/** Extents that are used: the ends of leaves and what lies between. */
const HOT_EXTENTS = [0, 1, 2, 511, 512, 513, 1023];
const OBJECTS_MAX = 8;
const JOURNAL_BYTES = 64 * 1024;
/** While it is probed: less to read for each recovery, and both halves are used more often. */
const JOURNAL_BYTES_PROBED = 16 * 1024;
const ENOSPC = 28;

export type Thing = {
  readonly id: string;
  readonly kind: 'volume' | 'snapshot';
  content: Content;
  sizeBytes: number;
  /** Its deletion was asked for: it may be there or not. */
  isDoomed: boolean;
  /** Its creation has not been answered: it may be there or not. */
  isTentative: boolean;
  /** A sync of its file failed: it refuses I/O. */
  hasFailed: boolean;
  /** Another operation wants it for itself. */
  isBusy: boolean;
  /** Operations that only need it to stay. */
  users: number;
  /** Reverts not answered: it may be one of these, as a whole. */
  reverts: Content[];
};

export type WorldOptions = {
  readonly seed: number;
  /** Rounds: each some operations at once, often ended by a crash. */
  readonly rounds: number;
  readonly faults: boolean;
  /** Syncs of extent files are all that fails, and they often do. */
  readonly onlySyncs?: boolean;
  readonly totalBytes: number;
  /** The power fails at this operation of the disk, once, and the run ends there; without it at random moments. */
  readonly crashAt?: number;
  /** At this share of the disk's operations, what a power failure would leave is looked at (probe.ts). */
  readonly probing?: number;
  /** What the plane or the disk does wrong. */
  readonly breaks?: BrokenLaw;
  readonly lies?: RegExp;
};

export type WorldResult = { readonly crashes: number; readonly operations: number; readonly verified: number };

export class World {
  readonly #options: WorldOptions;
  readonly #random: Random;
  #disk: SimDisk;
  #clock = new SimClock();
  #plane!: SimPlane;
  #engine!: Engine;
  readonly #things = new Map<string, Thing>();
  #lastStamp = 0;
  #lastId = 0;
  #fatal: Error | null = null;
  #isFaulty = false;
  #hadFault = false;
  crashes = 0;
  operations = 0;
  verified = 0;
  readonly probe: Probe;
  readonly #probeRandom: Random;
  #probed: unknown = null;

  constructor(options: WorldOptions) {
    this.#options = options;
    this.#random = new Random(options.seed);
    this.probe = new Probe(options.seed);
    this.#probeRandom = new Random(~options.seed);
    this.#disk = new SimDisk({ seed: options.seed, totalBytes: options.totalBytes });
    this.#disk.latencyMax = this.#random.pick([1, 10, 100]);
    this.#disk.lies = options.lies ?? null;
  }

  async run(): Promise<WorldResult> {
    await this.#until(this.#start());
    this.#watch();
    const { rounds, crashAt } = this.#options;
    if (crashAt !== undefined) this.#disk.operationsUntilPowerOff = crashAt;
    for (let round = 0; round < rounds && (crashAt === undefined || this.crashes === 0); round += 1)
      await this.#round();
    await this.#closeAndStart();
    this.#disk.operationsUntilPowerOff = null;
    await this.#deleteAll();
    return { crashes: this.crashes, operations: this.operations, verified: this.verified };
  }

  #trace(what: string): void {
    if (process.env['QUARRY_TRACE'] !== undefined) appendFileSync(process.env['QUARRY_TRACE'], `${what}\n`);
  }

  /** Deleted in a random order; then nothing may be left that takes space. */
  async #deleteAll(): Promise<void> {
    const left = [...this.#things.keys()];
    while (left.length > 0) {
      const [id] = left.splice(this.#random.below(left.length), 1);
      const thing = this.#things.get(id ?? '');
      if (thing === undefined) continue;
      thing.isDoomed = true;
      await this.#deleteAsForetold(thing.id);
      this.#things.delete(thing.id);
    }
    await this.#until(this.#engine.settle());
    const { mappedBytes, reclaimBytes } = await this.#engine.stats();
    await this.#until(this.#engine.close());
    this.#check();
    const files = this.#disk.list('pool/extents');
    if (mappedBytes > 0 || reclaimBytes > 0 || files.length > 0)
      throw new Error(
        `space is lost: ${mappedBytes} bytes mapped, ${reclaimBytes} to reclaim, files ${files.join(' ')}`,
      );
    const report = checkPool(this.#disk);
    if (report.pages > 0) throw new Error(`${report.pages} pages are left of no object`);
  }

  /** What the pool says that deleting would free is what it frees. */
  async #deleteAsForetold(id: string): Promise<void> {
    await this.#until(this.#engine.settle());
    const [space] = await this.#engine.space([id]);
    const before = await this.#engine.stats();
    await this.#until(this.#engine.delete(id));
    await this.#until(this.#engine.settle());
    const freedBytes = before.mappedBytes - (await this.#engine.stats()).mappedBytes;
    if (freedBytes !== space?.exclusiveBytes)
      throw new Error(`deleting ${id} freed ${freedBytes} bytes, not ${space?.exclusiveBytes}`);
  }

  // ---- life and death ----------------------------------------------------------------------------------------------

  async #start(): Promise<void> {
    this.#fatal = null;
    const disk = this.#disk;
    this.#clock = new SimClock();
    let engine: Engine | null = null;
    this.#plane = new SimPlane(this.#disk, () => engine?.onPlaneEvents());
    this.#plane.breaks = this.#options.breaks ?? null;
    engine = await openEngine({
      files: this.#disk,
      plane: this.#plane,
      clock: this.#clock,
      options: {
        maxOverSubscription: Number.POSITIVE_INFINITY,
        reserveBytes: 0,
        journalHalfBytes: this.#options.probing === undefined ? JOURNAL_BYTES : JOURNAL_BYTES_PROBED,
        cleanPagesMax: 16,
        scrubBytesPerSecond: 0,
        scrubIntervalMs: 0,
      },
      onEvent: (event) => {
        // This disk loses and fails, but it changes nothing by itself.
        if (event.kind === 'damage' && disk === this.#disk && !disk.isOff)
          this.#fatal ??= new Error(`a scrub calls what is right damaged: ${event.reason}`);
        if (event.kind !== 'volume-failed') return;
        this.#trace(`event ${event.kind} ${event.id.slice(-3)}: ${event.reason}`);
        const thing = this.#things.get(event.id);
        if (thing !== undefined) thing.hasFailed = true;
      },
      onFatal: (error) => {
        // Not what an earlier life still has to say.
        if (disk === this.#disk) this.#fatal ??= error;
        this.#trace(`fatal: ${error.message}`);
      },
    });
    this.#engine = engine;
  }

  async #round(): Promise<void> {
    const { random } = this;
    const burst = 1 + random.below(6);
    const isOnce = this.#options.crashAt !== undefined;
    const willCrash = !isOnce && random.chance(0.5);
    if (willCrash) this.#disk.operationsUntilPowerOff = random.below(40);
    if (this.#options.faults && random.chance(this.#options.onlySyncs ? 0.5 : 0.15)) this.#plantFault();
    const running: Promise<unknown>[] = Array.from({ length: burst }, () => this.#operate());
    if (random.chance(0.2)) running.push(this.#quietly(this.#engine.checkpoint()));
    // In every second run: others go on as they would without.
    if (this.#options.seed % 2 === 1 && random.chance(0.15)) running.push(this.#quietly(this.#engine.scrub()));
    if (random.chance(0.3)) this.#clock.advance(random.pick([1000, 2000, 10_000]));
    await this.#until(allOf(running));
    if (!isOnce) this.#disk.operationsUntilPowerOff = null;
    this.#disk.faults.length = 0;
    this.#requireHonest();
    if (willCrash || this.#disk.isOff || this.#fatal !== null) await this.#crash();
    else if (random.chance(0.05)) await this.#closeAndStart();
    this.#isFaulty = false;
  }

  get random(): Random {
    return this.#random;
  }

  /** Until the work is done or the machine is dead. Nothing here takes real time. */
  async #until(work: Promise<unknown>): Promise<void> {
    let isDone = false;
    const done = work.then(
      () => {
        isDone = true;
      },
      (error: unknown) => {
        isDone = true;
        throw error;
      },
    );
    // Whoever stops waiting hears no more of it.
    done.catch(() => {});
    for (let turns = 0; !isDone && !this.#disk.isOff && this.#fatal === null; turns += 1) {
      if (this.#probed !== null) throw this.#probed;
      if (turns > 10_000) throw new Error('operations do not end');
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    if (isDone) await done;
  }

  #requireHonest(): void {
    const [bug] = this.#plane.bugs;
    if (bug !== undefined) throw bug;
    if (this.#fatal !== null && !this.#disk.isOff && !this.#isFaulty) throw this.#fatal;
  }

  async #crash(): Promise<void> {
    this.crashes += 1;
    // After a failed sync the cache shows what the disk does not have; only a restart of the machine ends that.
    const isPowerLoss = this.#hadFault || this.#random.chance(0.7);
    this.#hadFault = false;
    this.#trace(isPowerLoss ? 'power loss' : 'kill');
    this.#disk.powerOff();
    await this.#restart(isPowerLoss ? this.#disk.afterCrash() : this.#disk.afterKill(), true);
  }

  async #closeAndStart(): Promise<void> {
    await this.#until(this.#engine.close().catch((error: Error) => this.#unlessOff(error)));
    if (this.#disk.isOff) return this.#crash();
    // The start has its own crashes.
    const left = this.#disk.operationsUntilPowerOff;
    this.#disk.operationsUntilPowerOff = null;
    this.#check();
    for (const thing of this.#things.values()) {
      if (!thing.hasFailed) thing.content.settle(thing.content.newestOfAll());
    }
    await this.#restart(this.#disk, true);
    this.#disk.operationsUntilPowerOff = left;
  }

  /** From now on, what a power failure would leave is looked at now and then. A run without it takes the same course. */
  #watch(): void {
    const { probing } = this.#options;
    if (probing === undefined) return;
    const disk = this.#disk;
    disk.onOperation = () => {
      if (this.#probed !== null || disk.isOff || !this.#probeRandom.chance(probing)) return;
      for (const refresh of this.#copies.values()) refresh();
      try {
        this.probe.look(disk, this.#things, this.#groups);
      } catch (error) {
        this.#probed = error;
      }
    };
  }

  async #restart(disk: SimDisk, isAgain: boolean): Promise<void> {
    this.#disk = disk;
    this.#watch();
    // Damaged by nothing but the crash: it must be right as it lies there.
    if (disk.exists('pool/header') && isAgain) this.#check();
    // The power may go again while it starts.
    for (let attempt = 0; this.#random.chance(0.15) && attempt < 3; attempt += 1) {
      this.#disk.operationsUntilPowerOff = this.#random.below(10);
      await this.#until(this.#quietly(this.#start()));
      this.#disk.powerOff();
      this.#disk = this.#disk.afterCrash();
      this.#watch();
    }
    await this.#until(this.#start());
    await this.#until(this.#compareAll());
  }

  #check(): void {
    const report = checkPool(this.#disk);
    const [first] = report.violations;
    if (first !== undefined)
      throw new Error(`check: ${first.path}: ${first.reason} (${report.violations.length} in all)`);
  }

  #plantFault(): void {
    this.#isFaulty = true;
    this.#hadFault = true;
    if (this.#options.onlySyncs) return this.#disk.fail('sync', /\.dat$/, 'EIO', 1);
    const [operation, path, code] = this.#random.pick([
      ['write', /pages/, 'ENOSPC'],
      ['write', /checkpoint/, 'ENOSPC'],
      ['write', /\.dat$/, 'ENOSPC'],
      ['sync', /\.dat$/],
      ['write', /\.dat$/],
      ['read', /\.dat$/],
      ['sync', /journal/],
      ['write', /journal/],
      ['sync', /pages/],
      ['write', /pages/],
      ['read', /pages/],
      ['sync', /checkpoint/],
    ] as const);
    this.#trace(`planted: ${operation} of ${path} fails`);
    this.#disk.fail(operation, path, code ?? 'EIO', 1);
  }

  // ---- operations --------------------------------------------------------------------------------------------------

  #unlessOff(error: Error): void {
    if (!this.#disk.isOff) throw error;
  }

  async #quietly(work: Promise<unknown>): Promise<boolean> {
    try {
      await work;
      return true;
    } catch {
      return false;
    }
  }

  #free(kind: 'volume' | 'snapshot' | null): Thing | null {
    const things = [...this.#things.values()].filter(
      (thing) => !thing.isBusy && !thing.isDoomed && !thing.isTentative && (kind === null || thing.kind === kind),
    );
    return things.length === 0 ? null : this.#random.pick(things);
  }

  #operate(): Promise<void> {
    this.operations += 1;
    const volume = this.#free('volume');
    if (volume === null) return this.#create();
    const dice = this.#random.below(100);
    if (dice < 42) return this.#write(volume);
    if (dice < 54) return this.#flush(volume);
    if (dice < 64) return this.#trim(volume);
    if (dice < 70) return this.#things.size < OBJECTS_MAX ? this.#snapshot(volume) : this.#delete();
    if (dice < 74) return this.#things.size < OBJECTS_MAX ? this.#snapshotTogether() : this.#delete();
    if (dice < 80) return this.#things.size < OBJECTS_MAX ? this.#clone() : this.#delete();
    if (dice < 83) return this.#things.size < OBJECTS_MAX ? this.#create() : this.#delete();
    if (dice < 90) return this.#delete();
    if (dice < 92) return this.#resize(volume);
    if (dice < 95) return this.#revert(volume);
    return this.#readBack(volume);
  }

  #newThing(kind: 'volume' | 'snapshot', content: Content, sizeBytes: number): Thing {
    this.#lastId += 1;
    const id = `00000000-0000-4000-8000-${String(this.#lastId).padStart(12, '0')}`;
    const thing: Thing = {
      id,
      kind,
      content,
      sizeBytes,
      isDoomed: false,
      isTentative: true,
      hasFailed: false,
      isBusy: false,
      users: 0,
      reverts: [],
    };
    this.#things.set(id, thing);
    return thing;
  }

  async #handle(thing: Thing): Promise<number> {
    const readOnly = thing.kind === 'snapshot';
    await this.#engine.publish({ name: thing.id, targetId: thing.id, readOnly, isListed: true, description: '' });
    return this.#plane.handleOf(thing.id);
  }

  async #create(): Promise<void> {
    const thing = this.#newThing('volume', new Content(), VOLUME_BYTES);
    const isDone = await this.#attempt(
      this.#engine.createVolume({ id: thing.id, sizeBytes: thing.sizeBytes, sourceId: null }),
    );
    if (isDone) thing.isTentative = false;
  }

  /** False if it failed for a reason that is allowed; then the outcome is open. */
  async #attempt(work: Promise<unknown>): Promise<boolean> {
    try {
      await work;
      return true;
    } catch (error) {
      if (this.#disk.isOff || this.#fatal !== null || this.#isFaulty) return false;
      throw error;
    }
  }

  /** A place of at least `unit` bytes, aligned to it. */
  #range(thing: Thing, unit: number): { offset: number; length: number } {
    const extents = thing.sizeBytes > VOLUME_BYTES ? [...HOT_EXTENTS, thing.sizeBytes / EXTENT - 1] : HOT_EXTENTS;
    const start = this.#random.pick(extents) * EXTENT;
    const offset = start + this.#random.below(EXTENT / unit) * unit;
    const lengthMax = Math.min(thing.sizeBytes - offset, this.#random.pick([unit, 4 * unit, EXTENT, 2 * EXTENT]));
    const length = Math.max(unit, this.#random.below(lengthMax / unit + 1) * unit);
    return this.#random.chance(0.15)
      ? { offset: start, length: Math.min(EXTENT, thing.sizeBytes - start) }
      : { offset, length };
  }

  async #write(thing: Thing): Promise<void> {
    const { offset, length } = this.#range(thing, this.#random.chance(0.6) ? BLOCK : CELL);
    this.#lastStamp += 1;
    const stamp = this.#lastStamp;
    thing.isBusy = true;
    const work = this.#handle(thing).then((handle) => {
      // One write at a time per volume, so that the order of versions is known; but beside flushes and snapshots.
      this.#trace(`write ${thing.id.slice(-3)} ${offset}+${length}: ${stamp}`);
      this.#note(thing, offset, length, stamp);
      return this.#plane.write(handle, offset, fill(stamp, length));
    });
    await this.#io(thing, work, { offset, length });
    thing.isBusy = false;
  }

  async #trim(thing: Thing): Promise<void> {
    const { offset, length } = this.#range(thing, BLOCK);
    thing.isBusy = true;
    const work = this.#handle(thing).then((handle) => {
      this.#trace(`trim ${thing.id.slice(-3)} ${offset}+${length}`);
      this.#note(thing, offset, length, 0);
      return this.#plane.trim(handle, offset, length);
    });
    await this.#io(thing, work, { offset, length });
    thing.isBusy = false;
  }

  #note(thing: Thing, offset: number, length: number, stamp: number): void {
    for (let block = Math.floor(offset / BLOCK); block * BLOCK < offset + length; block += 1) {
      const before = thing.content.newest(block);
      const cells = before.map((old, cell) => {
        const at = block * BLOCK + cell * CELL;
        return at >= offset && at < offset + length ? stamp : old;
      });
      thing.content.add(block, cells);
    }
  }

  /** A failed request may have done any part of its work: what it touched is read back. */
  async #io(thing: Thing, work: Promise<void>, range: { offset: number; length: number }): Promise<void> {
    try {
      await work;
    } catch (error) {
      if (this.#disk.isOff || this.#fatal !== null) return;
      const isAllowed = error instanceof IoError && (this.#isFaulty || thing.hasFailed || error.errno === ENOSPC);
      if (!isAllowed && !this.#isFaulty) throw error;
      if (thing.hasFailed) return;
      await this.#learn(thing, range);
    }
  }

  /** Adds what is there now as the newest version, if it is one that may be. */
  async #learn(thing: Thing, range: { offset: number; length: number }): Promise<void> {
    for (let block = Math.floor(range.offset / BLOCK); block * BLOCK < range.offset + range.length; block += 1) {
      try {
        const handle = this.#plane.handleOf(thing.id);
        const stamps = stampsOf(await this.#plane.read(handle, block * BLOCK, BLOCK));
        this.#requireOneOf(thing, block, stamps, thing.content.versions(block));
        thing.content.add(block, stamps);
      } catch (error) {
        if (error instanceof IoError || this.#disk.isOff || this.#fatal !== null) {
          // Not even readable: a restart will tell.
          thing.hasFailed = true;
          return;
        }
        throw error;
      }
    }
  }

  async #flush(thing: Thing): Promise<void> {
    const before = thing.content.newestOfAll();
    // A running write is newer than what the flush covers, unless it is all there was.
    if (thing.isBusy) return;
    thing.users += 1;
    const isDone = await this.#attempt(this.#handle(thing).then((handle) => this.#plane.flushClient(handle))).catch(
      (error: unknown) => {
        if (error instanceof IoError && thing.hasFailed) return false;
        throw error;
      },
    );
    thing.users -= 1;
    this.#trace(`flush ${thing.id.slice(-3)} ${isDone ? 'done' : 'failed'}`);
    if (isDone && !this.#disk.isOff) thing.content.settle(before);
  }

  async #readBack(thing: Thing): Promise<void> {
    const { offset, length } = this.#range(thing, BLOCK);
    thing.isBusy = true;
    try {
      const handle = await this.#handle(thing);
      const bytes = await this.#plane.read(handle, offset, length);
      for (let at = 0; at < length; at += BLOCK) {
        const block = (offset + at) / BLOCK;
        this.#requireOneOf(thing, block, stampsOf(bytes.subarray(at, at + BLOCK)), [thing.content.newest(block)]);
      }
    } catch (error) {
      if (
        !(error instanceof IoError && (this.#isFaulty || thing.hasFailed)) &&
        !this.#disk.isOff &&
        this.#fatal === null &&
        !this.#isFaulty
      )
        throw error;
    }
    thing.isBusy = false;
  }

  async #snapshot(volume: Thing): Promise<void> {
    if (volume.hasFailed) return;
    const before = volume.content.newestOfAll();
    const snapshot = this.#newThing('snapshot', new Content(), volume.sizeBytes);
    this.#trace(`snapshot ${volume.id.slice(-3)} -> ${snapshot.id.slice(-3)}`);
    await this.#copyInto(snapshot, volume, before, () =>
      this.#engine.createSnapshot({ id: snapshot.id, volumeId: volume.id }),
    );
  }

  /**
   * Several volumes at one instant, some of them perhaps never served. All or none are there after a crash. That it is one instant is
   * what test/engine/together and test/nbd/together look at.
   */
  async #snapshotTogether(): Promise<void> {
    const volumes = [...this.#things.values()].filter(
      (thing) => thing.kind === 'volume' && !thing.isDoomed && !thing.isTentative && !thing.hasFailed && !thing.isBusy,
    );
    const sources = volumes.slice(0, 1 + this.#random.below(3));
    const pairs = sources.map((volume) => ({
      volume,
      before: volume.content.newestOfAll(),
      snapshot: this.#newThing('snapshot', new Content(), volume.sizeBytes),
    }));
    const wanted = pairs.map(({ volume, snapshot }) => ({ id: snapshot.id, volumeId: volume.id }));
    this.#trace(`together ${wanted.map(({ id, volumeId }) => `${volumeId.slice(-3)} -> ${id.slice(-3)}`).join(', ')}`);
    this.#groups.push(wanted.map(({ id }) => id));
    const create = this.#engine.createSnapshots(wanted);
    // One of them may fail its comparison first; the others must not be left alone with theirs.
    await allOf(pairs.map(({ volume, before, snapshot }) => this.#copyInto(snapshot, volume, before, () => create)));
  }

  /** Snapshots that were asked for together: after a start all of them are there, or none. */
  readonly #groups: string[][] = [];

  async #clone(): Promise<void> {
    const source = this.#free(this.#random.chance(0.5) ? 'snapshot' : null);
    if (source === null || source.hasFailed) return;
    const before = source.content.newestOfAll();
    const clone = this.#newThing('volume', new Content(), source.sizeBytes);
    this.#trace(`clone ${source.id.slice(-3)} -> ${clone.id.slice(-3)}`);
    await this.#copyInto(clone, source, before, () =>
      this.#engine.createVolume({ id: clone.id, sizeBytes: clone.sizeBytes, sourceId: source.id }),
    );
  }

  async #copyInto(
    copy: Thing,
    source: Thing,
    before: Map<number, Version>,
    create: () => Promise<void>,
  ): Promise<void> {
    // While it is not answered, a crash may leave it with anything from what was there to what comes.
    const content = source.content;
    const refresh = (): void => {
      copy.content = content.between(before);
    };
    this.#copies.set(copy.id, refresh);
    // The source stays; it may be written meanwhile, but not replaced.
    const doomed = source.isDoomed;
    const isDone = await this.#attempt(create());
    if (this.#disk.isOff || this.#fatal !== null) return;
    refresh();
    this.#copies.delete(copy.id);
    if (!isDone || doomed) return;
    copy.isTentative = false;
    if (source.kind === 'volume' && !source.hasFailed) source.content.settle(before);
    await this.#pin(copy);
  }

  /** Refreshes what unanswered copies may hold, by id. */
  readonly #copies = new Map<string, () => void>();

  async #delete(): Promise<void> {
    const thing = this.#free(null);
    if (thing === null || thing.users > 0 || [...this.#copies.keys()].length > 0) return;
    thing.isDoomed = true;
    this.#trace(`delete ${thing.id.slice(-3)}`);
    if (await this.#attempt(this.#engine.delete(thing.id))) this.#things.delete(thing.id);
  }

  async #resize(thing: Thing): Promise<void> {
    if (thing.sizeBytes > VOLUME_BYTES || this.#copies.size > 0) return;
    const sizeBytes = this.#random.pick([VOLUME_BYTES + EXTENT, 33 * 1024 * MIB]);
    thing.isBusy = true;
    if (await this.#attempt(this.#engine.resizeVolume({ id: thing.id, sizeBytes }))) thing.sizeBytes = sizeBytes;
    thing.isBusy = false;
  }

  async #revert(thing: Thing): Promise<void> {
    const snapshot = this.#free('snapshot');
    if (
      snapshot === null ||
      thing.users > 0 ||
      snapshot.users > 0 ||
      snapshot.sizeBytes > thing.sizeBytes ||
      this.#copies.size > 0
    )
      return;
    thing.isBusy = true;
    snapshot.isBusy = true;
    this.#trace(`revert ${thing.id.slice(-3)} <- ${snapshot.id.slice(-3)}`);
    thing.reverts.push(snapshot.content);
    const isDone = await this.#attempt(this.#engine.revertVolume({ id: thing.id, snapshotId: snapshot.id }));
    if (this.#disk.isOff || this.#fatal !== null || !isDone) return;
    thing.content = copyOf(snapshot.content);
    thing.reverts = [];
    thing.hasFailed = false;
    thing.isBusy = false;
    snapshot.isBusy = false;
  }

  // ---- comparing -----------------------------------------------------------------------------------------------------

  #requireOneOf(thing: Thing, block: number, found: Version, allowed: readonly Version[]): void {
    this.verified += 1;
    if (allowed.some((version) => isSame(version, found))) return;
    const shown = allowed.map((version) => version.join(',')).join(' | ');
    throw new Error(
      `${thing.kind} ${thing.id} block ${block} (extent ${Math.floor(block / 16)}): found ${found.join(',')}, allowed ${shown}`,
    );
  }

  /** Everything that the thing shows, compared with what it may show; then that is what it is. */
  async #pin(thing: Thing): Promise<void> {
    try {
      const handle = await this.#handle(thing);
      const blocks = new Set(thing.content.blocks.keys());
      // Places nobody wrote must be zeros.
      blocks.add(this.#random.pick(HOT_EXTENTS) * 16 + this.#random.below(16));
      for (const block of blocks) {
        if (block * BLOCK >= thing.sizeBytes) continue;
        const stamps = stampsOf(await this.#plane.read(handle, block * BLOCK, BLOCK));
        this.#requireOneOf(thing, block, stamps, thing.content.versions(block));
        thing.content.pin(block, stamps);
      }
    } catch (error) {
      if (this.#disk.isOff || this.#fatal !== null || (error instanceof IoError && this.#isFaulty)) return;
      if (this.#isFaulty && !(error instanceof Error && error.message.includes('found'))) return;
      throw error;
    }
  }

  async #compareAll(): Promise<void> {
    for (const refresh of this.#copies.values()) refresh();
    this.#copies.clear();
    const there = new Map((await this.#engine.usage(null)).map((usage) => [usage.id, usage]));
    for (const group of this.#groups.splice(0)) {
      // One that was answered may have been deleted since.
      const open = group.filter((id) => this.#things.get(id)?.isTentative === true);
      const found = open.filter((id) => there.has(id));
      if (open.length === group.length && found.length > 0 && found.length < group.length)
        throw new Error(`of the snapshots ${group.join(' ')} only ${found.join(' ')} are there`);
    }
    for (const id of there.keys()) if (!this.#things.has(id)) throw new Error(`${id} is there and should not be`);
    for (const thing of [...this.#things.values()]) {
      const usage = there.get(thing.id);
      if (usage === undefined) {
        if (!thing.isDoomed && !thing.isTentative) throw new Error(`${thing.kind} ${thing.id} is lost`);
        this.#things.delete(thing.id);
        continue;
      }
      thing.sizeBytes = usage.sizeBytes;
      Object.assign(thing, { isDoomed: false, isTentative: false, isBusy: false, users: 0, hasFailed: false });
      await this.#settleReverts(thing);
      await this.#pin(thing);
    }
    this.#requireHonest();
  }

  /** A revert that was cut off: the volume is as before or the snapshot, not something between. */
  async #settleReverts(thing: Thing): Promise<void> {
    const candidates = thing.reverts.splice(0);
    if (candidates.length === 0) return;
    const handle = await this.#handle(thing);
    const blocks = new Set([thing.content, ...candidates].flatMap(({ blocks }) => [...blocks.keys()]));
    const found = new Map<number, Version>();
    for (const block of blocks) {
      found.set(block, stampsOf(await this.#plane.read(handle, block * BLOCK, BLOCK)));
    }
    const fits = (content: Content): boolean =>
      [...found].every(([block, stamps]) => content.versions(block).some((version) => isSame(version, stamps)));
    const match = [thing.content, ...candidates].find(fits);
    if (match === undefined) throw new Error(`volume ${thing.id} is neither what it was nor what it was reverted to`);
    thing.content = copyOf(match);
    for (const block of blocks) if (!thing.content.blocks.has(block)) thing.content.pin(block, ZEROS);
  }
}

/** Waits for all of them even if one fails; then fails with the first failure. */
async function allOf(running: readonly Promise<unknown>[]): Promise<void> {
  for (const result of await Promise.allSettled(running)) if (result.status === 'rejected') throw result.reason;
}

function copyOf(content: Content): Content {
  const copy = new Content();
  for (const [block, versions] of content.blocks) copy.blocks.set(block, [...versions]);
  return copy;
}
