/**
 * The committed state: objects, extent files, maps, reference counts, the drop list. `apply` is synchronous and the same live
 * and in recovery; it neither waits nor asks what time it is. What an extent file is on disk, and when freed space may be
 * used again, is not known here.
 */

import { assert, present, unreachable } from '../base/assert.ts';
import { Failure } from '../base/errors.ts';
import type { Checkpoint } from '../format/checkpoint.ts';
import { REFERENCE_PAGES_PER_FILE, SUM_PAGES_PER_FILE } from '../format/checkpoint.ts';
import { INNER_CHILDREN, type Page, REFERENCES_PER_PAGE, SUMS_PER_PAGE } from '../format/page.ts';
import type { EngineRecord, ObjectKind } from '../format/record.ts';
import { CHANGE_WORDS, EXTENT_BYTES, LEAF_ENTRIES, SLOTS_PER_FILE } from '../native/plane.ts';
import type { Pages } from './pages.ts';

export const LEAF_SPAN_BYTES = LEAF_ENTRIES * EXTENT_BYTES;

/** A volume or a snapshot. Height 1: the root's children are leaves. */
export type StoredObject = {
  readonly number: number;
  readonly id: string;
  readonly kind: ObjectKind;
  sizeBytes: number;
  root: number;
  height: number;
  /** Extents of its map that are not holes. */
  mapped: number;
  readonly sourceNumber: number;
  readonly createdAt: number;
};

export type StoredFile = {
  readonly fileNumber: number;
  readonly owner: number;
  /** Extents with references. */
  used: number;
  /** Pages of references; 0: all counts are 0. */
  readonly references: Uint32Array;
  /** Pages of sums; 0: no extent has one. */
  readonly sums: Uint32Array;
};

export class State {
  readonly pages: Pages;
  readonly poolId: string;
  readonly objects = new Map<number, StoredObject>();
  readonly byId = new Map<string, StoredObject>();
  readonly files = new Map<number, StoredFile>();
  readonly drops: number[] = [];
  /** Addresses of extents whose bytes are known to be wrong. */
  readonly damaged = new Set<number>();
  nextObjectNumber = 1;
  /** Addresses whose last reference went since somebody took them. */
  #freed: number[] = [];
  /** Addresses that got their first reference since somebody took them. */
  #landed: number[] = [];
  /** The page of references that was counted in last: address / REFERENCES_PER_PAGE, or -1. */
  #hotKey = -1;
  #hotWords: Uint32Array = new Uint32Array(0);
  #hotFile: StoredFile = newFile(0, 0);
  #preparedKey = -1;
  /** Extents in use, in all files. */
  usedExtents = 0;

  constructor(pages: Pages, poolId: string, root: Checkpoint | null) {
    this.pages = pages;
    this.poolId = poolId;
    if (root === null) return;
    this.nextObjectNumber = root.nextObjectNumber;
    for (const object of root.objects) this.#insert({ ...object });
    for (const file of root.files) {
      this.files.set(file.fileNumber, { ...file });
      this.usedExtents += file.used;
    }
    this.drops.push(...root.drops);
    for (const address of root.damaged) this.damaged.add(address);
  }

  #insert(object: StoredObject): void {
    this.objects.set(object.number, object);
    this.byId.set(object.id, object);
  }

  /** Whether it is still the one of that number: it may have been deleted while somebody gave way. */
  isThere({ number, id }: StoredObject): boolean {
    return this.objects.get(number)?.id === id;
  }

  takeFreed(): number[] {
    const freed = this.#freed;
    this.#freed = [];
    return freed;
  }

  takeLanded(): number[] {
    const landed = this.#landed;
    this.#landed = [];
    return landed;
  }

  /** `sequence` is only remembered as the time of creation. */
  apply(record: EngineRecord, sequence: number): void {
    // Between two records a checkpoint may have begun: then a page has to be asked for again before it changes.
    this.#hotKey = -1;
    switch (record.type) {
      case 'create':
        return this.#create(record, sequence);
      case 'changes':
        return this.#changes(this.#object(record.number), record.changes);
      case 'resize': {
        const object = this.#object(record.number);
        object.sizeBytes = record.sizeBytes;
        return this.#growHeight(object);
      }
      case 'revert':
        return this.#revert(this.#object(record.number), this.#object(record.sourceNumber));
      case 'delete':
        return this.#delete(this.#object(record.number));
      case 'drop':
        if (record.steps === 0) return this.#dropLater();
        for (let step = 0; step < record.steps; step += 1) this.#dropStep();
        return;
      case 'file-create':
        this.files.set(record.fileNumber, newFile(record.fileNumber, record.owner));
        return;
      case 'file-remove':
        return this.#removeFile(record.fileNumber);
      case 'sums':
        for (let at = 0; at < record.pairs.length; at += 2)
          this.#setSum(record.pairs[at] ?? 0, record.pairs[at + 1] ?? 0);
        return;
      case 'damage':
        for (const address of record.addresses) {
          if (!record.isDamaged) this.damaged.delete(address);
          else if (this.extentReferences(address) > 0) this.damaged.add(address);
        }
        return;
      default:
        return unreachable(record);
    }
  }

  /** Reads every page that `apply` will need, so that a page that cannot be read fails before anything has changed. */
  prepare(record: EngineRecord): void {
    this.#preparedKey = -1;
    if (record.type === 'changes') this.#prepareChanges(this.#object(record.number), record.changes);
    else if (record.type === 'drop') this.#prepareDrop(record.steps);
    else if (record.type === 'sums')
      for (let at = 0; at < record.pairs.length; at += 2) this.#prepareExtent(record.pairs[at] ?? 0);
    else if (record.type === 'damage') for (const address of record.addresses) this.#prepareExtent(address);
  }

  #prepareChanges(object: StoredObject, changes: Uint32Array): void {
    let leafIndex = -1;
    let leaf: Page | null = null;
    for (let at = 0; at < changes.length; at += CHANGE_WORDS) {
      const index = changes[at] ?? 0;
      if (Math.floor(index / LEAF_ENTRIES) !== leafIndex) {
        leafIndex = Math.floor(index / LEAF_ENTRIES);
        const found = this.leaf(object, leafIndex);
        leaf = found.page;
        // It will be copied, which counts everything in it.
        if (leaf !== null && !found.isExclusive) this.#prepareLeaf(leaf);
      }
      this.#prepareExtent(changes[at + 1] ?? 0);
      this.#prepareExtent(changes[at + 3] ?? 0);
      if (leaf === null) continue;
      this.#prepareExtent(leaf.words[(index % LEAF_ENTRIES) * 2] ?? 0);
      this.#prepareExtent(leaf.bases[index % LEAF_ENTRIES] ?? 0);
    }
  }

  #prepareLeaf(leaf: Page): void {
    for (let position = 0; position < LEAF_ENTRIES; position += 1) {
      this.#prepareExtent(leaf.words[position * 2] ?? 0);
      this.#prepareExtent(leaf.bases[position] ?? 0);
    }
  }

  #prepareExtent(address: number): void {
    const key = Math.floor(address / REFERENCES_PER_PAGE);
    if (address === 0 || key === this.#preparedKey) return;
    this.#fileOf(address);
    this.extentReferences(address);
    // Two pages of sums can meet one of references; which of them a count of 0 changes is not known yet.
    const first = key * REFERENCES_PER_PAGE;
    this.sumOf(first);
    this.sumOf(first + REFERENCES_PER_PAGE - 1);
    this.#preparedKey = key;
  }

  #prepareDrop(steps: number): void {
    const stack = this.drops.slice(-steps);
    const taken = new Map<number, number>();
    for (let step = 0; step < steps; step += 1) {
      const id = stack.pop();
      if (id === undefined) return;
      const before = taken.get(id) ?? 0;
      taken.set(id, before + 1);
      if (this.pages.references(id) - before > 1) continue;
      const page = this.pages.get(id);
      if (page.type === 'leaf') this.#prepareLeaf(page);
      else for (const child of page.words) if (child !== 0) stack.push(child);
    }
  }

  #object(number: number): StoredObject {
    return present(this.objects.get(number), `object ${number} exists`);
  }

  #create(record: EngineRecord & { type: 'create' }, sequence: number): void {
    const source = record.sourceNumber === 0 ? null : this.#object(record.sourceNumber);
    const object: StoredObject = {
      number: record.number,
      id: record.id,
      kind: record.kind,
      sizeBytes: record.sizeBytes,
      root: source?.root ?? 0,
      height: source?.height ?? 1,
      mapped: source?.mapped ?? 0,
      sourceNumber: record.sourceNumber,
      createdAt: sequence,
    };
    if (object.root !== 0) this.pages.addReference(object.root);
    this.#growHeight(object);
    this.#insert(object);
    this.nextObjectNumber = Math.max(this.nextObjectNumber, record.number + 1);
  }

  /** New roots above the old one until the size fits. */
  #growHeight(object: StoredObject): void {
    while (spanOf(object.height) < object.sizeBytes) {
      if (object.root !== 0) {
        const above = this.pages.create('inner', object.number);
        above.words[0] = object.root;
        object.root = above.id;
      }
      object.height += 1;
    }
  }

  #revert(object: StoredObject, source: StoredObject): void {
    if (source.root !== 0) this.pages.addReference(source.root);
    if (object.root !== 0) this.drops.push(object.root);
    object.root = source.root;
    object.height = source.height;
    object.mapped = source.mapped;
    this.#growHeight(object);
  }

  #delete(object: StoredObject): void {
    this.objects.delete(object.number);
    this.byId.delete(object.id);
    if (object.root !== 0) this.drops.push(object.root);
  }

  #removeFile(fileNumber: number): void {
    const file = present(this.files.get(fileNumber), `extent file ${fileNumber} exists`);
    assert(file.used === 0, `extent file ${fileNumber} is not in use`);
    for (const page of [...file.references, ...file.sums]) if (page !== 0) this.pages.free(page);
    this.files.delete(fileNumber);
  }

  /** The next page of the drop list becomes the last: it cannot be read, and must not hold up the others. */
  #dropLater(): void {
    const id = this.drops.pop();
    if (id !== undefined) this.drops.unshift(id);
  }

  #dropStep(): void {
    const id = this.drops.pop();
    if (id === undefined) return;
    if (this.pages.references(id) > 1) return this.pages.dropReference(id);
    const page = this.pages.get(id);
    if (page.type === 'inner') {
      for (const child of page.words) if (child !== 0) this.drops.push(child);
    } else {
      for (let position = 0; position < LEAF_ENTRIES; position += 1) {
        const extent = page.words[position * 2] ?? 0;
        const base = page.bases[position] ?? 0;
        if (extent !== 0) this.#count(extent, -1);
        if (base !== 0) this.#count(base, -1);
      }
    }
    this.pages.free(id);
  }

  // ---- extents -----------------------------------------------------------------------------------------------------

  extentReferences(address: number): number {
    const file = this.files.get(Math.floor(address / SLOTS_PER_FILE));
    const slot = address % SLOTS_PER_FILE;
    const page = file?.references[Math.floor(slot / REFERENCES_PER_PAGE)] ?? 0;
    return page === 0 ? 0 : (this.pages.get(page).words[slot % REFERENCES_PER_PAGE] ?? 0);
  }

  /** The CRC-32 of a sealed extent's bytes (0 stands as 1); 0: it is not sealed. */
  sumOf(address: number): number {
    const file = this.files.get(Math.floor(address / SLOTS_PER_FILE));
    const slot = address % SLOTS_PER_FILE;
    const page = file?.sums[Math.floor(slot / SUMS_PER_PAGE)] ?? 0;
    return page === 0 ? 0 : (this.pages.get(page).words[slot % SUMS_PER_PAGE] ?? 0);
  }

  /** Of an extent without references nothing is kept: it may get other bytes at any moment. */
  #setSum(address: number, sum: number): void {
    if (this.sumOf(address) === sum || (sum !== 0 && this.extentReferences(address) === 0)) return;
    const file = this.#fileOf(address);
    const slot = address % SLOTS_PER_FILE;
    const index = Math.floor(slot / SUMS_PER_PAGE);
    let id = file.sums[index] ?? 0;
    if (id === 0) {
      id = this.pages.create('sums', file.fileNumber).id;
      file.sums[index] = id;
    }
    this.pages.edit(id).words[slot % SUMS_PER_PAGE] = sum;
  }

  #fileOf(address: number): StoredFile {
    const fileNumber = Math.floor(address / SLOTS_PER_FILE);
    const file = this.files.get(fileNumber);
    if (file !== undefined) return file;
    // From the plane or from disk: never trusted to be right.
    const reason = `a map names extent ${address} of extent file ${fileNumber}, which does not exist`;
    throw new Failure('corrupt', { path: 'pool', reason });
  }

  /** Neighbours in a map are mostly neighbours in a file: the page of the last count is kept at hand (10 ns a count instead of 90). */
  #heat(address: number, key: number): void {
    const file = this.#fileOf(address);
    const index = key % REFERENCE_PAGES_PER_FILE;
    let id = file.references[index] ?? 0;
    if (id === 0) {
      id = this.pages.create('references', file.fileNumber).id;
      file.references[index] = id;
    }
    this.#hotWords = this.pages.edit(id).words;
    this.#hotFile = file;
    this.#hotKey = key;
  }

  #count(address: number, delta: 1 | -1): void {
    const key = Math.floor(address / REFERENCES_PER_PAGE);
    if (key !== this.#hotKey) this.#heat(address, key);
    const file = this.#hotFile;
    const words = this.#hotWords;
    const position = address % REFERENCES_PER_PAGE;
    const before = words[position] ?? 0;
    assert(before + delta >= 0, 'an extent that is dropped has a reference');
    words[position] = before + delta;
    if (before === 0) {
      file.used += 1;
      this.usedExtents += 1;
      this.#landed.push(address);
    } else if (before + delta === 0) {
      file.used -= 1;
      this.usedExtents -= 1;
      this.#freed.push(address);
      this.#setSum(address, 0);
      this.damaged.delete(address);
    }
  }

  // ---- maps --------------------------------------------------------------------------------------------------------

  /** The leaf for reading, or null; `isExclusive` when no other object can see it. */
  leaf(object: StoredObject, leafIndex: number): { page: Page | null; isExclusive: boolean } {
    let id = object.root;
    let isExclusive = true;
    for (let level = object.height; id !== 0; level -= 1) {
      if (this.pages.references(id) > 1) isExclusive = false;
      const page = this.pages.get(id);
      if (level === 0) return { page, isExclusive };
      id = page.words[childAt(leafIndex, level)] ?? 0;
    }
    return { page: null, isExclusive };
  }

  /** The leaf for changing: every page on the way that others see is copied first, which adds a reference to each of its children. */
  #ownLeaf(object: StoredObject, leafIndex: number): Page {
    object.root = this.#ownPage(object.root, object.height, object.number);
    let id = object.root;
    for (let level = object.height; level > 0; level -= 1) {
      const at = childAt(leafIndex, level);
      const before = this.pages.get(id).words[at] ?? 0;
      const child = this.#ownPage(before, level - 1, object.number);
      // Only a page that changes becomes dirty.
      if (child !== before) this.pages.edit(id).words[at] = child;
      id = child;
    }
    return this.pages.edit(id);
  }

  #ownPage(id: number, level: number, owner: number): number {
    if (id === 0) return this.pages.create(level === 0 ? 'leaf' : 'inner', owner).id;
    if (this.pages.references(id) === 1) return id;
    const copy = this.pages.copy(id, owner);
    this.pages.dropReference(id);
    if (copy.type === 'inner') {
      for (const child of copy.words) if (child !== 0) this.pages.addReference(child);
    } else {
      for (let position = 0; position < LEAF_ENTRIES; position += 1) {
        const extent = copy.words[position * 2] ?? 0;
        const base = copy.bases[position] ?? 0;
        if (extent !== 0) this.#count(extent, 1);
        if (base !== 0) this.#count(base, 1);
      }
    }
    return copy.id;
  }

  #changes(object: StoredObject, changes: Uint32Array): void {
    assert(object.kind === 'volume', 'snapshots do not change');
    let leafIndex = -1;
    let leaf: Page | null = null;
    for (let at = 0; at < changes.length; at += CHANGE_WORDS) {
      const index = changes[at] ?? 0;
      if (leaf === null || Math.floor(index / LEAF_ENTRIES) !== leafIndex) {
        leafIndex = Math.floor(index / LEAF_ENTRIES);
        leaf = this.#ownLeaf(object, leafIndex);
      }
      this.#change(
        object,
        leaf,
        index % LEAF_ENTRIES,
        changes[at + 1] ?? 0,
        changes[at + 2] ?? 0,
        changes[at + 3] ?? 0,
      );
    }
  }

  #change(object: StoredObject, leaf: Page, position: number, extent: number, blocks: number, base: number): void {
    const { words, bases, masks } = leaf;
    const oldExtent = words[position * 2] ?? 0;
    const oldBase = bases[position] ?? 0;
    // First what comes, then what goes: an extent that moves from one place to the other is never without reference.
    if (extent !== 0 && extent !== oldExtent) this.#count(extent, 1);
    if (base !== 0 && base !== oldBase) this.#count(base, 1);
    if (oldExtent !== 0 && extent !== oldExtent) this.#count(oldExtent, -1);
    if (oldBase !== 0 && base !== oldBase) this.#count(oldBase, -1);
    if (extent === 0 && oldExtent !== 0) object.mapped -= 1;
    if (extent !== 0 && oldExtent === 0) object.mapped += 1;
    words[position * 2] = extent;
    words[position * 2 + 1] = blocks & 0xffff;
    bases[position] = base;
    masks[position] = blocks >>> 16;
  }
}

function newFile(fileNumber: number, owner: number): StoredFile {
  return {
    fileNumber,
    owner,
    used: 0,
    references: new Uint32Array(REFERENCE_PAGES_PER_FILE),
    sums: new Uint32Array(SUM_PAGES_PER_FILE),
  };
}

/** Bytes that a map of this height covers. */
export function spanOf(height: number): number {
  return LEAF_SPAN_BYTES * INNER_CHILDREN ** height;
}

/** Which child of an inner page (level 1: right above the leaves) leads to a leaf. */
export function childAt(leafIndex: number, level: number): number {
  return Math.floor(leafIndex / INNER_CHILDREN ** (level - 1)) % INNER_CHILDREN;
}
