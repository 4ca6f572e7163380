/**
 * Which extents are free to grant. A file's slots are looked up when somebody first needs one of them; then they are kept
 * as bits. Free means: no reference, not granted, not waiting in limbo, not being punched. Records nothing.
 */

import { assert, present } from '../base/assert.ts';
import { Failure } from '../base/errors.ts';
import { REFERENCES_PER_PAGE } from '../format/page.ts';
import { SLOTS_PER_FILE } from '../native/plane.ts';
import type { State, StoredFile } from './state.ts';

export type Run = { readonly fileNumber: number; readonly firstSlot: number; readonly count: number };

/** 4 MiB: whoever writes to the file waits while it is punched, for half a minute once where 256 MiB went in one piece. */
const PUNCH_EXTENTS_MAX = 64;

type FileSlots = {
  /** 1: taken, for whatever reason. */
  readonly taken: Uint8Array;
  /** 1: free, but the filesystem may still hold space for it. */
  readonly unpunched: Uint8Array;
  unpunchedCount: number;
  free: number;
  /** Granted or in limbo: while there are any the file stays. */
  held: number;
  /** Where the next search begins. */
  cursor: number;
};

export class Allocator {
  readonly #state: State;
  readonly #files = new Map<number, FileSlots>();
  readonly #byOwner = new Map<number, Set<number>>();

  constructor(state: State) {
    this.#state = state;
    for (const file of state.files.values()) this.addFile(file);
  }

  addFile(file: StoredFile): void {
    const owned = this.#byOwner.get(file.owner);
    if (owned === undefined) this.#byOwner.set(file.owner, new Set([file.fileNumber]));
    else owned.add(file.fileNumber);
  }

  removeFile(file: StoredFile): void {
    this.#files.delete(file.fileNumber);
    const owned = this.#byOwner.get(file.owner);
    owned?.delete(file.fileNumber);
    if (owned?.size === 0) this.#byOwner.delete(file.owner);
  }

  filesOf(owner: number): Iterable<number> {
    return this.#byOwner.get(owner) ?? [];
  }

  #slots(fileNumber: number): FileSlots {
    const known = this.#files.get(fileNumber);
    if (known !== undefined) return known;
    const file = present(this.#state.files.get(fileNumber), `extent file ${fileNumber} exists`);
    const taken = new Uint8Array(SLOTS_PER_FILE);
    let free = SLOTS_PER_FILE;
    if (file.used > 0) {
      for (let slot = 0; slot < SLOTS_PER_FILE; slot += REFERENCES_PER_PAGE)
        free -= this.#lookUp(fileNumber, slot, taken);
    }
    const slots = { taken, unpunched: new Uint8Array(SLOTS_PER_FILE), unpunchedCount: 0, free, held: 0, cursor: 0 };
    this.#files.set(fileNumber, slots);
    return slots;
  }

  /** Marks the slots in use of one page of references; how many. Of a page that cannot be read nothing is given away. */
  #lookUp(fileNumber: number, firstSlot: number, taken: Uint8Array): number {
    let count = 0;
    try {
      for (let slot = firstSlot; slot < firstSlot + REFERENCES_PER_PAGE; slot += 1) {
        if (this.#state.extentReferences(fileNumber * SLOTS_PER_FILE + slot) === 0) continue;
        taken[slot] = 1;
        count += 1;
      }
      return count;
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      taken.fill(1, firstSlot, firstSlot + REFERENCES_PER_PAGE);
      return REFERENCES_PER_PAGE;
    }
  }

  /** A run of at most `wanted` free slots in a file of this owner, now taken; null when they are all full. */
  take(owner: number, wanted: number): Run | null {
    for (const fileNumber of this.filesOf(owner)) {
      const file = present(this.#state.files.get(fileNumber), `extent file ${fileNumber} exists`);
      // A file that was never looked at and is full by its count need not be looked at now.
      if (file.used === SLOTS_PER_FILE) continue;
      const slots = this.#slots(fileNumber);
      if (slots.free === 0) continue;
      return this.#takeRun(fileNumber, slots, wanted);
    }
    return null;
  }

  #takeRun(fileNumber: number, slots: FileSlots, wanted: number): Run {
    let first = slots.taken.indexOf(0, slots.cursor);
    if (first < 0) first = slots.taken.indexOf(0);
    assert(first >= 0, `extent file ${fileNumber} has a free slot`);
    let count = 0;
    while (count < wanted && first + count < SLOTS_PER_FILE && slots.taken[first + count] === 0) {
      const slot = first + count;
      slots.taken[slot] = 1;
      if (slots.unpunched[slot] === 1) {
        slots.unpunched[slot] = 0;
        slots.unpunchedCount -= 1;
      }
      count += 1;
    }
    slots.free -= count;
    slots.held += count;
    slots.cursor = first + count;
    return { fileNumber, firstSlot: first, count };
  }

  /** A held extent became referenced: it is taken, but no longer held. */
  landed(address: number): void {
    const slots = this.#files.get(Math.floor(address / SLOTS_PER_FILE));
    if (slots !== undefined) slots.held -= 1;
  }

  /** A referenced extent lost its last reference: held until `release`. */
  freed(address: number): void {
    const slots = this.#slots(Math.floor(address / SLOTS_PER_FILE));
    // The references were looked up after they had gone to 0, if this was the first look.
    if (slots.taken[address % SLOTS_PER_FILE] === 0) {
      slots.taken[address % SLOTS_PER_FILE] = 1;
      slots.free -= 1;
    }
    slots.held += 1;
  }

  /** A held extent is free. `isDirty`: the filesystem holds space for it. */
  release(address: number, isDirty: boolean): void {
    const slots = this.#slots(Math.floor(address / SLOTS_PER_FILE));
    const slot = address % SLOTS_PER_FILE;
    assert(slots.taken[slot] === 1, `extent ${address} was taken`);
    slots.taken[slot] = 0;
    slots.free += 1;
    slots.held -= 1;
    if (slot < slots.cursor && !isDirty) slots.cursor = slot;
    if (isDirty) {
      slots.unpunched[slot] = 1;
      slots.unpunchedCount += 1;
    }
  }

  isHeld(fileNumber: number): boolean {
    return (this.#files.get(fileNumber)?.held ?? 0) > 0;
  }

  /** Free extents that may still take space in the filesystem. */
  get unpunchedExtents(): number {
    let total = 0;
    for (const slots of this.#files.values()) total += slots.unpunchedCount;
    return total;
  }

  /** Treats every free slot of a file as one that may still take space: who used it before the last start is not known. */
  examine(fileNumber: number): void {
    const slots = this.#slots(fileNumber);
    for (let slot = 0; slot < SLOTS_PER_FILE; slot += 1) {
      if (slots.taken[slot] === 1 || slots.unpunched[slot] === 1) continue;
      slots.unpunched[slot] = 1;
      slots.unpunchedCount += 1;
    }
  }

  /** A run of free slots worth giving back, now held (end with `release`, not dirty); null when there is none. */
  takeUnpunched(countMin: number): Run | null {
    for (const [fileNumber, slots] of this.#files) {
      if (slots.unpunchedCount < countMin || slots.unpunchedCount === 0) continue;
      const found = findRun(slots.unpunched, countMin);
      if (found === null) continue;
      const run = { first: found.first, count: Math.min(found.count, PUNCH_EXTENTS_MAX) };
      for (let slot = run.first; slot < run.first + run.count; slot += 1) {
        slots.unpunched[slot] = 0;
        slots.taken[slot] = 1;
      }
      slots.unpunchedCount -= run.count;
      slots.free -= run.count;
      slots.held += run.count;
      return { fileNumber, firstSlot: run.first, count: run.count };
    }
    return null;
  }
}

function findRun(bits: Uint8Array, countMin: number): { first: number; count: number } | null {
  for (let first = bits.indexOf(1); first >= 0; ) {
    const past = bits.indexOf(0, first);
    const end = past < 0 ? bits.length : past;
    if (end - first >= countMin) return { first, count: end - first };
    first = bits.indexOf(1, end);
  }
  return null;
}
