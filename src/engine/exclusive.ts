/**
 * What deleting one volume or snapshot would free: a dry run of its drop. Only pages that nobody else refers to are walked, so
 * the cost follows the answer, not the size. Changes nothing, and remembers nothing (figures.ts does).
 *
 * An extent is named at one index of a map only, and there by one entry, so of its references one object has at most one: what
 * has a single reference goes with the object, whatever has more stays.
 */

import { INNER_CHILDREN, type Page } from '../format/page.ts';
import { LEAF_ENTRIES } from '../native/plane.ts';
import type { State, StoredObject } from './state.ts';

/** Extents that only the object holds: those its entries name first, and those that stand behind them as bases. */
export type Exclusive = { readonly mapped: number; readonly bases: number };

/** A part of a walk: `nextLeaf` is where to go on, null at the end. */
export type ExclusivePart = Exclusive & { readonly nextLeaf: number | null; readonly pages: number };

class Walk {
  readonly #state: State;
  readonly #firstLeaf: number;
  readonly #pagesMax: number;
  pages = 0;
  mapped = 0;
  bases = 0;
  nextLeaf: number | null = null;

  constructor(state: State, { firstLeaf, pagesMax }: { firstLeaf: number; pagesMax: number }) {
    this.#state = state;
    this.#firstLeaf = firstLeaf;
    this.#pagesMax = pagesMax;
  }

  descend(id: number, level: number, firstLeaf: number): void {
    if (id === 0 || this.nextLeaf !== null || firstLeaf + INNER_CHILDREN ** level <= this.#firstLeaf) return;
    if (this.#state.pages.references(id) > 1) return;
    // The way down to where the last part ended is not counted: each part gets on.
    if (firstLeaf >= this.#firstLeaf) {
      if (this.pages >= this.#pagesMax) {
        this.nextLeaf = firstLeaf;
        return;
      }
      this.pages += 1;
    }
    const page = this.#state.pages.get(id);
    if (level === 0) return this.#leaf(page);
    const leavesPerChild = INNER_CHILDREN ** (level - 1);
    for (let child = 0; child < INNER_CHILDREN && this.nextLeaf === null; child += 1)
      this.descend(page.words[child] ?? 0, level - 1, firstLeaf + child * leavesPerChild);
  }

  #leaf({ words, bases }: Page): void {
    for (let position = 0; position < LEAF_ENTRIES; position += 1) {
      const extent = words[position * 2] ?? 0;
      if (extent === 0) continue;
      if (this.#state.extentReferences(extent) === 1) this.mapped += 1;
      const base = bases[position] ?? 0;
      if (base !== 0 && this.#state.extentReferences(base) === 1) this.bases += 1;
    }
  }
}

/** From a leaf on, with so many pages at most: for whoever must not keep the thread for long. Fails with `corrupt`. */
export function exclusivePart(
  state: State,
  object: StoredObject,
  slice: { readonly firstLeaf: number; readonly pagesMax: number },
): ExclusivePart {
  const walk = new Walk(state, slice);
  walk.descend(object.root, object.height, 0);
  const { mapped, bases, nextLeaf, pages } = walk;
  return { mapped, bases, nextLeaf, pages };
}
