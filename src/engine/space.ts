/**
 * Space of the pool: grants to volumes, freed extents on their way back, holes punched and files removed. Decides how much
 * a volume gets and when there is nothing left; what is free is the allocator's business.
 *
 * Law 3: a freed extent goes through limbo. It is free once the record that freed it is durable and no request that
 * began before that moment runs any more.
 */

import { present } from '../base/assert.ts';
import type { Clock } from '../base/clock.ts';
import { Failure } from '../base/errors.ts';
import { type Files, isDiskError, isOutOfSpace } from '../base/files.ts';
import type { EngineRecord } from '../format/record.ts';
import { EXTENT_BYTES, type Plane, SLOTS_PER_FILE, type VolumeHandle } from '../native/plane.ts';
import { Allocator, type Run } from './allocator.ts';
import type { Damage } from './damage.ts';
import type { Dropper } from './dropping.ts';
import { EXTENTS_PATH } from './recovery.ts';
import type { State, StoredFile, StoredObject } from './state.ts';

/** The first grant is small, so that a volume with a single write costs little; each further one within the window doubles. */
const GRANT_EXTENTS_MIN = 16;
/** 64 MiB: at 100,000 first touches a second a grant lasts 10 ms. */
const GRANT_EXTENTS_MAX = 1024;
const GRANT_WINDOW_MS = 2000;
/** Punching one extent costs as much as punching sixteen (design figures: 0.14-1 ms either way). */
const PUNCH_EXTENTS = 16;
/** What a volume got and did not use for this long goes back: reserved space is for those who write. */
const GRANT_IDLE_MS = 10_000;
/** On a full pool others give back sooner. */
const SQUEEZE_IDLE_MS = 1_000;
/** Turns that a squeeze waits for requests to end and holes to be punched. */
const SQUEEZE_TURNS = 100;
const RECALL_TURNS = 8;
/** A grant is at most this part of the room, so that the last of it is not reserved by one volume. */
const ROOM_SHARE = 16;
/** Small holes are punched only when nothing was freed for this many rounds. */
const IDLE_ROUNDS = 3;
const PUNCHES_PER_ROUND = 64;
/** A round ends after this long. On a disk that is told of each hole a punch can take a tenth of a second, and writes to that file wait. */
const PUNCHING_MS_MAX = 50;
/** Then nothing is punched for so many times as long as it took: freed extents are mostly granted again before. */
const PUNCHING_PAUSES = 9;
const EIO = 5;
const ENOSPC = 28;

export type SpaceOptions = {
  /** Kept free for journal, checkpoints and the catalog. */
  readonly reserveBytes: number;
};

/** What the owner of the plane's handles has to say about one of them. */
export type Grantee = { readonly handle: VolumeHandle; readonly object: StoredObject };

type Limbo = { readonly tag: number; readonly addresses: readonly number[]; readonly isDirty: boolean };

type Granting = {
  size: number;
  at: number;
  isRunning: boolean /** Something given may still be unused. */;
  isOut: boolean;
};

export function extentPath(fileNumber: number): string {
  return `pool/extents/${String(fileNumber).padStart(7, '0')}.dat`;
}

/** The plane could not reserve space for another reason than that there is none. */
class PlaneDiskError extends Error {
  constructor(cause: unknown) {
    super('reserving space of an extent file failed', { cause });
  }
}

export class Space {
  readonly #files: Files;
  readonly #plane: Plane;
  readonly #clock: Clock;
  readonly #state: State;
  readonly #allocator: Allocator;
  readonly #append: (records: EngineRecord[]) => Promise<void>;
  readonly #options: SpaceOptions;
  readonly #damage: Damage;
  readonly #dropper: Dropper;
  readonly #granting = new Map<VolumeHandle, Granting>();
  /** Freed extents that wait for requests to end, by epoch tag. */
  #limbo: Limbo[] = [];
  #waitingForJournal = 0;
  #lastFreed: Promise<void> = Promise.resolve();
  #idleRounds = 0;
  /** Until then nothing is punched. */
  #punchingFrom = 0;
  #tidying: Promise<void> | null = null;
  #squeezing: Promise<boolean> | null = null;
  readonly #emptyFiles = new Set<number>();
  /** Files whose free slots may hold space from before the start: grants that a crash left unused, holes not punched in time. */
  readonly #unexamined: Set<number>;
  /** Extents that are being reserved: not yet missing in what the filesystem says is free. */
  #reserving = 0;
  readonly #working = new Set<Promise<void>>();
  /** File numbers whose file is being made or removed: nobody else may use them meanwhile. */
  readonly #claimed = new Set<number>();

  constructor(parts: {
    files: Files;
    plane: Plane;
    clock: Clock;
    state: State;
    append: (records: EngineRecord[]) => Promise<void>;
    options: SpaceOptions;
    damage: Damage;
    dropper: Dropper;
  }) {
    this.#files = parts.files;
    this.#plane = parts.plane;
    this.#clock = parts.clock;
    this.#state = parts.state;
    this.#append = parts.append;
    this.#options = parts.options;
    this.#damage = parts.damage;
    this.#dropper = parts.dropper;
    this.#allocator = new Allocator(parts.state);
    for (const file of parts.state.files.values()) if (file.used === 0) this.#emptyFiles.add(file.fileNumber);
    this.#unexamined = new Set(parts.state.files.keys());
  }

  get reclaimBytes(): number {
    const inLimbo = this.#limbo.reduce((sum, { addresses }) => sum + addresses.length, 0);
    return (inLimbo + this.#waitingForJournal + this.#allocator.unpunchedExtents) * EXTENT_BYTES;
  }

  // ---- grants --------------------------------------------------------------------------------------------------------

  /** Answers a volume that wants extents. One answer at a time per volume. */
  supply(grantee: Grantee): Promise<void> {
    const work = this.#supply(grantee);
    this.#working.add(work);
    const ended = (): void => {
      this.#working.delete(work);
    };
    work.then(ended, ended);
    return work;
  }

  /** Resolves when nothing that was begun here is under way. */
  async ended(): Promise<void> {
    while (this.#working.size > 0 || this.#tidying !== null) {
      await Promise.allSettled([...this.#working, this.#tidying]);
    }
  }

  async #supply({ handle, object }: Grantee): Promise<void> {
    const granting = this.#granting.get(handle) ?? {
      size: GRANT_EXTENTS_MIN / 2,
      at: 0,
      isRunning: false,
      isOut: false,
    };
    this.#granting.set(handle, granting);
    if (granting.isRunning) return;
    granting.isRunning = true;
    try {
      const isBusy = this.#clock.now() - granting.at < GRANT_WINDOW_MS;
      granting.size = isBusy || granting.at === 0 ? Math.min(granting.size * 2, GRANT_EXTENTS_MAX) : GRANT_EXTENTS_MIN;
      let run = await this.#reserve(object, granting.size);
      if (run === null && (await this.#squeeze())) run = await this.#reserve(object, GRANT_EXTENTS_MIN);
      granting.at = this.#clock.now();
      granting.isOut = run !== null;
      if (run === null) this.#plane.refuse(handle, ENOSPC);
      else this.#plane.grant(handle, run.fileNumber * SLOTS_PER_FILE + run.firstSlot, run.count);
    } catch (error) {
      if (!isDiskError(error) && !(error instanceof PlaneDiskError)) throw error;
      // The disk fails: that is this volume's trouble, until it works again.
      this.#plane.refuse(handle, EIO);
    } finally {
      granting.isRunning = false;
    }
  }

  forget(handle: VolumeHandle): void {
    this.#granting.delete(handle);
  }

  /** Extents that fit into what the filesystem has left, the reserve aside. */
  #room(): number {
    const room = Math.floor((this.#files.space().freeBytes - this.#options.reserveBytes) / EXTENT_BYTES);
    return room - this.#reserving;
  }

  /** Takes unused grants back from volumes that have not asked for this long. */
  #recall(idleMs: number): boolean {
    let isAny = false;
    for (const [handle, granting] of this.#granting) {
      if (!granting.isOut || granting.isRunning || this.#clock.now() - granting.at < idleMs) continue;
      granting.isOut = false;
      this.#plane.returnGrants(handle);
      isAny = true;
    }
    return isAny;
  }

  /** The pool is full: what others hold unused, and what is on its way back, becomes room. True if there is some now. */
  #squeeze(): Promise<boolean> {
    this.#squeezing ??= this.#makeRoom().finally(() => {
      this.#squeezing = null;
    });
    return this.#squeezing;
  }

  /** As long as something that was deleted is still on its way, and no longer than until there is room. */
  async #makeRoom(): Promise<boolean> {
    this.#recall(SQUEEZE_IDLE_MS);
    this.#idleRounds = IDLE_ROUNDS;
    // What was recalled arrives as events, some turns later.
    for (let turn = 0; turn < SQUEEZE_TURNS && (turn < RECALL_TURNS || this.hasReclaimable); turn += 1)
      await this.#squeezeOnce(this.#clock.pause());
    for (let next = this.#dropper.next(); next !== null && this.#room() < 1; next = this.#dropper.next())
      await this.#squeezeOnce(next);
    for (let turn = 0; turn < SQUEEZE_TURNS && this.#room() < 1 && this.hasReclaimable; turn += 1)
      await this.#squeezeOnce(this.#clock.pause());
    return this.#room() >= 1;
  }

  async #squeezeOnce(before: Promise<void>): Promise<void> {
    await before;
    // What was freed is nobody's before that.
    await this.#lastFreed;
    await this.tidy();
    this.#idleRounds = IDLE_ROUNDS;
  }

  /** A run with space behind it, or null when the pool is full. */
  async #reserve(object: StoredObject, wanted: number): Promise<Run | null> {
    this.settle();
    const room = this.#room();
    if (room < 1) return null;
    const count = Math.min(wanted, Math.max(GRANT_EXTENTS_MIN, Math.floor(room / ROOM_SHARE)), room);
    this.#reserving += count;
    try {
      const run = this.#allocator.take(object.number, count) ?? (await this.#inNewFile(object.number, count));
      if (await this.#allocate(run)) return run;
      this.#giveBack(run, true);
      this.#noteEmpty(run.fileNumber);
      return null;
    } catch (error) {
      if (isOutOfSpace(error)) return null;
      throw error;
    } finally {
      this.#reserving -= count;
    }
  }

  async #allocate(run: Run): Promise<boolean> {
    try {
      return await this.#plane.allocateRun(run.fileNumber, run.firstSlot, run.count);
    } catch (error) {
      this.#giveBack(run, true);
      this.#noteEmpty(run.fileNumber);
      throw new PlaneDiskError(error);
    }
  }

  /** A file whose owner is gone is removed when nothing in it is used; others are filled again. */
  #noteEmpty(fileNumber: number): void {
    const file = this.#state.files.get(fileNumber);
    if (file?.used === 0 && !this.#state.objects.has(file.owner)) this.#emptyFiles.add(fileNumber);
  }

  /** The owner is deleted: its files that are empty already get no other reason to be removed. */
  abandon(owner: number): void {
    for (const fileNumber of this.#allocator.filesOf(owner)) this.#noteEmpty(fileNumber);
  }

  async #inNewFile(owner: number, count: number): Promise<Run> {
    const file = await this.#createFile(owner);
    this.#allocator.addFile(file);
    const run = this.#allocator.take(owner, count);
    if (run === null) throw new Error(`extent file ${file.fileNumber} is new and has free slots`);
    return run;
  }

  async #createFile(owner: number): Promise<StoredFile> {
    let fileNumber = 1;
    while (this.#state.files.has(fileNumber) || this.#claimed.has(fileNumber)) fileNumber += 1;
    this.#claimed.add(fileNumber);
    try {
      const path = extentPath(fileNumber);
      await this.#makeFile(path);
      // The file before its record: a crash between the two leaves a file that nobody names, which the next start removes.
      await this.#append([{ type: 'file-create', fileNumber, owner }]);
      this.#plane.registerFile(fileNumber, this.#files.absolute(path));
      return present(this.#state.files.get(fileNumber), `extent file ${fileNumber} was just created`);
    } finally {
      this.#claimed.delete(fileNumber);
    }
  }

  async #makeFile(path: string): Promise<void> {
    const file = this.#files.open(path, 'create');
    try {
      file.truncate(SLOTS_PER_FILE * EXTENT_BYTES);
    } finally {
      file.close();
    }
    await this.#files.syncFolder(EXTENTS_PATH);
  }

  #giveBack(run: Run, isDirty: boolean): void {
    const first = run.fileNumber * SLOTS_PER_FILE + run.firstSlot;
    for (let address = first; address < first + run.count; address += 1) this.#allocator.release(address, isDirty);
  }

  /** Granted extents that are used now. */
  landed(addresses: readonly number[]): void {
    for (const address of addresses) this.#allocator.landed(address);
  }

  /** Granted extents that will not be used: free once no request can still write to them. */
  released(runs: Uint32Array): void {
    const addresses: number[] = [];
    for (let at = 0; at < runs.length; at += 2) {
      for (let count = 0; count < (runs[at + 1] ?? 0); count += 1) addresses.push((runs[at] ?? 0) + count);
    }
    // Nobody ever read them, and preallocated space counts as unpunched.
    this.#limbo.push({ tag: this.#plane.advanceEpoch(), addresses, isDirty: true });
  }

  // ---- the way back ----------------------------------------------------------------------------------------------------

  /** Extents whose last reference went with records that are durable when `durable` resolves. */
  freed(addresses: readonly number[], durable: Promise<void>): void {
    if (addresses.length === 0) return;
    for (const address of addresses) this.#allocator.freed(address);
    this.#waitingForJournal += addresses.length;
    this.#lastFreed = durable.then(
      () => {
        this.#waitingForJournal -= addresses.length;
        this.#limbo.push({ tag: this.#plane.advanceEpoch(), addresses, isDirty: true });
      },
      // The journal failed: the process is about to end.
      () => {},
    );
  }

  /** Moves what has quiesced from limbo to free. */
  settle(): void {
    if (this.#limbo.length === 0) return;
    const quiesced = this.#plane.quiescedEpoch();
    const stay: Limbo[] = [];
    for (const entry of this.#limbo) {
      if (entry.tag > quiesced) {
        stay.push(entry);
        continue;
      }
      for (const address of entry.addresses) {
        this.#allocator.release(address, entry.isDirty);
        const fileNumber = Math.floor(address / SLOTS_PER_FILE);
        if (this.#state.files.get(fileNumber)?.used === 0) this.#emptyFiles.add(fileNumber);
      }
      this.#damage.unmark(entry.addresses);
      this.#idleRounds = 0;
    }
    this.#limbo = stay;
  }

  /** Something can still be given back without anybody else doing anything first. */
  get hasReclaimable(): boolean {
    const canRemove = [...this.#emptyFiles].some((fileNumber) => !this.#allocator.isHeld(fileNumber));
    const isKnown = this.#unexamined.size === 0;
    return (
      !isKnown ||
      this.#limbo.length > 0 ||
      this.#waitingForJournal > 0 ||
      canRemove ||
      this.#allocator.unpunchedExtents > 0
    );
  }

  get hasWork(): boolean {
    const isOut = [...this.#granting.values()].some((granting) => granting.isOut);
    return (
      isOut ||
      this.#unexamined.size > 0 ||
      this.#limbo.length > 0 ||
      this.#emptyFiles.size > 0 ||
      this.#allocator.unpunchedExtents > 0
    );
  }

  /** One round of giving space back; called about once a second, and until there is nothing left when the pool is closed. */
  tidy(): Promise<void> {
    this.#tidying ??= this.#tidyOnce().finally(() => {
      this.#tidying = null;
    });
    return this.#tidying;
  }

  async #tidyOnce(): Promise<void> {
    this.#recall(GRANT_IDLE_MS);
    this.settle();
    await this.#removeEmptyFiles();
    // One a round: each may have to be read from disk.
    const [fileNumber] = this.#unexamined;
    if (fileNumber !== undefined) {
      this.#unexamined.delete(fileNumber);
      try {
        this.#allocator.examine(fileNumber);
      } catch (error) {
        // A damaged page is the trouble of who needs it, and of `quarry check`; not of a search for space.
        if (!(error instanceof Failure)) throw error;
      }
    }
    this.#idleRounds += 1;
    const countMin = this.#idleRounds > IDLE_ROUNDS ? 1 : PUNCH_EXTENTS;
    const startedAt = this.#clock.now();
    // Who waits for room cannot wait for that.
    if (this.#squeezing === null && startedAt < this.#punchingFrom) return;
    for (let punched = 0; punched < PUNCHES_PER_ROUND; punched += 1) {
      if (this.#squeezing === null && this.#clock.now() - startedAt > PUNCHING_MS_MAX) break;
      const run = this.#allocator.takeUnpunched(countMin);
      if (run === null) break;
      // One that fails leaves space behind that is used again when its extents are: nobody has to know.
      await this.#plane.punchRun(run.fileNumber, run.firstSlot, run.count).catch(() => {});
      this.#giveBack(run, false);
    }
    this.#punchingFrom = this.#clock.now() + (this.#clock.now() - startedAt) * PUNCHING_PAUSES;
  }

  /** The record first: a crash between the two leaves a file that nobody names, which the next start removes. */
  async #removeEmptyFiles(): Promise<void> {
    for (const fileNumber of [...this.#emptyFiles]) {
      const file = this.#state.files.get(fileNumber);
      if (file === undefined || file.used > 0) {
        this.#emptyFiles.delete(fileNumber);
        continue;
      }
      if (this.#allocator.isHeld(fileNumber)) continue;
      this.#emptyFiles.delete(fileNumber);
      this.#allocator.removeFile(file);
      // Its number may be used again, by a file that has nothing to look for.
      this.#unexamined.delete(fileNumber);
      // Claimed until the file is gone: a new file with this number would be the one that is unlinked.
      this.#claimed.add(fileNumber);
      await this.#append([{ type: 'file-remove', fileNumber }]);
      this.#plane.forgetFile(fileNumber);
      try {
        this.#files.remove(extentPath(fileNumber));
        this.#claimed.delete(fileNumber);
      } catch (error) {
        // Its number stays claimed; the next start removes what no record names.
        if (!isDiskError(error)) throw error;
      }
    }
  }
}
