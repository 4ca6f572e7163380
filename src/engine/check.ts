/**
 * Every invariant of a stopped pool, as a function that returns what is wrong as data. Opens everything read-only, replays the
 * journal in memory, walks all maps and counts anew. Used by tests after each recovery and by `quarry check`. Repairs nothing.
 */

import { Failure } from '../base/errors.ts';
import { type Files, isDiskError } from '../base/files.ts';
import { REFERENCES_PER_PAGE, SUMS_PER_PAGE } from '../format/page.ts';
import { EXTENT_BYTES, SLOTS_PER_FILE } from '../native/plane.ts';
import { PLACES_MAX, type Place, type Places, placesNow } from './places.ts';
import { recover } from './recovery.ts';
import { extentPath } from './space.ts';
import type { State, StoredFile } from './state.ts';
import { type Progress, type Verified, verifySums } from './verify.ts';
import { type Flaw, MapWalk, NO_COUNTS } from './walk.ts';

export type ViolationKind =
  /** A file cannot be read as what it should be. */
  | 'damaged'
  | 'page-references'
  | 'extent-references'
  | 'mapped-count'
  | 'used-count'
  | 'map-shape'
  | 'map-entry'
  | 'extent-file'
  /** A sum or a mark of damage of an extent that nobody refers to, or bytes that do not have their sum. */
  | 'sum';

export type Violation = {
  readonly kind: ViolationKind;
  readonly path: string;
  readonly reason: string;
  /** Whose bytes are concerned, where that can be known; at most PLACES_MAX. */
  readonly places: readonly Place[];
};

export type CheckReport = {
  readonly violations: readonly Violation[];
  /** True: there are more than are listed. */
  readonly isTruncated: boolean;
  readonly objects: number;
  readonly pages: number;
  readonly extents: number;
  /** Extents that are marked as damaged: reads of them fail until they are written anew. */
  readonly damagedExtents: number;
  /** Extents whose bytes were compared with their sums; null: not asked for. */
  readonly verifiedExtents: number | null;
};

/** A damaged pool can have millions; nobody reads them. */
export const VIOLATIONS_MAX = 1000;
export const CLEAN_PAGES_MAX = 4096;

/** The tables alone. Fails with `newer_format`; damage is a violation. The caller holds the pool's lock or knows that nobody serves it. */
export function checkPool(files: Files): CheckReport {
  return check(files, null);
}

/** The same for what is recovered already. */
export function checkState(files: Files, state: State): CheckReport {
  return examine(files, state, null).report;
}

/** The tables, and the bytes of every sealed extent. */
export function checkPoolAndData(files: Files, onProgress: Progress): CheckReport {
  return check(files, onProgress);
}

function check(files: Files, onProgress: Progress | null): CheckReport {
  let recovered: ReturnType<typeof recover>;
  try {
    recovered = recover(files, { mode: 'read', cleanPagesMax: CLEAN_PAGES_MAX });
  } catch (error) {
    return reportOf(refusalOf(error));
  }
  try {
    return examine(files, recovered.state, onProgress).report;
  } finally {
    recovered.pagesFile.close();
  }
}

/** Why a pool cannot be read at all; throws what is no damage. */
export function refusalOf(error: unknown): Violation {
  if (!(error instanceof Error) || isDiskError(error)) throw error;
  if (error instanceof Failure && error.code !== 'corrupt') throw error;
  // Tables that contradict each other fail assertions when they are loaded or frames are applied to them.
  const { path, reason } = error instanceof Failure ? error.fields : { path: 'pool', reason: error.message };
  return { kind: 'damaged', path: String(path), reason: String(reason), places: [] };
}

export function reportOf(refusal: Violation): CheckReport {
  return {
    violations: [refusal],
    isTruncated: false,
    ...{ objects: 0, pages: 0, extents: 0, damagedExtents: 0, verifiedExtents: null },
  };
}

export type Examined = { readonly report: CheckReport; readonly walk: MapWalk; readonly verified: Verified | null };

/** A state as it is in memory, and the extent files on the disk. */
export function examine(files: Files, state: State, onProgress: Progress | null): Examined {
  const check = new Check(files, state);
  const report = check.run(onProgress);
  return { report, walk: check.walk, verified: check.verified };
}

/** Until all places are sought together. */
type Pending = Omit<Violation, 'places'> & { readonly at: Flaw['at']; readonly extent: number | null };

class Check {
  readonly walk: MapWalk;
  verified: Verified | null = null;
  readonly #files: Files;
  readonly #state: State;
  readonly #pending: Pending[] = [];
  #isTruncated = false;

  constructor(files: Files, state: State) {
    this.#files = files;
    this.#state = state;
    this.walk = new MapWalk(state, (flaw) => this.#add({ ...flaw, extent: null }));
  }

  run(onProgress: Progress | null): CheckReport {
    this.walk.run();
    this.#compareMapped();
    this.#comparePages();
    let extents = 0;
    for (const file of this.#state.files.values()) {
      this.#compareExtents(file);
      this.#checkSums(file);
      extents += file.used;
    }
    this.#checkMarks();
    if (onProgress !== null) this.#verify(onProgress);
    return {
      violations: this.#located(),
      isTruncated: this.#isTruncated,
      objects: this.#state.objects.size,
      pages: this.walk.references.size,
      extents,
      damagedExtents: this.#state.damaged.size,
      verifiedExtents: this.verified === null ? null : this.verified.sound.size + this.verified.bad.size,
    };
  }

  #add(violation: Pending): void {
    if (this.#pending.length < VIOLATIONS_MAX) this.#pending.push(violation);
    else this.#isTruncated = true;
  }

  #report(kind: ViolationKind, path: string, reason: string): void {
    this.#add({ kind, path, reason, at: null, extent: null });
  }

  /** One more walk, and only if there is something to look for. */
  #located(): Violation[] {
    const pages = new Set<number>();
    const extents = new Set<number>();
    for (const { at, extent } of this.#pending) {
      // Several entries of one leaf: where the leaf is says where each of them is.
      if (at !== null) pages.add(at.page);
      if (extent !== null) extents.add(extent);
    }
    const places = placesNow(this.#state, { pages, extents, max: PLACES_MAX });
    return this.#pending.map(({ at, extent, ...violation }) => ({
      ...violation,
      places: placesIn(places, at, extent),
    }));
  }

  #compareMapped(): void {
    for (const object of this.#state.objects.values()) {
      const mapped = this.walk.mapped.get(object.number) ?? null;
      if (mapped === null || mapped === object.mapped) continue;
      const reason = `${object.mapped} extents by its count, ${mapped} in its map`;
      this.#report('mapped-count', `${object.kind} ${object.id}`, reason);
    }
  }

  #comparePages(): void {
    const { references } = this.walk;
    for (const id of this.#state.pages.ids()) {
      const stored = this.#state.pages.references(id);
      const found = references.get(id) ?? 0;
      if (stored === found) continue;
      const reason = `page ${id} has ${stored} references by its count, ${found} in the maps`;
      this.#report('page-references', 'pool/pages', reason);
    }
    for (const id of references.keys()) {
      if (this.#state.pages.references(id) === 0)
        this.#report('page-references', 'pool/pages', `page ${id} is in a map and free`);
    }
  }

  /** The words of a table's page; null: it cannot be read, which the walk has said. */
  #words(id: number): Uint32Array | null {
    return this.walk.brokenTables.has(id) ? null : this.#state.pages.get(id).words;
  }

  #compareExtents(file: StoredFile): void {
    const path = extentPath(file.fileNumber);
    const { used, highestSlot } = this.walk.useOf(file.fileNumber);
    for (const [index, id] of file.references.entries()) {
      const found = this.walk.countsIn(file.fileNumber, index);
      if (id === 0 && found === NO_COUNTS) continue;
      const stored = id === 0 ? NO_COUNTS : this.#words(id);
      if (stored === null) continue;
      for (let at = 0; at < REFERENCES_PER_PAGE; at += 1) {
        if (stored[at] === found[at]) continue;
        const slot = index * REFERENCES_PER_PAGE + at;
        const reason = `slot ${slot} has ${stored[at]} references by its count, ${found[at]} in the maps`;
        this.#report('extent-references', path, reason);
      }
    }
    if (used !== file.used)
      this.#report('used-count', path, `${file.used} extents used by its count, ${used} in the maps`);
    this.#checkFile(path, highestSlot);
  }

  /** Only what is referred to has a sum: bytes of a free extent change, and a sum that stayed would call them damaged. */
  #checkSums(file: StoredFile): void {
    for (const [index, id] of file.sums.entries()) {
      const words = id === 0 ? null : this.#words(id);
      if (words === null) continue;
      for (let at = 0; at < SUMS_PER_PAGE; at += 1) {
        const slot = index * SUMS_PER_PAGE + at;
        if (words[at] === 0 || this.walk.countOf(file.fileNumber * SLOTS_PER_FILE + slot) > 0) continue;
        this.#report('sum', extentPath(file.fileNumber), `slot ${slot} has a sum and is in no map`);
      }
    }
  }

  #checkMarks(): void {
    for (const address of this.#state.damaged) {
      if (this.walk.countOf(address) > 0) continue;
      const reason = `slot ${address % SLOTS_PER_FILE} is marked as damaged and is in no map`;
      this.#report('sum', extentPath(Math.floor(address / SLOTS_PER_FILE)), reason);
    }
  }

  #verify(onProgress: Progress): void {
    const readable = (id: number): boolean => !this.walk.brokenTables.has(id);
    this.verified = verifySums(this.#files, this.#state, { readable, onProgress });
    for (const [address, problem] of this.verified.bad) {
      const marked = this.#state.damaged.has(address) ? '; it is marked, so that reads of it fail' : '';
      this.#add({
        kind: 'sum',
        path: extentPath(Math.floor(address / SLOTS_PER_FILE)),
        reason: `slot ${address % SLOTS_PER_FILE}: ${problem}${marked}`,
        at: null,
        extent: address,
      });
    }
  }

  #checkFile(path: string, highestSlot: number): void {
    if (!this.#files.exists(path)) return this.#report('extent-file', path, 'it is missing');
    const file = this.#files.open(path, 'read');
    const sizeBytes = file.size();
    file.close();
    // The last extent may have been written in part.
    if (sizeBytes <= highestSlot * EXTENT_BYTES) {
      this.#report('extent-file', path, `it has ${sizeBytes} bytes, but slot ${highestSlot} is in use`);
    }
  }
}

/** Of a page's places, those of the bytes at fault. */
export function placesIn(places: Places, at: Flaw['at'], extent: number | null): readonly Place[] {
  if (extent !== null) return places.extents.get(extent) ?? [];
  if (at === null) return [];
  const found = places.pages.get(at.page) ?? [];
  const { range } = at;
  if (range === null) return found;
  return found.flatMap((place) => {
    // A part of the page that lies behind the end of a volume concerns nobody.
    const length = Math.min(range.length, place.length - range.offset);
    return length > 0 ? [{ ...place, offset: place.offset + range.offset, length }] : [];
  });
}
