/** Changes what lies on a simulated disk with the format's own encoders: right checksums, wrong contents. */

import { type Checkpoint, decodeCheckpoint, encodeCheckpoint } from '../../src/format/checkpoint.ts';
import { extentSum, newPage, openPage, type Page, SLOT_BYTES, SUMS_PER_PAGE, sealPage } from '../../src/format/page.ts';
import type { SimDisk } from '../sim/files.ts';
import { EXTENT } from './pool.ts';

const ROOTS = ['pool/checkpoint.0', 'pool/checkpoint.1'];
export const FIRST_FILE = 'pool/extents/0000001.dat';
/** Address of its first extent. */
export const FIRST = 16384;

export type Changeable = { -readonly [Key in keyof Checkpoint]: Checkpoint[Key] };

export function contentOf(disk: SimDisk, path: string): Uint8Array {
  const file = disk.open(path, 'read');
  const data = new Uint8Array(file.size());
  file.read(0, data);
  file.close();
  return data;
}

export function newestRoot(disk: SimDisk): { path: string; root: Checkpoint } {
  const found = ROOTS.flatMap((path) => {
    const root = decodeCheckpoint(contentOf(disk, path));
    return 'kind' in root ? [] : [{ path, root }];
  });
  const newest = found.sort((one, other) => other.root.number - one.root.number)[0];
  if (newest === undefined) throw new Error('a closed pool has a root');
  return newest;
}

export function changeRoot(disk: SimDisk, change: (root: Changeable) => void): void {
  const { path, root } = newestRoot(disk);
  const changed = { ...root };
  change(changed);
  disk.damage(path, () => encodeCheckpoint(changed));
}

/** Id and offset in `pool/pages` of the first page that the root names and that matches. */
export function findPage(disk: SimDisk, matches: (page: Page) => boolean): { id: number; at: number; page: Page } {
  const { root } = newestRoot(disk);
  const data = contentOf(disk, 'pool/pages');
  for (let id = 1; id < root.slots.length; id += 1) {
    const at = (root.slots[id] ?? 0) * SLOT_BYTES;
    if (at === 0) continue;
    const page = openPage(data.slice(at, at + SLOT_BYTES), id, root.number);
    if (typeof page !== 'string' && matches(page)) return { id, at, page };
  }
  throw new Error('no such page');
}

export function changePage(disk: SimDisk, matches: (page: Page) => boolean, change: (page: Page) => void): void {
  const { root } = newestRoot(disk);
  const { at, page } = findPage(disk, matches);
  change(page);
  disk.damage('pool/pages', (data) => {
    data.set(sealPage(page, root.number), at);
    return data;
  });
}

/** One bit of such a page. */
export function flipPage(disk: SimDisk, matches: (page: Page) => boolean): number {
  const { id, at } = findPage(disk, matches);
  disk.damage('pool/pages', flipped(at + 70));
  return id;
}

export function flipped(at: number): (data: Uint8Array) => Uint8Array {
  return (data) => {
    data[at] = (data[at] ?? 0) ^ 0x10;
    return data;
  };
}

/** One bit of the first extent file: what a disk does by itself, and no crash undoes. */
export async function flipData(disk: SimDisk, offset: number): Promise<void> {
  const file = disk.open(FIRST_FILE, 'existing');
  const byte = new Uint8Array(1);
  file.read(offset, byte);
  file.write(offset, flipped(0)(byte));
  await file.sync();
  file.close();
}

/** Seals extents of the first file; `sumOf` gives another sum than that of their bytes. */
export function seal(disk: SimDisk, slots: readonly number[], sumOf = (sum: number): number => sum): void {
  const file = disk.open(FIRST_FILE, 'read');
  changeRoot(disk, (root) => {
    const id = root.slots.length;
    const slot = Math.max(...root.slots) + 1;
    const page = newPage(id, 'sums', 1);
    for (const at of slots) {
      const extent = new Uint8Array(EXTENT);
      file.read(at * EXTENT, extent);
      page.words[at % SUMS_PER_PAGE] = sumOf(extentSum(extent));
    }
    root.slots = Uint32Array.of(...root.slots, slot);
    root.references = Uint32Array.of(...root.references, 1);
    root.files = root.files.map((stored) =>
      stored.fileNumber === 1 ? { ...stored, sums: Uint32Array.of(id, ...stored.sums.subarray(1)) } : stored,
    );
    disk.damage('pool/pages', (data) => {
      const longer = new Uint8Array(Math.max(data.length, (slot + 1) * SLOT_BYTES));
      longer.set(data);
      longer.set(sealPage(page, root.number), slot * SLOT_BYTES);
      return longer;
    });
  });
}

/** Slots of the first file that entries name, as extent or base. */
export function namedSlots(disk: SimDisk): number[] {
  const { words } = findPage(disk, (page) => page.type === 'references' && page.owner === 1).page;
  return [...words.keys()].filter((slot) => words[slot] !== 0);
}
