/**
 * The repair of a stopped pool: first the plan, all of it in memory, then its one checkpoint. A crash before the new root is durable leaves
 * what was there, one after it what was planned. What the old state was made of is copied beside before anything is written.
 * Nothing is decided here about what is right: that is mend.ts.
 */

import type { Clock } from '../base/clock.ts';
import { Failure } from '../base/errors.ts';
import { type Files, isDiskError, isOutOfSpace, type OpenFile } from '../base/files.ts';
import { SLOT_BYTES } from '../format/page.ts';
import { EXTENT_BYTES, SLOTS_PER_FILE } from '../native/plane.ts';
import { type CheckReport, CLEAN_PAGES_MAX, examine, refusalOf, reportOf } from './check.ts';
import { Checkpointer } from './checkpointer.ts';
import { type Mend, Mender } from './mend.ts';
import { PAGES_PATH } from './pages.ts';
import type { Place } from './places.ts';
import { CHECKPOINT_PATHS, EXTENTS_PATH, HEADER_PATH, JOURNAL_PATHS, type Recovered, recover } from './recovery.ts';
import { type Lost, type Salvageable, salvage, salvageable } from './salvage.ts';
import { extentPath } from './space.ts';
import type { State } from './state.ts';
import type { Progress } from './verify.ts';
import type { MapWalk } from './walk.ts';

export type RepairOptions = {
  /** What cannot be known becomes holes; else it stays, and reads of it fail. */
  readonly isDiscarding: boolean;
  /** Reads the bytes of sealed extents too. */
  readonly onScrub: Progress | null;
  /** Not the newest root with all frames after it, but this one with those up to the first gap; null: the normal start. */
  readonly fromRoot: number | null;
};

export type Plan = {
  readonly kind: 'plan';
  readonly before: CheckReport;
  /** Nothing in here: the pool stays as it is. */
  readonly mends: readonly Mend[];
  /** Bytes that read as zeros afterwards. */
  readonly lost: readonly Place[];
  /** Acknowledged changes that are given up. */
  readonly lostFrames: Lost | null;
  /** What a check would find afterwards. */
  readonly after: CheckReport;
};

/** The pool cannot be read at all as it is; from which roots it could be. */
export type Refusal = {
  readonly kind: 'refusal';
  readonly before: CheckReport;
  readonly roots: readonly Salvageable[];
};

const COPY_BYTES = 1 << 20;

/** The caller holds the pool's lock, until it has closed this. */
export class Repair {
  readonly plan: Plan;
  readonly #files: Files;
  readonly #recovered: Recovered;
  readonly #cut: ReadonlyMap<number, number>;
  readonly #strays: readonly string[];
  readonly #lostHalves: readonly string[];

  /** Writes nothing. Fails with `newer_format`. */
  static plan(files: Files, options: RepairOptions): Repair | Refusal {
    let recovered: Recovered & { readonly lost?: Lost | null };
    const memory = { mode: 'existing', cleanPagesMax: CLEAN_PAGES_MAX } as const;
    try {
      recovered = options.fromRoot === null ? recover(files, memory) : salvage(files, options.fromRoot, memory);
    } catch (error) {
      return { kind: 'refusal', before: reportOf(refusalOf(error)), roots: salvageable(files) };
    }
    try {
      return new Repair(files, recovered, options);
    } catch (error) {
      recovered.pagesFile.close();
      throw error;
    }
  }

  constructor(files: Files, recovered: Recovered & { readonly lost?: Lost | null }, options: RepairOptions) {
    this.#files = files;
    this.#recovered = recovered;
    const { state, header } = recovered;
    const { report: before, walk, verified } = examine(files, state, options.onScrub);
    this.#cut = cutFiles(files, state, walk);
    this.#strays = files
      .list(EXTENTS_PATH)
      .filter((name) => !state.files.has(Number.parseInt(name, 10)))
      .map((name) => `${EXTENTS_PATH}/${name}`);
    this.#lostHalves = JOURNAL_PATHS.filter((path) => sizeOf(files, path) < header.journalHalfBytes);
    const mender = new Mender(state, { isDiscarding: options.isDiscarding, verified, cut: this.#cut });
    mender.run();
    const mends = [...mender.mends, ...this.#fileMends()];
    const lostFrames = recovered.lost ?? null;
    if (options.fromRoot !== null)
      mends.unshift({ path: 'pool', what: `root ${options.fromRoot} and the journal up to its first gap`, count: 1 });
    // On the disk cut files are still as they were: what is said of them afterwards, this repair has made right.
    const { report } = examine(files, state, null);
    const after = { ...report, violations: report.violations.filter(({ kind }) => kind !== 'extent-file') };
    this.plan = { kind: 'plan', before, mends, lost: mender.lost, lostFrames, after };
  }

  #fileMends(): Mend[] {
    return [
      ...[...this.#cut.keys()].map((fileNumber) => ({
        ...{ path: extentPath(fileNumber), what: 'the file gets its length again, with holes', count: 1 },
      })),
      ...this.#strays.map((path) => ({ path, what: 'a file that no table names is removed', count: 1 })),
      ...this.#lostHalves.map((path) => ({ path, what: 'the journal half is made anew, empty', count: 1 })),
    ];
  }

  /** Returns the folder with what there was before. `stamp` names it. On a full disk it fails, and the pool is as it was. */
  async apply(clock: Clock, stamp: string): Promise<string> {
    const folder = `pool/before-repair-${stamp}`;
    try {
      await this.#syncAll();
      await this.#copyTo(folder);
    } catch (error) {
      if (!isOutOfSpace(error)) throw error;
      throw noSpace(this.#files);
    }
    await this.#checkpoint(clock);
    // After the root: an empty file in place of a missing one would let the old state read zeros.
    for (const fileNumber of this.#cut.keys()) await this.#lengthen(extentPath(fileNumber));
    for (const path of this.#lostHalves) await this.#emptyHalf(path);
    for (const path of this.#strays) this.#files.remove(path);
    await this.#files.syncFolder(EXTENTS_PATH);
    await this.#files.syncFolder('pool');
    return folder;
  }

  close(): void {
    this.#recovered.pagesFile.close();
  }

  /** What was read may be in the page cache only; from here on it is built upon. */
  async #syncAll(): Promise<void> {
    for (const path of [...JOURNAL_PATHS, ...CHECKPOINT_PATHS, PAGES_PATH]) {
      const isRoot = path.startsWith('pool/checkpoint');
      if (!isRoot && !this.#files.exists(path)) continue;
      // Going back to an older root, the other one may be missing. An empty one claims nothing.
      const file = this.#files.open(path, isRoot ? 'create' : 'existing');
      try {
        await file.sync();
      } finally {
        file.close();
      }
    }
  }

  async #copyTo(folder: string): Promise<void> {
    this.#files.makeFolder(folder);
    for (const path of [HEADER_PATH, ...CHECKPOINT_PATHS, ...JOURNAL_PATHS, PAGES_PATH]) {
      if (this.#files.exists(path)) await this.#copy(path, path.replace(/^pool/, folder));
    }
    await this.#files.syncFolder(folder);
    await this.#files.syncFolder('pool');
  }

  async #copy(source: string, target: string): Promise<void> {
    const from = this.#files.open(source, 'read');
    const to = this.#files.open(target, 'create');
    try {
      const size = from.size();
      const bytes = new Uint8Array(COPY_BYTES);
      for (let at = 0; at < size; at += COPY_BYTES) to.write(at, bytes.subarray(0, readOver(from, at, bytes)));
      await to.sync();
    } finally {
      from.close();
      to.close();
    }
  }

  async #checkpoint(clock: Clock): Promise<void> {
    const { state, journal, checkpointNumber: number } = this.#recovered;
    const marks = { mark: () => journal.sequence, unmark() {}, release() {} };
    const checkpointer = new Checkpointer({ files: this.#files, state, journal: marks, clock, number });
    try {
      if (!(await checkpointer.run())) throw noSpace(this.#files);
    } finally {
      checkpointer.close();
    }
  }

  async #lengthen(path: string): Promise<void> {
    const file = this.#files.open(path, 'create');
    try {
      file.truncate(SLOTS_PER_FILE * EXTENT_BYTES);
      await file.sync();
    } finally {
      file.close();
    }
  }

  /** Written, not only sized: a commit must find its space even when the disk is full. */
  async #emptyHalf(path: string): Promise<void> {
    const file = this.#files.open(path, 'create');
    try {
      const zeros = new Uint8Array(COPY_BYTES);
      const length = this.#recovered.header.journalHalfBytes;
      for (let at = 0; at < length; at += COPY_BYTES)
        file.write(at, zeros.subarray(0, Math.min(COPY_BYTES, length - at)));
      await file.sync();
    } finally {
      file.close();
    }
  }
}

/** A place that the disk does not give back stays zeros in the copy: what is around it is wanted all the more. */
function readOver(file: OpenFile, at: number, target: Uint8Array): number {
  target.fill(0);
  try {
    return file.read(at, target);
  } catch (error) {
    if (!isDiskError(error)) throw error;
  }
  const length = Math.min(target.length, file.size() - at);
  for (let from = 0; from < length; from += SLOT_BYTES) {
    try {
      file.read(at + from, target.subarray(from, Math.min(from + SLOT_BYTES, length)));
    } catch (error) {
      if (!isDiskError(error)) throw error;
    }
  }
  return length;
}

function sizeOf(files: Files, path: string): number {
  if (!files.exists(path)) return 0;
  const file = files.open(path, 'read');
  const size = file.size();
  file.close();
  return size;
}

/** Of extent files that are missing, or end before what is used in them, the first slot that is not there whole. */
function cutFiles(files: Files, state: State, walk: MapWalk): Map<number, number> {
  const found = new Map<number, number>();
  for (const { fileNumber } of state.files.values()) {
    const path = extentPath(fileNumber);
    if (!files.exists(path)) {
      found.set(fileNumber, 0);
      continue;
    }
    const size = sizeOf(files, path);
    if (size <= walk.useOf(fileNumber).highestSlot * EXTENT_BYTES)
      found.set(fileNumber, Math.floor(size / EXTENT_BYTES));
  }
  return found;
}

function noSpace(files: Files): Failure {
  return new Failure('out_of_space', { freeBytes: files.space().freeBytes, reservedBytes: 0 });
}
