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
export type WalkPart = { readonly nextLeaf: number | null; readonly pages: number };
export type ExclusivePart = Exclusive & WalkPart;

type Slice = { readonly firstLeaf: number; readonly pagesMax: number };

class Walk {
  readonly #state: State;
  readonly #slice: Slice;
  readonly #each: (leaf: Page, leafIndex: number) => void;
  pages = 0;
  nextLeaf: number | null = null;

  constructor(state: State, slice: Slice, each: (leaf: Page, leafIndex: number) => void) {
    this.#state = state;
    this.#slice = slice;
    this.#each = each;
  }

  descend(id: number, level: number, leafIndex: number): void {
    const { firstLeaf, pagesMax } = this.#slice;
    if (id === 0 || this.nextLeaf !== null || leafIndex + INNER_CHILDREN ** level <= firstLeaf) return;
    if (this.#state.pages.references(id) > 1) return;
    // The way down to where the last part ended is not counted: each part gets on.
    if (leafIndex >= firstLeaf) {
      if (this.pages >= pagesMax) {
        this.nextLeaf = leafIndex;
        return;
      }
      this.pages += 1;
    }
    const page = this.#state.pages.get(id);
    if (level === 0) return this.#each(page, leafIndex);
    const leavesPerChild = INNER_CHILDREN ** (level - 1);
    for (let child = 0; child < INNER_CHILDREN && this.nextLeaf === null; child += 1)
      this.descend(page.words[child] ?? 0, level - 1, leafIndex + child * leavesPerChild);
  }
}

/**
 * The leaves that only this object has, from one on, looking at so many pages at most: for whoever must not keep the thread for
 * long. Fails with `corrupt`.
 */
export function walkExclusive(
  state: State,
  object: StoredObject,
  slice: Slice,
  each: (leaf: Page, leafIndex: number) => void,
): WalkPart {
  const walk = new Walk(state, slice, each);
  walk.descend(object.root, object.height, 0);
  return { nextLeaf: walk.nextLeaf, pages: walk.pages };
}

/** The extents in them that would go. */
export function exclusivePart(state: State, object: StoredObject, slice: Slice): ExclusivePart {
  let [mapped, bases] = [0, 0];
  const part = walkExclusive(state, object, slice, (leaf) => {
    for (let position = 0; position < LEAF_ENTRIES; position += 1) {
      const extent = leaf.words[position * 2] ?? 0;
      if (extent === 0) continue;
      if (state.extentReferences(extent) === 1) mapped += 1;
      const base = leaf.bases[position] ?? 0;
      if (base !== 0 && state.extentReferences(base) === 1) bases += 1;
    }
  });
  return { mapped, bases, ...part };
}
