/**
 * Who shows what: the volumes and snapshots, with offsets, in whose maps an extent or a page stands. Maps share pages, so each is
 * walked once. Pages that cannot be read are passed over: what is below them, nobody can say. Reads only.
 *
 * A walk is a generator that gives way before each page: who shares the thread with others pauses there.
 */

import { Failure } from '../base/errors.ts';
import { INNER_CHILDREN, type Page } from '../format/page.ts';
import { EXTENT_BYTES, LEAF_ENTRIES } from '../native/plane.ts';
import { LEAF_SPAN_BYTES, type State, type StoredObject, spanOf } from './state.ts';
import type { Place } from './volume-store.ts';

export type { Place };

export type Wanted = {
  readonly extents: ReadonlySet<number>;
  readonly pages: ReadonlySet<number>;
  /** Of one extent or page, at most. */
  readonly max: number;
};

/** Bytes, from the start of what a page covers. */
export type Range = { readonly offset: number; readonly length: number };

export type Places = { readonly extents: Map<number, Place[]>; readonly pages: Map<number, Place[]> };

/** For people: a thousand snapshots may show one extent, and nobody reads them all. */
export const PLACES_MAX = 64;

/** Something wanted, by its offset from the start of what a page covers. */
type Hit = { readonly isPage: boolean; readonly of: number } & Range;

export function* placesOf(state: State, wanted: Wanted): Generator<undefined, Places> {
  const found: Places = { extents: new Map(), pages: new Map() };
  if (wanted.extents.size === 0 && wanted.pages.size === 0) return found;
  const search = new Search(state, wanted);
  for (const object of [...state.objects.values()]) {
    // While the walk gave way it may have been deleted.
    if (object.root === 0 || !state.objects.has(object.number)) continue;
    for (const hit of yield* search.below(object.root, object.height)) put(found, object, hit, wanted.max);
  }
  return found;
}

/** For who has the thread alone. */
export function placesNow(state: State, wanted: Wanted): Places {
  const walk = placesOf(state, wanted);
  for (;;) {
    const step = walk.next();
    if (step.done === true) return step.value;
  }
}

function put(found: Places, object: StoredObject, { isPage, of, offset, length }: Hit, max: number): void {
  const { id, kind, sizeBytes } = object;
  if (offset >= sizeBytes) return;
  const target = isPage ? found.pages : found.extents;
  const list = target.get(of) ?? [];
  if (list.length < max) list.push({ kind, id, offset, length: Math.min(length, sizeBytes - offset) });
  target.set(of, list);
}

class Search {
  readonly #state: State;
  readonly #wanted: Wanted;
  /** By page id. Most pages have nothing that is wanted, and share one empty list. */
  readonly #known = new Map<number, readonly Hit[]>();
  readonly #nothing: readonly Hit[] = [];

  constructor(state: State, wanted: Wanted) {
    this.#state = state;
    this.#wanted = wanted;
  }

  *below(id: number, level: number): Generator<undefined, readonly Hit[]> {
    const known = this.#known.get(id);
    if (known !== undefined) return known;
    yield;
    const hits: Hit[] = [];
    if (this.#wanted.pages.has(id)) hits.push({ isPage: true, of: id, offset: 0, length: spanAt(level) });
    const page = this.#page(id);
    if (page?.type === 'leaf' && level === 0) this.#inLeaf(page, hits);
    if (page?.type === 'inner' && level > 0) yield* this.#inInner(page, level, hits);
    const list = hits.length === 0 ? this.#nothing : hits;
    this.#known.set(id, list);
    return list;
  }

  /** Null: it cannot be read, or is gone since somebody named it. */
  #page(id: number): Page | null {
    if (!this.#state.pages.isThere(id)) return null;
    try {
      return this.#state.pages.get(id);
    } catch (error) {
      if (error instanceof Failure) return null;
      throw error;
    }
  }

  *#inInner(page: Page, level: number, hits: Hit[]): Generator<undefined, void> {
    // It may change while its children are walked.
    const children = page.words.slice(0, INNER_CHILDREN);
    for (const [index, child] of children.entries()) {
      if (child === 0) continue;
      for (const hit of yield* this.below(child, level - 1))
        hits.push({ ...hit, offset: hit.offset + index * spanAt(level - 1) });
    }
  }

  #inLeaf(page: Page, hits: Hit[]): void {
    const { extents } = this.#wanted;
    if (extents.size === 0) return;
    for (let position = 0; position < LEAF_ENTRIES; position += 1) {
      for (const address of [page.words[position * 2] ?? 0, page.bases[position] ?? 0]) {
        if (address === 0 || !extents.has(address)) continue;
        hits.push({ isPage: false, of: address, offset: position * EXTENT_BYTES, length: EXTENT_BYTES });
      }
    }
  }
}

/** Bytes below a page; level 0 is a leaf. */
function spanAt(level: number): number {
  return level === 0 ? LEAF_SPAN_BYTES : spanOf(level);
}
