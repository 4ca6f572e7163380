/**
 * The image that everything here backs up: an ext4 filesystem of this machine's own files, and the changes made to it
 * and taken back. It knows files and places, and no program that makes backups.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { constants, createReadStream } from 'node:fs';
import { copyFile, lstat, mkdir, open, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Seeded } from './seeded.ts';

export const KIB = 1024;
export const MIB = 1 << 20;
const BLOCK_BYTES = 4 * KIB;
/** As many of each. */
const CHANGE_KIB = [4, 8, 16, 32, 64] as const;
/** Larger ones would make the image those of a few files. */
const FILE_BYTES_MAX = 32 * MIB;
const NEARLY_FULL_BYTES = MIB / 4;
/** mkfs.ext4 makes an inode for every 16 KiB. */
const INODE_BYTES = 16 * KIB;
const FILES_FROM = ['/usr/bin', '/usr/lib', '/usr/share', '/usr/include', '/usr/local'];

export type Change = { readonly offset: number; readonly data: Buffer };
export type ImageSizes = { readonly imageMib: number; readonly filesMib: number };

async function* regularFiles(folder: string): AsyncGenerator<string> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* regularFiles(path);
    else if (entry.isFile()) yield path;
  }
}

/** A mixture of all folders, the same for the same files. */
async function chosenFiles({ imageMib, filesMib }: ImageSizes): Promise<string[]> {
  const found: string[] = [];
  for (const folder of FILES_FROM) for await (const file of regularFiles(folder)) found.push(file);
  const chosen: string[] = [];
  let left = filesMib * MIB;
  // Folders need inodes, too.
  const filesMax = Math.floor((imageMib * MIB) / INODE_BYTES / 2);
  for (const path of new Seeded('files').shuffled(found)) {
    if (chosen.length === filesMax || left < NEARLY_FULL_BYTES) break;
    const { size } = await lstat(path);
    const taken = Math.ceil(size / BLOCK_BYTES) * BLOCK_BYTES;
    if (size > FILE_BYTES_MAX || taken > left) continue;
    left -= taken;
    chosen.push(path);
  }
  return chosen;
}

export async function makeImage(path: string, sizes: ImageSizes): Promise<void> {
  const tree = `${path}.tree`;
  const files = await chosenFiles(sizes);
  for (const [index, file] of files.entries()) {
    const folder = join(tree, String(index >> 8));
    if (index % 256 === 0) await mkdir(folder, { recursive: true });
    await copyFile(file, join(folder, String(index)), constants.COPYFILE_FICLONE);
  }
  const args = ['-q', '-F', '-m', '0', '-d', tree, path, `${sizes.imageMib}m`];
  const env = { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` };
  await promisify(execFile)('mkfs.ext4', args, { env });
  await rm(tree, { recursive: true });
}

/** Of the blocks that are not all zeros. */
export async function filledMib(path: string): Promise<number> {
  const zeros = Buffer.alloc(BLOCK_BYTES);
  let filled = 0;
  for await (const piece of createReadStream(path, { highWaterMark: MIB })) {
    const bytes = piece as Buffer;
    for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
      const block = bytes.subarray(at, at + BLOCK_BYTES);
      if (!block.equals(zeros.subarray(0, block.length))) filled += block.length;
    }
  }
  return filled / MIB;
}

export async function sha256Of(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const piece of createReadStream(path, { highWaterMark: MIB })) hash.update(piece as Buffer);
  return hash.digest('hex');
}

/** Anywhere in the image, where there were files and where there was nothing; no two overlap. */
export function changesOf(
  imageMib: number,
  { places, incompressible }: { places: number; incompressible: number },
): Change[] {
  const random = new Seeded('changes');
  const blocks = (imageMib * MIB) / BLOCK_BYTES;
  const taken = new Set<number>();
  const sizes = random.shuffled(
    Array.from({ length: places }, (_, index) => CHANGE_KIB[index % CHANGE_KIB.length] ?? 4),
  );
  return sizes.map((kib) => {
    const count = (kib * KIB) / BLOCK_BYTES;
    for (;;) {
      const first = random.below(blocks - count);
      const wanted = Array.from({ length: count }, (_, index) => first + index);
      if (wanted.some((block) => taken.has(block))) continue;
      for (const block of wanted) taken.add(block);
      return { offset: first * BLOCK_BYTES, data: random.data(kib * KIB, incompressible) };
    }
  });
}

/** Writes them; what was there before is what takes them back. */
export async function apply(path: string, changes: readonly Change[]): Promise<Change[]> {
  const file = await open(path, 'r+');
  try {
    const before: Change[] = [];
    for (const { offset, data } of changes) {
      const old = Buffer.alloc(data.length);
      await file.read(old, 0, old.length, offset);
      before.push({ offset, data: old });
      await file.write(data, 0, data.length, offset);
    }
    await file.sync();
    return before;
  } finally {
    await file.close();
  }
}
