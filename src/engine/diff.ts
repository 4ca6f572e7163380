/**
 * What a map holds, and what differs between two: by comparing pages, without reading data. Pages that both maps share are
 * skipped whole, so the cost follows the change, not the size.
 */

import { INNER_CHILDREN, type Page } from '../format/page.ts';
import { BLOCK_BYTES, EXTENT_BYTES, LEAF_ENTRIES } from '../native/plane.ts';
import type { State, StoredObject } from './state.ts';
import type { ByteRange } from './volume-store.ts';

/** What an entry shows. */
type View = { readonly extent: number; readonly present: number; readonly base: number; readonly mask: number };

const HOLE: View = { extent: 0, present: 0, base: 0, mask: 0 };
const ALL_BLOCKS = 0xffff;

function viewOf(leaf: Page | null, position: number): View {
  if (leaf === null) return HOLE;
  const present = (leaf.words[position * 2 + 1] ?? 0) & 0xffff;
  return {
    extent: leaf.words[position * 2] ?? 0,
    present,
    base: leaf.bases[position] ?? 0,
    // The extent's own blocks come first.
    mask: (leaf.masks[position] ?? 0) & ~present,
  };
}

/** Adjacent ranges of one kind become one. */
class Ranges {
  readonly list: ByteRange[] = [];
  readonly #endBytes: number;

  constructor(endBytes: number) {
    this.#endBytes = endBytes;
  }

  add(offset: number, lengthWanted: number, kind: 'data' | 'hole'): void {
    const length = Math.min(lengthWanted, this.#endBytes - offset);
    if (length <= 0) return;
    const last = this.list.at(-1);
    if (last !== undefined && last.kind === kind && last.offset + last.length === offset) {
      this.list[this.list.length - 1] = { offset: last.offset, length: last.length + length, kind };
    } else this.list.push({ offset, length, kind });
  }

  /** Blocks of one extent, by masks of 16 bits. */
  addBlocks(offset: number, wanted: number, data: number): void {
    if (wanted === 0) return;
    for (let block = 0; block < 16; block += 1) {
      if (((wanted >> block) & 1) === 0) continue;
      this.add(offset + block * BLOCK_BYTES, BLOCK_BYTES, ((data >> block) & 1) === 1 ? 'data' : 'hole');
    }
  }
}

/** Data and holes over the whole size. */
export function mapOf(state: State, object: StoredObject): ByteRange[] {
  const ranges = new Ranges(object.sizeBytes);
  let at = 0;
  visit(state, null, object, (index, _from, to) => {
    const offset = index * EXTENT_BYTES;
    if (offset > at) ranges.add(at, offset - at, 'hole');
    ranges.addBlocks(offset, ALL_BLOCKS, to.present | to.mask);
    at = offset + EXTENT_BYTES;
  });
  ranges.add(at, object.sizeBytes - at, 'hole');
  return ranges.list;
}

/** What has to be copied (data) or cleared (hole) to make `from` look like `to`; null: from nothing. */
export function diffOf(state: State, from: StoredObject | null, to: StoredObject): ByteRange[] {
  const ranges = new Ranges(to.sizeBytes);
  visit(state, from, to, (index, before, after) => {
    ranges.addBlocks(index * EXTENT_BYTES, changedBlocks(before, after), after.present | after.mask);
  });
  return ranges.list;
}

/** A part of a long comparison: `nextLeaf` is where to go on, null at the end. */
export type DiffPart = { readonly ranges: ByteRange[]; readonly nextLeaf: number | null };

/** The same from a leaf on, comparing so many leaves at most: for whoever must not keep the thread for long. */
export function diffPart(
  state: State,
  objects: { readonly from: StoredObject; readonly to: StoredObject },
  slice: { readonly firstLeaf: number; readonly leavesMax: number },
): DiffPart {
  const { from, to } = objects;
  const ranges = new Ranges(to.sizeBytes);
  const window: Window = { firstLeaf: slice.firstLeaf, leavesLeft: slice.leavesMax, nextLeaf: null };
  const each: Visitor = (index, before, after) => {
    ranges.addBlocks(index * EXTENT_BYTES, changedBlocks(before, after), after.present | after.mask);
  };
  visit(state, from, to, each, window);
  return { ranges: ranges.list, nextLeaf: window.nextLeaf };
}

/** Blocks whose bytes come from another place than before, unless both are zeros. */
function changedBlocks(before: View, after: View): number {
  let same = ~(before.present | before.mask) & ~(after.present | after.mask);
  for (const [extent, blocks] of [
    [before.extent, before.present],
    [before.base, before.mask],
  ] as const) {
    if (extent === 0) continue;
    if (extent === after.extent) same |= blocks & after.present;
    if (extent === after.base) same |= blocks & after.mask;
  }
  return ~same & ALL_BLOCKS;
}

type Visitor = (index: number, from: View, to: View) => void;

/** Which leaves a visit is about, and where it had to stop. */
type Window = { readonly firstLeaf: number; leavesLeft: number; nextLeaf: number | null };

/** Every entry that is not the same page in both, and not a hole in both, in ascending order. */
function visit(
  state: State,
  from: StoredObject | null,
  to: StoredObject,
  each: Visitor,
  window: Window = { firstLeaf: 0, leavesLeft: Number.POSITIVE_INFINITY, nextLeaf: null },
): void {
  const height = Math.max(from?.height ?? 0, to.height);
  const descend = (
    fromId: number,
    fromHeight: number,
    toId: number,
    toHeight: number,
    level: number,
    firstLeaf: number,
  ): void => {
    if (fromId === toId && fromHeight === toHeight) return;
    if (window.nextLeaf !== null || firstLeaf + INNER_CHILDREN ** level <= window.firstLeaf) return;
    if (level === 0) {
      if (window.leavesLeft === 0) window.nextLeaf = firstLeaf;
      else visitLeaf(state, fromId, toId, firstLeaf, each);
      window.leavesLeft -= 1;
      return;
    }
    const leavesPerChild = INNER_CHILDREN ** (level - 1);
    const fromChild = childrenOf(state, fromId, fromHeight, level);
    const toChild = childrenOf(state, toId, toHeight, level);
    for (let child = 0; child < INNER_CHILDREN; child += 1) {
      const [nextFrom, nextTo] = [fromChild(child), toChild(child)];
      if (nextFrom === 0 && nextTo === 0) continue;
      const lower = level - 1;
      descend(
        nextFrom,
        Math.min(fromHeight, lower),
        nextTo,
        Math.min(toHeight, lower),
        lower,
        firstLeaf + child * leavesPerChild,
      );
    }
  };
  descend(from?.root ?? 0, from?.height ?? height, to.root, to.height, height, 0);
}

/** Children at a level, of a tree that may be lower than that: then it is all below the first child. */
function childrenOf(state: State, id: number, height: number, level: number): (child: number) => number {
  if (id === 0) return () => 0;
  if (height < level) return (child) => (child === 0 ? id : 0);
  const { words } = state.pages.get(id);
  return (child) => words[child] ?? 0;
}

function visitLeaf(state: State, fromId: number, toId: number, leafIndex: number, each: Visitor): void {
  const fromLeaf = fromId === 0 ? null : state.pages.get(fromId);
  const toLeaf = toId === 0 ? null : state.pages.get(toId);
  for (let position = 0; position < LEAF_ENTRIES; position += 1) {
    const [before, after] = [viewOf(fromLeaf, position), viewOf(toLeaf, position)];
    if (before.extent === 0 && after.extent === 0) continue;
    each(leafIndex * LEAF_ENTRIES + position, before, after);
  }
}
