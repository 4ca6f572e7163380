/**
 * A disk in memory that fails as disks may. At a crash every 4 KiB that was written and not synced is, each for itself, kept or
 * lost; in metadata files it may be torn between sectors of 512 bytes; creations and removals are lost unless their
 * folder was synced. Reads, writes and syncs can fail, syncs can stall, space can run out. One seed repeats it all.
 *
 * Fair: what was synced stays. 4 KiB of an extent file are written whole or not at all (docs/durability.md says why that is assumed).
 */

import { Failure } from '../../src/base/errors.ts';
import type { Files, OpenFile } from '../../src/base/files.ts';
import { CrashView } from './crash-view.ts';
import { Random } from './random.ts';

export const CHUNK = 4096;
const SECTOR = 512;
const EXTENT = 65536;
const CHUNKS_PER_EXTENT = EXTENT / CHUNK;
export const ZERO_CHUNK = new Uint8Array(CHUNK);

export type Operation = 'read' | 'write' | 'sync';
export type Fault = { readonly operation: Operation; readonly path: RegExp; readonly code: string; remaining: number };

/** undefined: a hole. */
export type Chunk = Uint8Array | undefined;

export class Inode {
  readonly path: string;
  size = 0;
  durableSize = 0;
  readonly now = new Map<number, Chunk>();
  readonly durable = new Map<number, Chunk>();
  readonly dirty = new Set<number>();
  /** Number of the sync that brought the durable content of a chunk, and the size. */
  readonly synced = new Map<number, number>();
  sizeSynced = 0;
  /** Extents with space set aside; what is written in them takes none anew. */
  readonly reserved = new Set<number>();
  /** Contents on their way to the disk, by running sync. */
  readonly syncing = new Set<{ readonly chunks: Map<number, Chunk>; readonly size: number }>();

  constructor(path: string) {
    this.path = path;
  }
}

export class DiskError extends Error {
  readonly code: string;

  constructor(code: string, operation: string, path: string) {
    super(`${code}: ${operation} ${path}`);
    this.code = code;
  }
}

/** The power is off: nothing of this machine runs on. */
export class PowerOff extends Error {
  constructor() {
    super('power is off');
  }
}

export type SimDiskOptions = { readonly seed: number; readonly totalBytes: number };

export class SimDisk implements Files {
  readonly random: Random;
  totalBytes: number;
  #entries = new Map<string, Inode>();
  #durableEntries = new Map<string, Inode>();
  #folders = new Set<string>(['.']);
  #usedChunks = 0;
  #lastSync = 0;
  readonly #syncedFolders = new Map<string, number>();
  readonly faults: Fault[] = [];
  /** Power fails at this many more operations; null: never. */
  operationsUntilPowerOff: number | null = null;
  operations = 0;
  /** A sync takes up to this many turns: others come in between. */
  latencyMax = 1;
  isOff = false;
  #isLocked = false;
  /** While true, syncs wait; `releaseSyncs` lets them end. */
  isStalled = false;
  #stalled: (() => void)[] = [];

  constructor(options: SimDiskOptions) {
    this.random = new Random(options.seed);
    this.totalBytes = options.totalBytes;
  }

  // ---- faults ----------------------------------------------------------------------------------------------------

  fail(operation: Operation, path: RegExp, code: string, count: number): void {
    this.faults.push({ operation, path, code, remaining: count });
  }

  powerOff(): void {
    this.isOff = true;
  }

  releaseSyncs(): void {
    for (const resume of this.#stalled.splice(0)) resume();
  }

  /** Syncs of such files are answered, and what they cover is as unsafe as before. */
  lies: RegExp | null = null;

  /** From now on, nothing that is written to such files is kept by a crash, and their syncs do not end. */
  holdBack(path: RegExp): void {
    this.#heldBack = path;
  }

  #heldBack: RegExp | null = null;

  /** What the next start finds. This disk object is dead from now on. */
  afterCrash(): SimDisk {
    this.isOff = true;
    const next = new SimDisk({ seed: this.random.below(2 ** 31), totalBytes: this.totalBytes });
    next.latencyMax = this.latencyMax;
    next.lies = this.lies;
    const paths = new Set([...this.#entries.keys(), ...this.#durableEntries.keys()]);
    for (const path of [...paths].sort()) {
      const now = this.#entries.get(path);
      const durable = this.#durableEntries.get(path);
      const inode = now === durable || this.random.chance(0.5) ? now : durable;
      if (inode !== undefined) next.#adopt(path, this.#surviving(inode));
    }
    next.#folders = new Set(this.#folders);
    return next;
  }

  /** What a start might find if the power failed now; the run goes on. */
  crashView(random: Random): CrashView {
    const now = { entries: this.#entries, durableEntries: this.#durableEntries, folders: this.#folders };
    return new CrashView(now, random);
  }

  /** Told before each operation that changes something or makes it durable. */
  onOperation: () => void = () => {};

  /** The process died, the machine did not: what was written is there, but not safe yet. This disk object is dead from now on. */
  afterKill(): SimDisk {
    this.isOff = true;
    const next = new SimDisk({ seed: this.random.below(2 ** 31), totalBytes: this.totalBytes });
    next.latencyMax = this.latencyMax;
    next.lies = this.lies;
    for (const path of new Set([...this.#entries.keys(), ...this.#durableEntries.keys()])) {
      const [now, durable] = [this.#entries.get(path), this.#durableEntries.get(path)];
      const copyNow = now === undefined ? undefined : copyOf(now);
      const copyDurable = durable === now ? copyNow : durable === undefined ? undefined : copyOf(durable);
      if (copyNow !== undefined) next.#entries.set(path, copyNow);
      if (copyDurable !== undefined) next.#durableEntries.set(path, copyDurable);
      next.#usedChunks += copyNow?.now.size ?? 0;
    }
    next.#folders = new Set(this.#folders);
    return next;
  }

  #surviving(inode: Inode): Inode {
    const { random } = this;
    const survivor = new Inode(inode.path);
    const sizes = [inode.durableSize, inode.size, ...[...inode.syncing].map(({ size }) => size)];
    survivor.size = inode.size === inode.durableSize ? inode.size : random.pick(sizes);
    const uncertain = new Set(inode.dirty);
    for (const { chunks } of inode.syncing) for (const chunk of chunks.keys()) uncertain.add(chunk);
    for (const [chunk, bytes] of inode.durable) if (!uncertain.has(chunk)) survivor.now.set(chunk, bytes);
    const isData = inode.path.endsWith('.dat');
    for (const chunk of [...uncertain].sort((a, b) => a - b)) {
      const versions = [inode.durable.get(chunk), inode.now.get(chunk)];
      for (const { chunks } of inode.syncing) if (chunks.has(chunk)) versions.push(chunks.get(chunk));
      if (this.#heldBack?.test(inode.path)) {
        survivor.now.set(chunk, inode.durable.get(chunk));
        continue;
      }
      const isTorn = !isData && random.chance(0.3);
      survivor.now.set(chunk, isTorn ? torn(random, versions) : versions[random.below(versions.length)]);
    }
    for (const [chunk, bytes] of [...survivor.now]) {
      if (bytes === undefined || chunk * CHUNK >= survivor.size) survivor.now.delete(chunk);
      else survivor.durable.set(chunk, bytes);
    }
    survivor.durableSize = survivor.size;
    return survivor;
  }

  #adopt(path: string, inode: Inode): void {
    this.#entries.set(path, inode);
    this.#durableEntries.set(path, inode);
    this.#usedChunks += inode.now.size;
  }

  /** Every operation passes here; it may be the one at which the power fails. */
  #operate(operation: Operation | 'folder', path: string): void {
    if (this.isOff) throw new PowerOff();
    this.operations += 1;
    if (operation !== 'read') this.onOperation();
    if (this.operationsUntilPowerOff !== null && operation !== 'read') {
      this.operationsUntilPowerOff -= 1;
      if (this.operationsUntilPowerOff < 0) {
        this.isOff = true;
        throw new PowerOff();
      }
    }
    for (const fault of this.faults) {
      if (fault.operation !== operation || fault.remaining === 0 || !fault.path.test(path)) continue;
      fault.remaining -= 1;
      throw new DiskError(fault.code, operation, path);
    }
  }

  // ---- Files -----------------------------------------------------------------------------------------------------

  open(path: string, mode: 'read' | 'existing' | 'create'): OpenFile {
    if (this.isOff) throw new PowerOff();
    let inode = this.#entries.get(path);
    if (inode === undefined) {
      if (mode !== 'create') throw new DiskError('ENOENT', 'open', path);
      this.#operate('folder', path);
      inode = new Inode(path);
      this.#entries.set(path, inode);
    }
    return this.#handle(inode, mode === 'read');
  }

  #handle(inode: Inode, isReadOnly: boolean): OpenFile {
    let isOpen = true;
    const use = (): Inode => {
      if (!isOpen) throw new DiskError('EBADF', 'use', inode.path);
      return inode;
    };
    const change = (): Inode => {
      if (isReadOnly) throw new DiskError('EBADF', 'write', inode.path);
      return use();
    };
    return {
      read: (offset, target) => this.#read(use(), offset, target),
      write: (offset, source) => this.#write(change(), offset, source),
      truncate: (sizeBytes) => this.#truncate(change(), sizeBytes),
      size: () => use().size,
      sync: async () => this.#sync(use()),
      close: () => {
        use();
        isOpen = false;
      },
    };
  }

  exists(path: string): boolean {
    return this.#entries.has(path) || this.#folders.has(path);
  }

  remove(path: string): void {
    this.#operate('folder', path);
    const inode = this.#entries.get(path);
    if (inode === undefined) return;
    this.#entries.delete(path);
    this.#usedChunks -= inode.now.size + inode.reserved.size * CHUNKS_PER_EXTENT;
  }

  makeFolder(path: string): void {
    this.#operate('folder', path);
    this.#folders.add(path);
  }

  list(path: string): string[] {
    const prefix = `${path}/`;
    const below = [...this.#entries.keys(), ...this.#folders].filter((name) => name.startsWith(prefix));
    return [...new Set(below.map((name) => name.slice(prefix.length).split('/')[0] ?? ''))].sort();
  }

  async syncFolder(path: string): Promise<void> {
    this.#operate('sync', path);
    const prefix = path === '.' ? '' : `${path}/`;
    const isIn = (name: string): boolean => name.startsWith(prefix) && !name.slice(prefix.length).includes('/');
    const before = new Map([...this.#entries].filter(([name]) => isIn(name)));
    this.#lastSync += 1;
    const number = this.#lastSync;
    await this.#passage();
    // One that began later has brought what is newer.
    if ((this.#syncedFolders.get(path) ?? 0) > number) return;
    this.#syncedFolders.set(path, number);
    for (const name of [...this.#durableEntries.keys()]) {
      if (isIn(name) && !before.has(name)) this.#durableEntries.delete(name);
    }
    for (const [name, inode] of before) this.#durableEntries.set(name, inode);
  }

  space(): { totalBytes: number; freeBytes: number } {
    return { totalBytes: this.totalBytes, freeBytes: Math.max(0, this.totalBytes - this.#usedChunks * CHUNK) };
  }

  lock(path: string): () => void {
    if (this.#isLocked) throw new Failure('locked', { path, pid: '1' });
    this.#isLocked = true;
    return () => {
      this.#isLocked = false;
    };
  }

  absolute(path: string): string {
    return path;
  }

  /** As fallocate: false when there is no space. A crash forgets it. */
  reserve(path: string, offset: number, length: number): boolean {
    this.#operate('write', path);
    const inode = this.#entries.get(path);
    if (inode === undefined) throw new DiskError('ENOENT', 'reserve', path);
    const wanted: number[] = [];
    for (let extent = offset / EXTENT; extent < (offset + length) / EXTENT; extent += 1) {
      if (!inode.reserved.has(extent) && !inode.now.has(extent * CHUNKS_PER_EXTENT)) wanted.push(extent);
    }
    if (wanted.length * EXTENT > this.space().freeBytes) return false;
    for (const extent of wanted) inode.reserved.add(extent);
    this.#usedChunks += wanted.length * CHUNKS_PER_EXTENT;
    return true;
  }

  /** As fallocate's PUNCH_HOLE: gone for readers at once, for the disk at some time. */
  punch(path: string, offset: number, length: number): void {
    this.#operate('write', path);
    const inode = this.#entries.get(path);
    if (inode === undefined) throw new DiskError('ENOENT', 'punch', path);
    for (let extent = offset / EXTENT; extent < (offset + length) / EXTENT; extent += 1) {
      if (inode.reserved.delete(extent)) this.#usedChunks -= CHUNKS_PER_EXTENT;
    }
    for (let chunk = offset / CHUNK; chunk < (offset + length) / CHUNK; chunk += 1) {
      if (!inode.now.has(chunk)) continue;
      inode.now.delete(chunk);
      inode.dirty.add(chunk);
      this.#usedChunks -= 1;
    }
  }

  /** For tests that damage what lies on the disk. */
  damage(path: string, change: (bytes: Uint8Array) => Uint8Array): void {
    const inode = this.#entries.get(path);
    if (inode === undefined) throw new DiskError('ENOENT', 'damage', path);
    const bytes = new Uint8Array(inode.size);
    this.#read(inode, 0, bytes);
    const changed = change(bytes);
    this.#truncate(inode, 0);
    this.#write(inode, 0, changed);
    for (const chunk of inode.dirty) inode.durable.set(chunk, inode.now.get(chunk));
    inode.dirty.clear();
    inode.durableSize = inode.size;
  }

  /** One bit of one byte, in files of any size: as the disk changes it, without anybody writing. */
  flipBit(path: string, offset: number): void {
    const inode = this.#entries.get(path);
    if (inode === undefined) throw new DiskError('ENOENT', 'flip', path);
    const byte = new Uint8Array(1);
    this.#read(inode, offset, byte);
    this.#write(
      inode,
      offset,
      byte.map((value) => value ^ 0x04),
    );
    const chunk = Math.floor(offset / CHUNK);
    inode.durable.set(chunk, inode.now.get(chunk));
    inode.dirty.delete(chunk);
  }

  // ---- contents --------------------------------------------------------------------------------------------------

  #read(inode: Inode, offset: number, target: Uint8Array): number {
    this.#operate('read', inode.path);
    const count = Math.max(0, Math.min(target.length, inode.size - offset));
    for (let done = 0; done < count; ) {
      const at = offset + done;
      const within = at % CHUNK;
      const length = Math.min(CHUNK - within, count - done);
      const chunk = inode.now.get(Math.floor(at / CHUNK)) ?? ZERO_CHUNK;
      target.set(chunk.subarray(within, within + length), done);
      done += length;
    }
    return count;
  }

  #write(inode: Inode, offset: number, source: Uint8Array): void {
    this.#operate('write', inode.path);
    for (let done = 0; done < source.length; ) {
      const at = offset + done;
      const within = at % CHUNK;
      const length = Math.min(CHUNK - within, source.length - done);
      this.#writable(inode, Math.floor(at / CHUNK)).set(source.subarray(done, done + length), within);
      done += length;
      // What came before a failure in the middle is there.
      inode.size = Math.max(inode.size, at + length);
    }
  }

  /** A chunk that no durable state and no running sync shares. */
  #writable(inode: Inode, index: number): Uint8Array {
    if (inode.reserved.delete(Math.floor(index / CHUNKS_PER_EXTENT))) this.#fillExtent(inode, index);
    const found = inode.now.get(index);
    if (found !== undefined && inode.dirty.has(index)) return found;
    if (found === undefined) {
      if ((this.#usedChunks + 1) * CHUNK > this.totalBytes) throw new DiskError('ENOSPC', 'write', inode.path);
      this.#usedChunks += 1;
    }
    const copy = found === undefined ? new Uint8Array(CHUNK) : found.slice();
    inode.now.set(index, copy);
    inode.dirty.add(index);
    return copy;
  }

  /** The space set aside becomes zeros that take it. */
  #fillExtent(inode: Inode, index: number): void {
    const first = index - (index % CHUNKS_PER_EXTENT);
    for (let chunk = first; chunk < first + CHUNKS_PER_EXTENT; chunk += 1) {
      if (inode.now.has(chunk)) this.#usedChunks -= 1;
      else inode.now.set(chunk, inode.dirty.has(chunk) ? new Uint8Array(CHUNK) : ZERO_CHUNK);
    }
  }

  #truncate(inode: Inode, sizeBytes: number): void {
    this.#operate('write', inode.path);
    inode.size = sizeBytes;
    for (const chunk of [...inode.now.keys()]) {
      if (chunk * CHUNK < sizeBytes) continue;
      inode.now.delete(chunk);
      inode.dirty.add(chunk);
      this.#usedChunks -= 1;
    }
    if (sizeBytes % CHUNK !== 0 && inode.now.has(Math.floor(sizeBytes / CHUNK))) {
      this.#writable(inode, Math.floor(sizeBytes / CHUNK)).fill(0, sizeBytes % CHUNK);
    }
  }

  /** As on Linux: after a failed sync the kernel calls what it covered clean, and it never reaches the disk. */
  async #sync(inode: Inode): Promise<void> {
    const chunks = new Map([...inode.dirty].map((chunk) => [chunk, inode.now.get(chunk)]));
    if (this.lies?.test(inode.path)) return;
    this.#lastSync += 1;
    const number = this.#lastSync;
    const flight = { chunks, size: inode.size };
    try {
      this.#operate('sync', inode.path);
    } finally {
      if (!this.isOff) inode.dirty.clear();
    }
    inode.syncing.add(flight);
    if (this.#heldBack?.test(inode.path)) await new Promise<never>(() => {});
    await this.#passage();
    inode.syncing.delete(flight);
    // Syncs may overtake each other; what is newer stays.
    for (const [chunk, bytes] of chunks) {
      if ((inode.synced.get(chunk) ?? 0) > number) continue;
      inode.synced.set(chunk, number);
      inode.durable.set(chunk, bytes);
    }
    if (inode.sizeSynced > number) return;
    inode.sizeSynced = number;
    inode.durableSize = flight.size;
  }

  /** The way to the disk and back. If the power fails meanwhile, it never ends. */
  async #passage(): Promise<void> {
    if (this.isStalled) await new Promise<void>((resolve) => this.#stalled.push(resolve));
    for (let turns = this.random.below(this.latencyMax) + 1; turns > 0; turns -= 1) await Promise.resolve();
    if (this.isOff) await new Promise<never>(() => {});
  }
}

function copyOf(inode: Inode): Inode {
  const copy = new Inode(inode.path);
  copy.size = inode.size;
  copy.durableSize = inode.durableSize;
  for (const [chunk, bytes] of inode.now) copy.now.set(chunk, bytes?.slice());
  for (const [chunk, bytes] of inode.durable) copy.durable.set(chunk, bytes);
  for (const chunk of inode.dirty) copy.dirty.add(chunk);
  // A sync that nobody waits for any more: its contents are as unsafe as the rest.
  for (const { chunks } of inode.syncing) for (const chunk of chunks.keys()) copy.dirty.add(chunk);
  return copy;
}

/** Sectors of several versions of 4 KiB. */
export function torn(random: Random, versions: readonly Chunk[]): Uint8Array {
  const result = new Uint8Array(CHUNK);
  for (let at = 0; at < CHUNK; at += SECTOR) {
    const version = versions[random.below(versions.length)] ?? ZERO_CHUNK;
    result.set(version.subarray(at, at + SECTOR), at);
  }
  return result;
}
