/**
 * How far a map has nothing: what a request over terabytes of holes is told instead of a leaf for each 32 MiB. It reads inner
 * pages only, and not many.
 */
import { Failure } from '../base/errors.ts';
import { INNER_CHILDREN } from '../format/page.ts';
import { EXTENT_BYTES, LEAF_ENTRIES } from '../native/plane.ts';
import type { State, StoredObject } from './state.ts';

/** Looked into per answer: a fraction of a millisecond where they have to be read. Beyond them whoever asks comes again. */
const PAGES_MAX = 16;

/** Of leaf `first`, which the map lacks, and those behind it, to the end of the size: how many are known to be missing. */
export function absentLeaves(state: State, object: StoredObject, first: number): number {
  const past = Math.max(first + 1, Math.ceil(object.sizeBytes / (EXTENT_BYTES * LEAF_ENTRIES)));
  let pagesLeft = PAGES_MAX;

  /** The first leaf below a page, not before `first`, that is there or may be; null: none. */
  const firstBelow = (id: number, level: number, start: number): number | null => {
    if (level === 0 || pagesLeft === 0) return Math.max(start, first + 1);
    pagesLeft -= 1;
    const leavesPerChild = INNER_CHILDREN ** (level - 1);
    const { words } = state.pages.get(id);
    for (let child = Math.max(0, Math.floor((first - start) / leavesPerChild)); child < INNER_CHILDREN; child += 1) {
      const childId = words[child] ?? 0;
      if (childId === 0) continue;
      const found = firstBelow(childId, level - 1, start + child * leavesPerChild);
      if (found !== null) return found;
    }
    return null;
  };
  try {
    const next = object.root === 0 ? null : firstBelow(object.root, object.height, 0);
    return Math.min(next ?? past, past) - first;
  } catch (error) {
    // A damaged page concerns those who need it: here it is the end of what is known.
    if (error instanceof Failure) return 1;
    throw error;
  }
}
