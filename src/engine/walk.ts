/**
 * One walk over all maps of a recovered state: how often each page and extent is really named, and what in the maps cannot be. Each
 * page is read once, however many maps share it. Compares with no stored count and changes nothing.
 */

import { present } from '../base/assert.ts';
import { Failure } from '../base/errors.ts';
import { INNER_CHILDREN, type Page, REFERENCES_PER_PAGE } from '../format/page.ts';
import { EXTENT_BYTES, LEAF_ENTRIES, SLOTS_PER_FILE } from '../native/plane.ts';
import type { Range } from './places.ts';
import { type State, type StoredObject, spanOf } from './state.ts';

export type Flaw = {
  readonly kind: 'damaged' | 'page-references' | 'map-shape' | 'map-entry';
  readonly path: string;
  readonly reason: string;
  /** The page at fault, and which bytes of what it covers (null: all); null: no page, or none of a map. */
  readonly at: { readonly page: number; readonly range: Range | null } | null;
};

const ENTRY_BLOCKS_MAX = 0xffff;
/** Types of pages that are not inner ones, by their level's distance from the leaves'. */
const TABLES = ['leaf', 'references', 'sums'] as const;
export const NO_COUNTS = new Uint32Array(REFERENCES_PER_PAGE);
const REFERENCES_LEVEL = -1;
const SUMS_LEVEL = -2;

export class MapWalk {
  readonly #state: State;
  readonly #onFlaw: (flaw: Flaw) => void;
  /** References found, by page id. */
  readonly references = new Map<number, number>();
  /** Levels at which a page was found; one page has one. 0 is a leaf, above are inner pages, below tables. */
  readonly levels = new Map<number, number>();
  /** Pages of maps (or the drop list) below which nothing is known: not readable, or not what their place says. */
  readonly broken = new Set<number>();
  /** The same of tables: references and sums. */
  readonly brokenTables = new Set<number>();
  /** Leaf entries that cannot be. */
  readonly entries: { readonly page: number; readonly position: number }[] = [];
  /** Extents in the map of an object, by its number; null: a part of it is not known. */
  readonly mapped = new Map<number, number | null>();
  /** How often leaf entries name each slot: by file number, and in a file by page of references. */
  readonly #extents = new Map<number, (Uint32Array | undefined)[]>();
  /** Extents in the map below a page: pages are shared, so each is walked once. */
  readonly #below = new Map<number, number | null>();

  constructor(state: State, onFlaw: (flaw: Flaw) => void) {
    this.#state = state;
    this.#onFlaw = onFlaw;
  }

  run(): this {
    for (const object of this.#state.objects.values()) this.#walkObject(object);
    for (const id of this.#state.drops) this.#reach(id, null);
    for (const file of this.#state.files.values()) {
      for (const id of file.references) if (id !== 0) this.#reach(id, REFERENCES_LEVEL);
      for (const id of file.sums) if (id !== 0) this.#reach(id, SUMS_LEVEL);
    }
    return this;
  }

  countOf(address: number): number {
    const slot = address % SLOTS_PER_FILE;
    const counts = this.countsIn(Math.floor(address / SLOTS_PER_FILE), Math.floor(slot / REFERENCES_PER_PAGE));
    return counts[slot % REFERENCES_PER_PAGE] ?? 0;
  }

  /** Of the slots that one page of references counts; NO_COUNTS itself: none of them is named. */
  countsIn(fileNumber: number, index: number): Uint32Array {
    return this.#extents.get(fileNumber)?.[index] ?? NO_COUNTS;
  }

  /** How many slots of a file are named, and the last of them; -1: none is. */
  useOf(fileNumber: number): { used: number; highestSlot: number } {
    let [used, highestSlot] = [0, -1];
    for (const [index, counts] of this.#extents.get(fileNumber)?.entries() ?? []) {
      for (let at = 0; at < (counts?.length ?? 0); at += 1) {
        if (counts?.[at] === 0) continue;
        used += 1;
        highestSlot = index * REFERENCES_PER_PAGE + at;
      }
    }
    return { used, highestSlot };
  }

  /** Null, and a flaw, when it cannot be read. */
  #page(id: number, level: number | null): Page | null {
    const at = (level ?? 0) >= 0 ? { page: id, range: null } : null;
    if (!this.#state.pages.isThere(id)) {
      this.#onFlaw({ kind: 'page-references', path: 'pool/pages', reason: `page ${id} is named and not there`, at });
      return null;
    }
    try {
      return this.#state.pages.get(id);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      const path = String(error.fields['path'] ?? 'pool/pages');
      this.#onFlaw({ kind: 'damaged', path, reason: String(error.fields['reason']), at });
      return null;
    }
  }

  #walkObject(object: StoredObject): void {
    if (spanOf(object.height) < object.sizeBytes) {
      const reason = `its map of height ${object.height} is too low for ${object.sizeBytes} bytes`;
      this.#onFlaw({ kind: 'map-shape', path: `${object.kind} ${object.id}`, reason, at: null });
    }
    this.mapped.set(object.number, object.root === 0 ? 0 : this.#reach(object.root, object.height));
  }

  /** Counts one reference; the first time also what is below. `level` null: of the drop list, not known. */
  #reach(id: number, level: number | null): number | null {
    const before = this.references.get(id) ?? 0;
    this.references.set(id, before + 1);
    const known = this.levels.get(id);
    if (known !== undefined && level !== null && known !== level) {
      this.#misplaced(id, level, `page ${id} stands at levels ${known} and ${level}`);
      return null;
    }
    if (before > 0) return this.#below.get(id) ?? null;
    const below = this.#walkPage(id, level);
    this.#below.set(id, below);
    return below;
  }

  #walkPage(id: number, level: number | null): number | null {
    const page = this.#page(id, level);
    if (page === null) {
      this.#break(id, level);
      return null;
    }
    const found = level ?? (page.type === 'leaf' ? 0 : this.#levelOf(page));
    this.levels.set(id, found);
    const expected = found > 0 ? 'inner' : present(TABLES[-found], `level ${found} is of a table`);
    if (page.type !== expected) {
      this.#misplaced(id, found, `page ${id} is of type ${page.type}, not ${expected}`);
      return null;
    }
    if (found < 0) return 0;
    return found === 0 ? this.#walkLeaf(page) : this.#walkInner(page, found);
  }

  #break(id: number, level: number | null): void {
    ((level ?? 0) < 0 ? this.brokenTables : this.broken).add(id);
  }

  #misplaced(id: number, level: number, reason: string): void {
    this.#break(id, level);
    const at = level < 0 ? null : { page: id, range: null };
    this.#onFlaw({ kind: 'map-shape', path: 'pool/pages', reason, at });
  }

  /** Of a page of the drop list: its object, and with it the height, is gone. */
  #levelOf(page: Page): number {
    for (const child of page.words) {
      if (child === 0 || !this.#state.pages.isThere(child)) continue;
      try {
        const below = this.#state.pages.get(child);
        return 1 + (below.type === 'inner' ? this.#levelOf(below) : 0);
      } catch (error) {
        // The walk will come to it and say so.
        if (!(error instanceof Failure)) throw error;
      }
    }
    return 1;
  }

  #walkInner(page: Page, level: number): number | null {
    let mapped: number | null = 0;
    for (let at = 0; at < INNER_CHILDREN; at += 1) {
      const child = page.words[at] ?? 0;
      if (child === 0) continue;
      const below = this.#reach(child, level - 1);
      mapped = mapped === null || below === null ? null : mapped + below;
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
      if (extent !== 0) mapped += 1;
      this.#count(extent);
      this.#count(base);
      const problem = entryProblem(extent, bits, base, mask) ?? this.#name(extent) ?? this.#name(base);
      if (problem === null) continue;
      this.entries.push({ page: page.id, position });
      const range = { offset: position * EXTENT_BYTES, length: EXTENT_BYTES };
      const reason = `entry ${position} of leaf ${page.id}: ${problem}`;
      this.#onFlaw({ kind: 'map-entry', path: 'pool/pages', reason, at: { page: page.id, range } });
    }
    return mapped;
  }

  #name(address: number): string | null {
    const fileNumber = Math.floor(address / SLOTS_PER_FILE);
    if (address === 0 || this.#state.files.has(fileNumber)) return null;
    return `it names extent ${address} of extent file ${fileNumber}, which does not exist`;
  }

  #count(address: number): void {
    const fileNumber = Math.floor(address / SLOTS_PER_FILE);
    if (address === 0 || !this.#state.files.has(fileNumber)) return;
    let pages = this.#extents.get(fileNumber);
    if (pages === undefined) {
      pages = [];
      this.#extents.set(fileNumber, pages);
    }
    const slot = address % SLOTS_PER_FILE;
    const index = Math.floor(slot / REFERENCES_PER_PAGE);
    const counts = pages[index] ?? new Uint32Array(REFERENCES_PER_PAGE);
    pages[index] = counts;
    const at = slot % REFERENCES_PER_PAGE;
    counts[at] = (counts[at] ?? 0) + 1;
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
