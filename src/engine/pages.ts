/**
 * Pages by id: their references, their slots on disk, and the ones in memory. Copy-on-write at checkpoints: a dirty page
 * goes to a new slot, and a page that belongs to a running checkpoint is written before it is changed again.
 *
 * Invariants: a slot that the last durable root names is not written; a page with changes stays in memory until a checkpoint
 * has written it; ids are given lowest first, so that recovery gives the same ones.
 */

import { assert, present } from '../base/assert.ts';
import { Failure } from '../base/errors.ts';
import { isDiskError, isOutOfSpace, type OpenFile } from '../base/files.ts';
import { newPage, openPage, type Page, type PageType, SLOT_BYTES, sealPage } from '../format/page.ts';

const INITIAL_IDS = 1024;
export const PAGES_PATH = 'pool/pages';

type Resident = {
  page: Page;
  isDirty: boolean /** Slot of the running checkpoint, while not written there; else 0. */;
  pendingSlot: number;
  lastUse: number;
};

export type PageTable = { readonly slots: Uint32Array; readonly references: Uint32Array };

export class Pages {
  readonly #file: OpenFile;
  readonly #cleanMax: number;
  #slots: Uint32Array;
  #references: Uint32Array;
  /** Ids from here on were never used. Id 0 means "none". */
  #past = 1;
  /** No id below is free. */
  #lowestFree = 1;
  readonly #resident = new Map<number, Resident>();
  readonly #dirty = new Set<number>();
  #pending: Resident[] = [];
  #generation = 0;
  #uses = 0;
  #isHolding = false;

  #usedSlots = new Uint8Array(INITIAL_IDS);
  #lowestFreeSlot = 1;
  /** Named by the last durable root or the running checkpoint, not by the state of now. */
  #retired: number[] = [];
  #retiring: number[] = [];

  constructor(file: OpenFile, table: PageTable | null, options: { cleanMax: number; generation: number }) {
    this.#file = file;
    this.#cleanMax = options.cleanMax;
    this.#generation = options.generation;
    const count = Math.max(table?.slots.length ?? 1, 1);
    this.#slots = grown(table?.slots ?? new Uint32Array(1), Math.max(count, INITIAL_IDS));
    this.#references = grown(table?.references ?? new Uint32Array(1), Math.max(count, INITIAL_IDS));
    this.#past = count;
    for (let id = 1; id < count; id += 1) {
      const slot = this.#slots[id] ?? 0;
      if (slot !== 0) this.#takeSlot(slot);
    }
  }

  /** Ids in use, for checks and statistics. */
  *ids(): IterableIterator<number> {
    for (let id = 1; id < this.#past; id += 1) if ((this.#references[id] ?? 0) > 0) yield id;
  }

  get dirtyCount(): number {
    return this.#dirty.size;
  }

  /** Bytes of the file that hold something. */
  get usedBytes(): number {
    let used = 0;
    for (const slot of this.#usedSlots) used += slot;
    return used * SLOT_BYTES;
  }

  references(id: number): number {
    return this.#references[id] ?? 0;
  }

  /** In use, and somewhere to be read from; whether it can be, `get` says. */
  isThere(id: number): boolean {
    return this.references(id) > 0 && (this.#resident.has(id) || (this.#slots[id] ?? 0) !== 0);
  }

  addReference(id: number): void {
    assert(this.references(id) > 0, 'a page that gets a reference is in use');
    this.#references[id] = this.references(id) + 1;
  }

  /** Takes one reference of several; the last one goes with `free`. */
  dropReference(id: number): void {
    assert(this.references(id) > 1, 'a page that keeps living has more than one reference');
    this.#references[id] = this.references(id) - 1;
  }

  create(type: PageType, owner: number): Page {
    let id = this.#lowestFree;
    while (id < this.#past && this.references(id) > 0) id += 1;
    this.#lowestFree = id + 1;
    if (id >= this.#past) this.#past = id + 1;
    if (id >= this.#references.length) {
      this.#slots = grown(this.#slots, id * 2);
      this.#references = grown(this.#references, id * 2);
    }
    this.#references[id] = 1;
    this.#slots[id] = 0;
    const page = newPage(id, type, owner);
    this.#resident.set(id, { page, isDirty: true, pendingSlot: 0, lastUse: this.#use() });
    this.#dirty.add(id);
    return page;
  }

  /** A copy under a new id with one reference; the original keeps its own. */
  copy(id: number, owner: number): Page {
    const source = this.get(id);
    const target = this.create(source.type, owner);
    target.bytes.set(source.bytes);
    return target;
  }

  free(id: number): void {
    assert(this.references(id) === 1, 'a page that is freed has one reference');
    this.#references[id] = 0;
    if (id < this.#lowestFree) this.#lowestFree = id;
    const slot = this.#slots[id] ?? 0;
    if (slot !== 0) this.#retired.push(slot);
    this.#slots[id] = 0;
    // If a running checkpoint needs it, `#pending` still holds it.
    this.#resident.delete(id);
    this.#dirty.delete(id);
  }

  // ---- repairs ---------------------------------------------------------------------------------------------------------

  /** Ids that count as free and yet have a slot: in a right table there are none. */
  strays(): number[] {
    const found: number[] = [];
    for (let id = 1; id < this.#past; id += 1)
      if (this.references(id) === 0 && (this.#slots[id] ?? 0) !== 0) found.push(id);
    return found;
  }

  /** As many as the maps say, whatever the table said; 0 frees it. */
  setReferences(id: number, count: number): void {
    this.#references[id] = Math.max(count, 1);
    if (count === 0) this.free(id);
  }

  /** Slots that another root on the disk names: not written either before the next root is durable. */
  keepSlots(slots: Uint32Array): void {
    for (const slot of slots) {
      if (slot === 0 || this.#usedSlots[slot] === 1) continue;
      this.#takeSlot(slot);
      this.#retired.push(slot);
    }
  }

  /** For reading. Fails with `corrupt`. */
  get(id: number): Page {
    return this.#get(id).page;
  }

  /** For changing. */
  edit(id: number): Page {
    const resident = this.#get(id);
    if (resident.pendingSlot !== 0) this.#writeEarly(resident);
    if (!resident.isDirty) {
      resident.isDirty = true;
      this.#dirty.add(id);
    }
    return resident.page;
  }

  #get(id: number): Resident {
    const found = this.#resident.get(id);
    if (found !== undefined) {
      found.lastUse = this.#use();
      return found;
    }
    const slot = this.#slots[id] ?? 0;
    assert(slot !== 0 && this.references(id) > 0, `page ${id} is in use and on disk`);
    const bytes = new Uint8Array(SLOT_BYTES);
    const count = this.#readSlot(slot, bytes);
    const page = count === SLOT_BYTES ? openPage(bytes, id, this.#generation) : `only ${count} of ${SLOT_BYTES} bytes`;
    if (typeof page === 'string')
      throw new Failure('corrupt', { path: PAGES_PATH, reason: `page ${id} in slot ${slot}: ${page}` });
    const resident = { page, isDirty: false, pendingSlot: 0, lastUse: this.#use() };
    if (this.#isOverBudget && !this.#isHolding) this.#evict();
    this.#resident.set(id, resident);
    return resident;
  }

  /**
   * What is wrong with a page on the disk, or null. One that is in memory as it should be on the disk is written again by the next
   * checkpoint, and nothing is lost.
   */
  problemOnDisk(id: number): string | null {
    const resident = this.#resident.get(id);
    const slot = this.#slots[id] ?? 0;
    if (slot === 0 || resident?.isDirty || (resident?.pendingSlot ?? 0) !== 0) return null;
    const problem = this.#problemOf(id, slot);
    if (problem === null || resident === undefined) return problem;
    this.edit(id);
    return null;
  }

  #problemOf(id: number, slot: number): string | null {
    try {
      const bytes = new Uint8Array(SLOT_BYTES);
      const count = this.#readSlot(slot, bytes);
      if (count < SLOT_BYTES) return `only ${count} of ${SLOT_BYTES} bytes in slot ${slot}`;
      const page = openPage(bytes, id, this.#generation);
      return typeof page === 'string' ? `slot ${slot}: ${page}` : null;
    } catch (error) {
      if (error instanceof Failure) return error.message;
      throw error;
    }
  }

  #readSlot(slot: number, target: Uint8Array): number {
    try {
      return this.#file.read(slot * SLOT_BYTES, target);
    } catch (error) {
      if (!isDiskError(error) || !(error instanceof Error)) throw error;
      throw new Failure('io_error', { reason: `reading slot ${slot} of ${PAGES_PATH} failed: ${error.message}` });
    }
  }

  /** While `work` runs, what it has read once stays in memory. */
  holding<T>(work: () => T): T {
    this.#isHolding = true;
    try {
      return work();
    } finally {
      this.#isHolding = false;
    }
  }

  #use(): number {
    this.#uses += 1;
    return this.#uses;
  }

  get #isOverBudget(): boolean {
    return this.#resident.size > this.#cleanMax + this.#dirty.size + this.#pending.length;
  }

  /** Clean pages not used for the last half of the budget's worth of uses go. */
  #evict(): void {
    const horizon = this.#uses - this.#cleanMax / 2;
    for (const [id, { isDirty, pendingSlot, lastUse }] of this.#resident) {
      if (!isDirty && pendingSlot === 0 && lastUse < horizon) this.#resident.delete(id);
    }
  }

  // ---- checkpoints ---------------------------------------------------------------------------------------------------

  /** The table as of now; what is dirty now will be written by `writeSome`. One checkpoint at a time. */
  beginCheckpoint(generation: number): PageTable {
    assert(this.#pending.length === 0, 'one checkpoint at a time');
    this.#generation = generation;
    this.#retiring = this.#retired;
    this.#retired = [];
    for (const id of this.#dirty) {
      const resident = present(this.#resident.get(id), 'dirty pages are resident');
      const old = this.#slots[id] ?? 0;
      if (old !== 0) this.#retiring.push(old);
      resident.pendingSlot = this.#newSlot();
      resident.isDirty = false;
      this.#slots[id] = resident.pendingSlot;
      this.#pending.push(resident);
    }
    this.#dirty.clear();
    return { slots: this.#slots.slice(0, this.#past), references: this.#references.slice(0, this.#past) };
  }

  /** Writes up to `count` pages of the running checkpoint; false when none are left. */
  writeSome(count: number): boolean {
    for (let written = 0; written < count; written += 1) {
      const resident = this.#pending.at(-1);
      if (resident === undefined) return false;
      if (resident.pendingSlot !== 0) this.#writePending(resident);
      this.#pending.pop();
    }
    return true;
  }

  /**
   * The running checkpoint is given up (a full disk). What was written stays in its new slot, what was not is dirty as before. Slots of
   * the last durable root stay taken until a checkpoint ends.
   */
  abortCheckpoint(): void {
    for (const resident of this.#pending) {
      const { page, pendingSlot } = resident;
      // Written early, before a change.
      if (pendingSlot === 0) continue;
      resident.pendingSlot = 0;
      // Freed since: its slot went to the retired ones then.
      if (this.#resident.get(page.id) !== resident) continue;
      this.#releaseSlot(pendingSlot);
      this.#slots[page.id] = 0;
      resident.isDirty = true;
      this.#dirty.add(page.id);
    }
    this.#pending = [];
    this.#retired.push(...this.#retiring);
    this.#retiring = [];
  }

  /** Before a change. On a full disk the checkpoint keeps a copy: the change must go on, the checkpoint need not. */
  #writeEarly(resident: Resident): void {
    try {
      this.#writePending(resident);
    } catch (error) {
      if (!isOutOfSpace(error)) throw error;
      this.#pending[this.#pending.indexOf(resident)] = { ...resident, page: copyOf(resident.page) };
      resident.pendingSlot = 0;
    }
  }

  #writePending(resident: Resident): void {
    this.#file.write(resident.pendingSlot * SLOT_BYTES, sealPage(resident.page, this.#generation));
    resident.pendingSlot = 0;
  }

  sync(): Promise<void> {
    return this.#file.sync();
  }

  /** The root of the running checkpoint is durable: slots that only the one before named are free. */
  endCheckpoint(): void {
    for (const slot of this.#retiring) this.#releaseSlot(slot);
    this.#retiring = [];
    this.#shrink();
    // What was written is clean now; without a page that has to be read nobody else would look.
    if (this.#isOverBudget) this.#evict();
  }

  #releaseSlot(slot: number): void {
    this.#usedSlots[slot] = 0;
    if (slot < this.#lowestFreeSlot) this.#lowestFreeSlot = slot;
  }

  /** Gives the file's unused end back. */
  #shrink(): void {
    let past = this.#usedSlots.length;
    while (past > 1 && this.#usedSlots[past - 1] !== 1) past -= 1;
    if (this.#file.size() > past * SLOT_BYTES) this.#file.truncate(past * SLOT_BYTES);
  }

  #newSlot(): number {
    let slot = this.#lowestFreeSlot;
    while (this.#usedSlots[slot] === 1) slot += 1;
    this.#takeSlot(slot);
    this.#lowestFreeSlot = slot + 1;
    return slot;
  }

  #takeSlot(slot: number): void {
    if (slot >= this.#usedSlots.length) {
      const larger = new Uint8Array(slot * 2);
      larger.set(this.#usedSlots);
      this.#usedSlots = larger;
    }
    assert(this.#usedSlots[slot] !== 1, 'a slot is used once');
    this.#usedSlots[slot] = 1;
  }
}

function copyOf(page: Page): Page {
  const copy = newPage(page.id, page.type, page.owner);
  copy.bytes.set(page.bytes);
  return copy;
}

function grown(source: Uint32Array, length: number): Uint32Array {
  const target = new Uint32Array(Math.max(length, source.length));
  target.set(source);
  return target;
}
