/**
 * Makes a recovered state in memory right again: counts become what the maps say, what nobody names goes. What cannot be known stays as
 * it is and fails to be read, unless whoever repairs has said that it is to be given up: then it becomes holes, and is listed as
 * lost. Knows nothing of files.
 */

import { Failure } from '../base/errors.ts';
import type { Page } from '../format/page.ts';
import { INNER_CHILDREN, REFERENCES_PER_PAGE, SUMS_PER_PAGE } from '../format/page.ts';
import { EXTENT_BYTES, LEAF_ENTRIES, SLOTS_PER_FILE } from '../native/plane.ts';
import { placesIn } from './check.ts';
import { PAGES_PATH } from './pages.ts';
import { type Place, placesNow } from './places.ts';
import { extentPath } from './space.ts';
import { type State, type StoredFile, type StoredObject, spanOf } from './state.ts';
import type { Verified } from './verify.ts';
import { MapWalk, NO_COUNTS } from './walk.ts';

/** One line of a plan. */
export type Mend = { readonly path: string; readonly what: string; readonly count: number };

export type MendOptions = {
  readonly isDiscarding: boolean;
  readonly verified: Verified | null;
  /** Of extent files that are missing or cut, the first slot that is not there. */
  readonly cut: ReadonlyMap<number, number>;
};

export class Mender {
  /** Bytes that become zeros. */
  lost: readonly Place[] = [];
  readonly #state: State;
  readonly #options: MendOptions;
  readonly #mends = new Map<string, { path: string; what: string; count: number }>();
  /** Ids that counted as free and have a slot. */
  #lifted: number[] = [];

  constructor(state: State, options: MendOptions) {
    this.#state = state;
    this.#options = options;
  }

  get mends(): readonly Mend[] {
    return [...this.#mends.values()];
  }

  run(): void {
    const { pages } = this.#state;
    this.#lifted = pages.strays();
    for (const id of this.#lifted) pages.setReferences(id, 1);
    let walk = this.#walk();
    this.#mark(walk);
    if (this.#options.isDiscarding && this.#discard(walk)) walk = this.#walk();
    // Below a page that cannot be read may be what nobody else names: then nothing is given away, and counts only rise.
    const isComplete = walk.broken.size === 0;
    // A new page takes a free id, and a map may name one that is not there.
    const canCreate = [...walk.broken].every((id) => pages.isThere(id));
    if (canCreate) for (const object of this.#state.objects.values()) this.#raise(object, walk);
    for (const file of this.#state.files.values()) {
      this.#dropBrokenSums(file, walk);
      this.#countExtents(file, walk, { isComplete, canCreate });
    }
    this.#countPages(this.#walk(), walk.brokenTables, isComplete);
    for (const file of this.#state.files.values()) this.#dropSums(file, walk);
    this.#dropMarks(walk);
  }

  #walk(): MapWalk {
    return new MapWalk(this.#state, () => {}).run();
  }

  #note(path: string, what: string, count = 1): void {
    const key = `${path}\0${what}`;
    const known = this.#mends.get(key);
    if (known === undefined) this.#mends.set(key, { path, what, count });
    else known.count += count;
  }

  // ---- bytes that cannot be known ------------------------------------------------------------------------------------

  /** Reads of them fail from now on. */
  #mark(walk: MapWalk): void {
    const { damaged } = this.#state;
    const { cut, verified } = this.#options;
    const mark = (address: number, what: string): void => {
      if (damaged.has(address) || walk.countOf(address) === 0) return;
      damaged.add(address);
      this.#note(pathOf(address), what);
    };
    for (const [fileNumber, firstSlot] of cut) {
      for (let slot = firstSlot; slot < SLOTS_PER_FILE; slot += 1)
        mark(
          fileNumber * SLOTS_PER_FILE + slot,
          'extents that are not there are marked as damaged: reads of them fail',
        );
    }
    for (const address of verified?.bad.keys() ?? [])
      mark(address, 'extents without their sum are marked as damaged: reads of them fail');
    for (const address of [...damaged]) {
      if (verified?.sound.has(address) !== true) continue;
      damaged.delete(address);
      this.#note(pathOf(address), 'extents that have their sum are not marked as damaged any more');
    }
  }

  /** Makes holes of what cannot be known; false: there was nothing of it. */
  #discard(walk: MapWalk): boolean {
    const { damaged } = this.#state;
    if (walk.broken.size === 0 && walk.entries.length === 0 && damaged.size === 0) return false;
    this.lost = merged([...this.#losses(walk)]);
    for (const { page, position } of walk.entries) {
      clearEntry(this.#state.pages.edit(page), position);
      this.#note(PAGES_PATH, 'map entries that cannot be are made holes');
    }
    this.#discardBroken(walk);
    if (damaged.size > 0)
      for (const [id, level] of walk.levels) if (level === 0 && !walk.broken.has(id)) this.#discardDamaged(id);
    return true;
  }

  *#losses(walk: MapWalk): Generator<Place> {
    const inEntries = new Set(walk.entries.map(({ page }) => page));
    const wanted = { pages: new Set([...walk.broken, ...inEntries]), extents: this.#state.damaged };
    const places = placesNow(this.#state, { ...wanted, max: Number.POSITIVE_INFINITY });
    for (const list of places.extents.values()) yield* list;
    for (const id of walk.broken) yield* places.pages.get(id) ?? [];
    for (const { page, position } of walk.entries) {
      const range = { offset: position * EXTENT_BYTES, length: EXTENT_BYTES };
      yield* placesIn(places, { page, range }, null);
    }
  }

  #discardBroken(walk: MapWalk): void {
    const { broken } = walk;
    if (broken.size === 0) return;
    const what = 'map pages that cannot be read are made holes';
    for (const object of this.#state.objects.values()) if (broken.has(object.root)) object.root = 0;
    for (const [id, level] of walk.levels) {
      if (level <= 0 || broken.has(id)) continue;
      const { words } = this.#state.pages.get(id);
      for (let at = 0; at < INNER_CHILDREN; at += 1)
        if (broken.has(words[at] ?? 0)) this.#state.pages.edit(id).words[at] = 0;
    }
    const kept = this.#state.drops.filter((id) => !broken.has(id));
    this.#state.drops.splice(0, this.#state.drops.length, ...kept);
    this.#note(PAGES_PATH, what, broken.size);
  }

  /** Of an entry, only the blocks that a damaged extent shows are lost. */
  #discardDamaged(id: number): void {
    const { damaged } = this.#state;
    const found = this.#state.pages.get(id);
    for (let position = 0; position < LEAF_ENTRIES; position += 1) {
      const [extent, base] = [found.words[position * 2] ?? 0, found.bases[position] ?? 0];
      if (!damaged.has(extent) && !damaged.has(base)) continue;
      const page = this.#state.pages.edit(id);
      const bits = page.words[position * 2 + 1] ?? 0;
      const below = (page.masks[position] ?? 0) & ~bits;
      clearEntry(page, position);
      this.#note(PAGES_PATH, 'map entries lose a damaged extent');
      if (!damaged.has(extent) && bits !== 0) setEntry(page, position, extent, bits);
      else if (damaged.has(extent) && !damaged.has(base) && below !== 0) setEntry(page, position, base, below);
    }
  }

  // ---- counts --------------------------------------------------------------------------------------------------------

  /** Empty pages above a map that is whole but lower than its size needs; and the count of what it maps. */
  #raise(object: StoredObject, walk: MapWalk): void {
    const mapped = walk.mapped.get(object.number) ?? null;
    if (mapped === null) return;
    const name = `${object.kind} ${object.id}`;
    if (spanOf(object.height) < object.sizeBytes) this.#note(name, 'its map is made as high as its size needs');
    while (spanOf(object.height) < object.sizeBytes) {
      if (object.root !== 0) {
        const above = this.#state.pages.create('inner', object.number);
        above.words[0] = object.root;
        object.root = above.id;
      }
      object.height += 1;
    }
    if (mapped === object.mapped) return;
    object.mapped = mapped;
    this.#note(name, 'its count of mapped extents is set to what its map says');
  }

  #dropBrokenSums(file: StoredFile, walk: MapWalk): void {
    for (const [index, id] of file.sums.entries()) {
      if (id === 0 || !walk.brokenTables.has(id)) continue;
      file.sums[index] = 0;
      const what = 'pages of sums that cannot be read are dropped: their extents get new sums with the next scrub';
      this.#note(extentPath(file.fileNumber), what);
    }
  }

  #countExtents(file: StoredFile, walk: MapWalk, may: { isComplete: boolean; canCreate: boolean }): void {
    const path = extentPath(file.fileNumber);
    let [used, isKnown] = [0, true];
    for (const [index, old] of file.references.entries()) {
      const isBroken = walk.brokenTables.has(old);
      const counts = walk.countsIn(file.fileNumber, index);
      if (old === 0 && counts === NO_COUNTS) continue;
      if (isBroken && !(may.isComplete && may.canCreate)) {
        isKnown = false;
        continue;
      }
      if (isBroken) {
        file.references[index] = 0;
        this.#note(path, 'pages of reference counts that cannot be read are made anew from the maps');
      }
      for (let at = 0; at < REFERENCES_PER_PAGE; at += 1) {
        const id = file.references[index] ?? 0;
        const is = id === 0 ? 0 : (this.#state.pages.get(id).words[at] ?? 0);
        const found = counts[at] ?? 0;
        const should = may.isComplete ? found : Math.max(is, found);
        if (should > 0) used += 1;
        if (is === should) continue;
        if (id === 0 && !may.canCreate) {
          isKnown = false;
          continue;
        }
        this.#setCount(file, index, at, should);
        if (!isBroken) this.#note(path, 'reference counts of extents are set to what the maps say');
      }
    }
    if (!isKnown || used === file.used) return;
    file.used = used;
    this.#note(path, 'its count of used extents is set to what the maps say');
  }

  #setCount(file: StoredFile, index: number, at: number, count: number): void {
    const { pages } = this.#state;
    if (file.references[index] === 0) file.references[index] = pages.create('references', file.fileNumber).id;
    pages.edit(file.references[index] ?? 0).words[at] = count;
  }

  #countPages(walk: MapWalk, tables: ReadonlySet<number>, isComplete: boolean): void {
    const { pages } = this.#state;
    const lifted = new Set(this.#lifted);
    for (const id of [...pages.ids()]) {
      const now = pages.references(id);
      const stored = lifted.has(id) ? 0 : now;
      const found = walk.references.get(id) ?? 0;
      if (found === now && found === stored) continue;
      // Nothing is below a page of a table: one that nobody names is free whatever else is not known.
      const should = isComplete || tables.has(id) || this.#isTable(id) ? found : Math.max(now, found);
      if (should === stored || (should > 0 && !pages.isThere(id))) continue;
      pages.setReferences(id, should);
      const what =
        should === 0 ? 'pages that nothing names are freed' : 'reference counts of pages are set to what the maps say';
      this.#note(PAGES_PATH, what);
    }
    // Those that counted as free and are free.
    if (isComplete)
      for (const id of lifted) {
        if (walk.references.has(id)) continue;
        if (pages.references(id) > 0) pages.setReferences(id, 0);
        this.#note(PAGES_PATH, 'slots of pages that are free are given back');
      }
  }

  #isTable(id: number): boolean {
    if (!this.#state.pages.isThere(id)) return false;
    try {
      const { type } = this.#state.pages.get(id);
      return type === 'references' || type === 'sums';
    } catch (error) {
      if (error instanceof Failure) return false;
      throw error;
    }
  }

  // ---- sums and marks ------------------------------------------------------------------------------------------------

  /** Null: the page of counts cannot be read. */
  #countOf(address: number, walk: MapWalk): number | null {
    const file = this.#state.files.get(Math.floor(address / SLOTS_PER_FILE));
    const page = file?.references[Math.floor((address % SLOTS_PER_FILE) / REFERENCES_PER_PAGE)] ?? 0;
    return walk.brokenTables.has(page) ? null : this.#state.extentReferences(address);
  }

  #dropSums(file: StoredFile, walk: MapWalk): void {
    for (const [index, id] of file.sums.entries()) {
      if (id === 0) continue;
      for (let at = 0; at < SUMS_PER_PAGE; at += 1) {
        if ((this.#state.pages.get(id).words[at] ?? 0) === 0) continue;
        if (this.#countOf(file.fileNumber * SLOTS_PER_FILE + index * SUMS_PER_PAGE + at, walk) !== 0) continue;
        this.#state.pages.edit(id).words[at] = 0;
        this.#note(extentPath(file.fileNumber), 'sums of extents that are in no map are dropped');
      }
    }
  }

  #dropMarks(walk: MapWalk): void {
    for (const address of [...this.#state.damaged]) {
      if (this.#countOf(address, walk) !== 0) continue;
      this.#state.damaged.delete(address);
      this.#note(pathOf(address), 'marks of damage of extents that are in no map are dropped');
    }
  }
}

function pathOf(address: number): string {
  return extentPath(Math.floor(address / SLOTS_PER_FILE));
}

function clearEntry(page: Page, position: number): void {
  setEntry(page, position, 0, 0);
}

function setEntry(page: Page, position: number, extent: number, bits: number): void {
  page.words[position * 2] = extent;
  page.words[position * 2 + 1] = bits;
  page.bases[position] = 0;
  page.masks[position] = 0;
}

/** In order, neighbours and overlaps as one. */
function merged(places: readonly Place[]): Place[] {
  const order = (one: Place, other: Place): number =>
    one.kind.localeCompare(other.kind) || one.id.localeCompare(other.id) || one.offset - other.offset;
  const found: Place[] = [];
  for (const place of [...places].sort(order)) {
    const last = found.at(-1);
    const isNext = last?.id === place.id && last.offset + last.length >= place.offset;
    if (last === undefined || !isNext) found.push(place);
    else {
      const end = Math.max(last.offset + last.length, place.offset + place.length);
      found[found.length - 1] = { ...last, length: end - last.offset };
    }
  }
  return found;
}
