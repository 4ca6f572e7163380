/**
 * Who shows an extent, or has a page in its map: volumes and snapshots with offsets. Maps share pages, so each page is walked once,
 * a slice per turn; what changes meanwhile may or may not be in the answer. Pages that cannot be read are passed over.
 */
import type { Clock } from '../base/clock.ts';
import { Failure } from '../base/errors.ts';
import { INNER_CHILDREN, type Page } from '../format/page.ts';
import { EXTENT_BYTES, LEAF_ENTRIES } from '../native/plane.ts';
import { LEAF_SPAN_BYTES, type State, type StoredObject, spanOf } from './state.ts';
import type { Shown } from './volume-store.ts';

/** Read and walked in one turn: a few milliseconds. */
const PAGES_PER_TURN = 32;
/** Of one extent or page: a thousand snapshots may show it, and nobody reads them all. */
export const SHOWN_MAX = 64;

export type Wanted = { readonly extents: ReadonlySet<number>; readonly pages: ReadonlySet<number> };

/** Something wanted, at an offset in bytes from the start of what a page covers. */
type Hit = { readonly of: number; readonly isPage: boolean; readonly offset: number; readonly length: number };

/** By address of an extent (`extents`) and by id of a page (`pages`). */
export type Found = { readonly extents: Map<number, Shown[]>; readonly pages: Map<number, Shown[]> };

export async function whoShows(parts: { state: State; clock: Clock }, wanted: Wanted): Promise<Found> {
  const search = new Search(parts.state, parts.clock, wanted);
  const found: Found = { extents: new Map(), pages: new Map() };
  for (const object of [...parts.state.objects.values()]) {
    if (!parts.state.objects.has(object.number) || object.root === 0) continue;
    for (const hit of await search.below(object.root, object.height)) put(found, object, hit);
  }
  return found;
}

function put(found: Found, { id, kind, sizeBytes }: StoredObject, { of, isPage, offset, length }: Hit): void {
  if (offset >= sizeBytes) return;
  const target = isPage ? found.pages : found.extents;
  const list = target.get(of) ?? [];
  if (list.length < SHOWN_MAX) list.push({ id, kind, offset, length: Math.min(length, sizeBytes - offset) });
  target.set(of, list);
}

class Search {
  readonly #state: State;
  readonly #clock: Clock;
  readonly #wanted: Wanted;
  /** By page id: maps share pages. */
  readonly #known = new Map<number, readonly Hit[]>();
  #walked = 0;

  constructor(state: State, clock: Clock, wanted: Wanted) {
    this.#state = state;
    this.#clock = clock;
    this.#wanted = wanted;
  }

  async below(id: number, level: number): Promise<readonly Hit[]> {
    const known = this.#known.get(id);
    if (known !== undefined) return known;
    const hits: Hit[] = [];
    if (this.#wanted.pages.has(id)) hits.push({ of: id, isPage: true, offset: 0, length: spanAt(level) });
    const page = await this.#page(id);
    if (page?.type === 'leaf') this.#inLeaf(page, hits);
    else if (page !== null) await this.#inInner(page, level, hits);
    this.#known.set(id, hits);
    return hits;
  }

  /** Null: it cannot be read, or is gone since somebody named it. */
  async #page(id: number): Promise<Page | null> {
    this.#walked += 1;
    if (this.#walked % PAGES_PER_TURN === 0) await this.#clock.pause();
    if (this.#state.pages.references(id) === 0) return null;
    try {
      return this.#state.pages.get(id);
    } catch (error) {
      if (error instanceof Failure) return null;
      throw error;
    }
  }

  async #inInner(page: Page, level: number, hits: Hit[]): Promise<void> {
    // It may change while its children are walked.
    const children = page.words.slice(0, INNER_CHILDREN);
    for (const [index, child] of children.entries()) {
      if (child === 0) continue;
      for (const hit of await this.below(child, level - 1))
        hits.push({ ...hit, offset: hit.offset + index * spanAt(level - 1) });
    }
  }

  #inLeaf(page: Page, hits: Hit[]): void {
    const { extents } = this.#wanted;
    if (extents.size === 0) return;
    for (let position = 0; position < LEAF_ENTRIES; position += 1) {
      for (const address of [page.words[position * 2] ?? 0, page.bases[position] ?? 0]) {
        if (address === 0 || !extents.has(address)) continue;
        hits.push({ of: address, isPage: false, offset: position * EXTENT_BYTES, length: EXTENT_BYTES });
      }
    }
  }
}

/** Bytes below a page: level 0 is a leaf. */
function spanAt(level: number): number {
  return level === 0 ? LEAF_SPAN_BYTES : spanOf(level);
}
