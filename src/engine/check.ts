/**
 * Every invariant of a stopped pool, as a function that returns what is wrong as data. Opens everything read-only, replays the
 * journal in memory, walks all maps and counts anew. Used by tests after each recovery and by `quarry check`. Repairs nothing.
 */

import { present } from '../base/assert.ts';
import { Failure } from '../base/errors.ts';
import { type Files, isDiskError } from '../base/files.ts';
import { INNER_CHILDREN, type Page, REFERENCES_PER_PAGE, SUMS_PER_PAGE } from '../format/page.ts';
import { EXTENT_BYTES, LEAF_ENTRIES, SLOTS_PER_FILE } from '../native/plane.ts';
import { recover } from './recovery.ts';
import { extentPath } from './space.ts';
import { type State, type StoredObject, spanOf } from './state.ts';

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

export type Violation = { readonly kind: ViolationKind; readonly path: string; readonly reason: string };

export type CheckReport = {
  readonly violations: readonly Violation[];
  /** True: there are more than are listed. */
  readonly isTruncated: boolean;
  readonly objects: number;
  readonly pages: number;
  readonly extents: number;
};

/** A damaged pool can have millions; nobody reads them. */
export const VIOLATIONS_MAX = 1000;
const CLEAN_PAGES_MAX = 4096;
const ENTRY_BLOCKS_MAX = 0xffff;
/** Types of pages that are not inner ones, by their level's distance from the leaves'. */
const TABLES = ['leaf', 'references', 'sums'] as const;
const NO_REFERENCES = new Uint32Array(REFERENCES_PER_PAGE);

/** Fails with `newer_format`; damage is a violation. The caller holds the pool's lock or knows that nobody serves it. */
export function checkPool(files: Files): CheckReport {
  let recovered: ReturnType<typeof recover>;
  try {
    recovered = recover(files, { mode: 'read', cleanPagesMax: CLEAN_PAGES_MAX });
  } catch (error) {
    if (!(error instanceof Error) || isDiskError(error)) throw error;
    if (error instanceof Failure && error.code !== 'corrupt') throw error;
    // Tables that contradict each other fail assertions when they are loaded or frames are applied to them.
    const { path, reason } = error instanceof Failure ? error.fields : { path: 'pool', reason: error.message };
    const violation: Violation = { kind: 'damaged', path: String(path), reason: String(reason) };
    return { violations: [violation], isTruncated: false, objects: 0, pages: 0, extents: 0 };
  }
  try {
    return checkState(files, recovered.state);
  } finally {
    recovered.pagesFile.close();
  }
}

/** The same for what is recovered already. */
export function checkState(files: Files, state: State): CheckReport {
  return new Check(files, state).run();
}

class Check {
  readonly #files: Files;
  readonly #state: State;
  readonly #violations: Violation[] = [];
  #isTruncated = false;
  /** References found, by page id. */
  readonly #pages = new Map<number, number>();
  /** Levels at which a page was found; one page has one. */
  readonly #levels = new Map<number, number>();
  /** Extents named below a page, by page id: pages are shared, so each is walked once. */
  readonly #mapped = new Map<number, number>();
  /** By extent file, and in it by page of references. */
  readonly #extents = new Map<number, (Uint32Array | undefined)[]>();

  constructor(files: Files, state: State) {
    this.#files = files;
    this.#state = state;
  }

  run(): CheckReport {
    for (const object of this.#state.objects.values()) this.#walkObject(object);
    for (const id of this.#state.drops) this.#reach(id, null);
    for (const file of this.#state.files.values()) {
      for (const id of file.references) if (id !== 0) this.#reach(id, -1);
      for (const id of file.sums) if (id !== 0) this.#reach(id, -2);
    }
    this.#comparePages();
    this.#compareExtents();
    this.#checkSums();
    let extents = 0;
    for (const file of this.#state.files.values()) extents += file.used;
    return {
      violations: this.#violations,
      isTruncated: this.#isTruncated,
      objects: this.#state.objects.size,
      pages: this.#pages.size,
      extents,
    };
  }

  #report(kind: ViolationKind, path: string, reason: string): void {
    if (this.#violations.length < VIOLATIONS_MAX) this.#violations.push({ kind, path, reason });
    else this.#isTruncated = true;
  }

  #page(id: number): Page | null {
    try {
      return this.#state.pages.get(id);
    } catch (error) {
      if (error instanceof Failure)
        this.#report('damaged', String(error.fields['path']), String(error.fields['reason']));
      else this.#report('page-references', 'pool/pages', error instanceof Error ? error.message : String(error));
      return null;
    }
  }

  #walkObject(object: StoredObject): void {
    const name = `${object.kind} ${object.id}`;
    if (spanOf(object.height) < object.sizeBytes) {
      this.#report('map-shape', name, `its map of height ${object.height} is too low for ${object.sizeBytes} bytes`);
    }
    const mapped = object.root === 0 ? 0 : this.#reach(object.root, object.height);
    if (mapped !== object.mapped) {
      this.#report('mapped-count', name, `${object.mapped} extents by its count, ${mapped} in its map`);
    }
  }

  /** Counts one reference; the first time also what is below. `level` 0 is a leaf, -1 references, -2 sums, null not known. */
  #reach(id: number, level: number | null): number {
    const before = this.#pages.get(id) ?? 0;
    this.#pages.set(id, before + 1);
    const known = this.#levels.get(id);
    if (known !== undefined && level !== null && known !== level) {
      this.#report('map-shape', 'pool/pages', `page ${id} stands at levels ${known} and ${level}`);
    }
    if (before > 0) return this.#mapped.get(id) ?? 0;
    const page = this.#page(id);
    if (page === null) return 0;
    const found = level ?? (page.type === 'leaf' ? 0 : this.#levelOf(page));
    this.#levels.set(id, found);
    const expected = found > 0 ? 'inner' : present(TABLES[-found], `level ${found} is of a table`);
    if (page.type !== expected) {
      this.#report('map-shape', 'pool/pages', `page ${id} is of type ${page.type}, not ${expected}`);
      return 0;
    }
    if (found < 0) return 0;
    const mapped = found === 0 ? this.#walkLeaf(page) : this.#walkInner(page, found);
    this.#mapped.set(id, mapped);
    return mapped;
  }

  /** Of a page of the drop list: its object, and with it the height, is gone. */
  #levelOf(page: Page): number {
    for (const child of page.words) {
      if (child === 0) continue;
      const below = this.#page(child);
      if (below !== null) return 1 + (below.type === 'inner' ? this.#levelOf(below) : 0);
    }
    return 1;
  }

  #walkInner(page: Page, level: number): number {
    let mapped = 0;
    for (let at = 0; at < INNER_CHILDREN; at += 1) {
      const child = page.words[at] ?? 0;
      if (child !== 0) mapped += this.#reach(child, level - 1);
    }
    return mapped;
  }

  #walkLeaf(page: Page): number {
    let mapped = 0;
    for (let position = 0; position < LEAF_ENTRIES; position += 1) {
      const extent = page.words[position * 2] ?? 0;
      const bits = page.words[position * 2 + 1] ?? 0;
      const base = page.bases[position] ?? 0;
      const mask = page.masks[position] ?? 0;
      // Most of a small volume's entries.
      if ((extent | bits | base | mask) === 0) continue;
      if (extent !== 0) {
        mapped += 1;
        this.#name(extent, page.id);
      }
      if (base !== 0) this.#name(base, page.id);
      const problem = entryProblem(extent, bits, base, mask);
      if (problem !== null) this.#report('map-entry', 'pool/pages', `entry ${position} of leaf ${page.id}: ${problem}`);
    }
    return mapped;
  }

  #name(address: number, pageId: number): void {
    const fileNumber = Math.floor(address / SLOTS_PER_FILE);
    if (!this.#state.files.has(fileNumber)) {
      this.#report(
        'map-entry',
        'pool/pages',
        `leaf ${pageId} names extent ${address} of extent file ${fileNumber}, which does not exist`,
      );
      return;
    }
    let found = this.#extents.get(fileNumber);
    if (found === undefined) {
      found = [];
      this.#extents.set(fileNumber, found);
    }
    const slot = address % SLOTS_PER_FILE;
    const index = Math.floor(slot / REFERENCES_PER_PAGE);
    let counts = found[index];
    if (counts === undefined) {
      counts = new Uint32Array(REFERENCES_PER_PAGE);
      found[index] = counts;
    }
    const at = slot % REFERENCES_PER_PAGE;
    counts[at] = (counts[at] ?? 0) + 1;
  }

  #comparePages(): void {
    for (const id of this.#state.pages.ids()) {
      const stored = this.#state.pages.references(id);
      const found = this.#pages.get(id) ?? 0;
      if (stored !== found)
        this.#report(
          'page-references',
          'pool/pages',
          `page ${id} has ${stored} references by its count, ${found} in the maps`,
        );
    }
    for (const id of this.#pages.keys()) {
      if (this.#state.pages.references(id) === 0)
        this.#report('page-references', 'pool/pages', `page ${id} is in a map and free`);
    }
  }

  #compareExtents(): void {
    for (const file of this.#state.files.values()) {
      const path = extentPath(file.fileNumber);
      const found = this.#extents.get(file.fileNumber);
      let [used, highest] = [0, -1];
      for (let index = 0; index < SLOTS_PER_FILE / REFERENCES_PER_PAGE; index += 1) {
        const id = file.references[index] ?? 0;
        const counts = found?.[index];
        if (id === 0 && counts === undefined) continue;
        const stored = (id === 0 ? null : this.#page(id))?.words ?? NO_REFERENCES;
        const should = counts ?? NO_REFERENCES;
        for (let at = 0; at < REFERENCES_PER_PAGE; at += 1) {
          const slot = index * REFERENCES_PER_PAGE + at;
          const references = should[at] ?? 0;
          if (stored[at] !== references)
            this.#report(
              'extent-references',
              path,
              `slot ${slot} has ${stored[at]} references by its count, ${references} in the maps`,
            );
          if (references > 0) {
            used += 1;
            highest = slot;
          }
        }
      }
      if (used !== file.used)
        this.#report('used-count', path, `${file.used} extents used by its count, ${used} in the maps`);
      if (used > 0) this.#checkFile(path, highest);
    }
  }

  /** Only what is referred to has a sum: bytes of a free extent change, and a sum that stayed would call them damaged. */
  #checkSums(): void {
    for (const file of this.#state.files.values()) {
      const counts = this.#extents.get(file.fileNumber) ?? [];
      for (const [index, id] of file.sums.entries()) {
        const page = id === 0 ? null : this.#page(id);
        if (page === null) continue;
        for (let at = 0; at < SUMS_PER_PAGE; at += 1) {
          const slot = index * SUMS_PER_PAGE + at;
          const count = counts[Math.floor(slot / REFERENCES_PER_PAGE)]?.[slot % REFERENCES_PER_PAGE] ?? 0;
          if (page.words[at] !== 0 && count === 0)
            this.#report('sum', extentPath(file.fileNumber), `slot ${slot} has a sum and is in no map`);
        }
      }
    }
    for (const address of this.#state.damaged) {
      const path = extentPath(Math.floor(address / SLOTS_PER_FILE));
      const slot = address % SLOTS_PER_FILE;
      if (this.#state.extentReferences(address) === 0)
        this.#report('sum', path, `slot ${slot} is marked as damaged and is in no map`);
    }
  }

  #checkFile(path: string, highestSlot: number): void {
    if (!this.#files.exists(path)) {
      this.#report('extent-file', path, 'it is missing');
      return;
    }
    const file = this.#files.open(path, 'read');
    const sizeBytes = file.size();
    file.close();
    // The last extent may have been written in part.
    if (sizeBytes <= highestSlot * EXTENT_BYTES) {
      this.#report('extent-file', path, `it has ${sizeBytes} bytes, but slot ${highestSlot} is in use`);
    }
  }
}

function entryProblem(extent: number, bits: number, base: number, mask: number): string | null {
  if (bits > ENTRY_BLOCKS_MAX) return `flags ${bits >>> 16} are set`;
  if (extent === 0 && (bits !== 0 || base !== 0 || mask !== 0)) return 'a hole with present bits or a base';
  if ((base === 0) !== (mask === 0)) return `base ${base} with base mask ${mask.toString(16)}`;
  if (extent !== 0 && bits === 0 && mask === 0) return `extent ${extent} of which nothing shows`;
  if (extent !== 0 && extent === base) return `extent ${extent} is its own base`;
  return null;
}
