/**
 * Bases that only one entry still needs are let go: its blocks are copied out of the base in the background, by the plane, and the
 * base's extent becomes free. So a snapshot's deletion gives back what was its own even where a few blocks of each extent were left. Decides
 * which entries and how many a second; how one is filled, and that no client notices, is the plane's business.
 */

import { Failure } from '../base/errors.ts';
import { EXTENT_BYTES, LEAF_ENTRIES, type Plane } from '../native/plane.ts';
import { walkExclusive } from './exclusive.ts';
import type { Exports, Opened } from './exports.ts';
import type { State } from './state.ts';

/** Walked in one tick: a few milliseconds when they have to be read. */
const PAGES_PER_TICK = 64;
/** What was asked for and not done (its leaf was not there, or a snapshot came in between) is looked for again so often. */
const PASSES_MAX = 4;

/** What is left of a tick. */
type Budget = { pages: number; entries: number };
type Due = { firstLeaf: number; passes: number; hasFound: boolean; isWantedAgain: boolean; pending: number[] };

export class Filler {
  readonly #plane: Plane;
  readonly #state: State;
  readonly #exports: Exports;
  readonly #entriesPerTick: number;
  /** By number, the volumes that may have entries to fill. */
  readonly #due = new Map<number, Due>();

  constructor(parts: { plane: Plane; state: State; exports: Exports; bytesPerTick: number }) {
    this.#plane = parts.plane;
    this.#state = parts.state;
    this.#exports = parts.exports;
    this.#entriesPerTick = Math.floor(parts.bytesPerTick / EXTENT_BYTES);
    this.look(parts.state.objects.keys());
  }

  /** Something was deleted that may have shared extents with these. */
  look(numbers: Iterable<number>): void {
    if (this.#entriesPerTick === 0) return;
    for (const number of numbers) {
      if (this.#state.objects.get(number)?.kind !== 'volume') continue;
      const known = this.#due.get(number);
      // A pass goes on to its end, and one more follows: who deletes all the time must not keep it at the beginning.
      if (known !== undefined) known.isWantedAgain = true;
      else this.#due.set(number, { firstLeaf: 0, passes: 0, hasFound: false, isWantedAgain: false, pending: [] });
    }
  }

  /** A bounded part of the work, the volumes in turns. Only what the plane serves: the rest takes no more space than before. */
  tick(): void {
    const budget = { pages: PAGES_PER_TICK, entries: this.#entriesPerTick };
    for (const [number, due] of [...this.#due]) {
      if (budget.pages <= 0 || budget.entries <= 0) return;
      const object = this.#state.objects.get(number);
      const opened = object === undefined ? undefined : this.#exports.of(object);
      if (object === undefined) this.#due.delete(number);
      else if (opened !== undefined && opened.failure === null && opened.freezing === 0)
        this.#fill(opened, due, budget);
    }
  }

  #fill(opened: Opened, due: Due, budget: Budget): void {
    const { number } = opened.object;
    this.#due.delete(number);
    try {
      if (due.pending.length === 0) this.#search(opened, due, budget);
    } catch (error) {
      // A damaged page: whoever needs it is told.
      if (error instanceof Failure) return;
      throw error;
    }
    const next = due.pending.slice(0, budget.entries);
    if (next.length > 0 && this.#plane.fill(opened.handle, next)) {
      due.pending.splice(0, next.length);
      budget.entries -= next.length;
    }
    if (due.pending.length === 0 && due.firstLeaf === 0 && !this.#isAgain(opened, due)) return;
    // Behind the others.
    this.#due.set(number, due);
  }

  /** At the end of a pass. */
  #isAgain({ handle }: Opened, due: Due): boolean {
    if (due.isWantedAgain) {
      due.isWantedAgain = false;
      due.passes = 0;
      return true;
    }
    due.passes += 1;
    if (!due.hasFound || due.passes >= PASSES_MAX) return false;
    due.hasFound = false;
    // The plane may still take for shared what by now is one volume's own: a leaf loaded again knows.
    this.#plane.dropLeaves(handle);
    return true;
  }

  /** From where the last search ended; at the end from the start again. */
  #search({ object }: Opened, due: Due, budget: Budget): void {
    const slice = { firstLeaf: due.firstLeaf, pagesMax: budget.pages };
    const { nextLeaf, pages } = walkExclusive(this.#state, object, slice, ({ words, bases }, leafIndex) => {
      for (let position = 0; position < LEAF_ENTRIES; position += 1) {
        const base = bases[position] ?? 0;
        if (base === 0 || this.#state.extentReferences(base) > 1) continue;
        if (this.#state.extentReferences(words[position * 2] ?? 0) === 1)
          due.pending.push(leafIndex * LEAF_ENTRIES + position);
      }
    });
    budget.pages -= Math.max(1, pages);
    due.firstLeaf = nextLeaf ?? 0;
    if (due.pending.length > 0) due.hasFound = true;
  }
}
