/** What tools/inspect prints of a pool on a real folder, whole and damaged. */

import { mkdir, open, truncate, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { main } from '../../tools/inspect.ts';
import type { SimDisk } from '../sim/files.ts';
import { tempFolder } from '../support/temp.ts';
import {
  contentOf,
  FIRST,
  FIRST_FILE,
  findPage,
  flipData,
  flipPage,
  flipped,
  namedSlots,
  newestRoot,
  seal,
} from './edit.ts';
import { BLOCK, bytes, EXTENT, GIB, newDisk, openPool, uuid } from './pool.ts';

const A = uuid(1);
const METADATA = [
  'pool/header',
  'pool/checkpoint.0',
  'pool/checkpoint.1',
  'pool/journal.0',
  'pool/journal.1',
  'pool/pages',
];

/** More than such a pool uses. */
const SLOTS_COPIED = 8;

async function filled(): Promise<SimDisk> {
  const pool = await openPool(newDisk());
  await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
  await pool.write(A, 0, bytes(EXTENT, 1));
  await pool.engine.createSnapshot({ id: uuid(2), volumeId: A });
  await pool.write(A, 0, bytes(BLOCK, 2));
  await pool.engine.close();
  return pool.disk;
}

/** The pool as files, where the program finds it. */
async function onDisk(disk: SimDisk, folder: string): Promise<void> {
  for (const path of METADATA) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), contentOf(disk, path));
  }
  await mkdir(join(folder, 'pool', 'extents'));
  await writeFile(join(folder, FIRST_FILE), '');
  await truncate(join(folder, FIRST_FILE), GIB);
  const file = await open(join(folder, FIRST_FILE), 'r+');
  const source = disk.open(FIRST_FILE, 'read');
  for (let slot = 0; slot < SLOTS_COPIED; slot += 1) {
    const extent = new Uint8Array(EXTENT);
    source.read(slot * EXTENT, extent);
    await file.write(extent, 0, EXTENT, slot * EXTENT);
  }
  await file.close();
}

async function inspect(disk: SimDisk, ...args: string[]): Promise<string> {
  await using folder = await tempFolder();
  await onDisk(disk, folder.path);
  const lines: string[] = [];
  expect(main([folder.path, ...args], (text) => lines.push(text))).toBe(0);
  return lines.join('\n');
}

const isTop = (page: { type: string; bases: Uint32Array }): boolean => page.type === 'leaf' && page.bases[0] !== 0;

describe('inspect', () => {
  it('prints header, roots and one root with its tables', async () => {
    const disk = await filled();
    const { root } = newestRoot(disk);
    expect(await inspect(disk, 'header')).toBe(`pool id: ${root.poolId}\nbytes per journal half: ${256 * 1024}`);
    expect(await inspect(disk, 'roots')).toContain(`number: ${root.number}\n`);
    const text = await inspect(disk, 'root', String(root.number));
    expect(text).toContain(`number 1, kind volume, uuid ${A}, size in bytes ${GIB}`);
    expect(text).toContain('page table:\n  id 1, slot ');
  });

  it('prints pages of each type, and the way through a map down to an entry', async () => {
    const disk = await filled();
    seal(disk, namedSlots(disk));
    const leaf = findPage(disk, isTop);
    const [extent = 0, base = 0] = [leaf.page.words[0], leaf.page.bases[0]];
    const entry = `index 0, extent ${extent}, present bits 0000000000000001, base ${base}, base mask 111111111111111`;
    expect(await inspect(disk, 'page', String(leaf.id))).toContain(entry);
    for (const [type, name] of [
      ['inner', 'children'],
      ['references', 'references'],
      ['sums', 'sums'],
    ]) {
      const { id } = findPage(disk, (page) => page.type === type);
      expect(await inspect(disk, 'page', String(id))).toContain(`${name}:\n  index `);
    }
    const map = JSON.parse(await inspect(disk, 'map', A, '4096', '--json'));
    expect(map).toMatchObject({ kind: 'volume', leaf: 0, entry: { index: 0, extent, base } });
    expect(map.way).toMatchObject([{ level: 1 }, { level: 0, page: leaf.id }]);
    expect(await inspect(disk, 'map', A, String(512 * EXTENT))).toContain('entry: a hole');
  });

  it('prints an extent file, an extent with its sum, and frames with their records', async () => {
    const disk = await filled();
    const [slot = 0] = namedSlots(disk);
    seal(disk, [slot]);
    expect(await inspect(disk, 'file', '1')).toContain(`used extents: 2\n`);
    const extent = JSON.parse(await inspect(disk, 'extent', String(FIRST + slot), '--json'));
    expect(extent).toMatchObject({ 'file number': 1, slot, references: 2, 'marked as damaged': false });
    expect(extent.sum).toBe(extent['CRC-32 of its bytes']);
    const journal = JSON.parse(await inspect(disk, 'journal', '--json'));
    const records = Object.values<{ records: { type: string }[] }[]>(journal)
      .flat()
      .flatMap((frame) => frame.records);
    expect(records.map(({ type }) => type)).toEqual(expect.arrayContaining(['create', 'file-create', 'changes']));
  });

  it('names one changed bit in each structure, and goes on', async () => {
    const change = async (path: string, at: number, ...args: string[]): Promise<string> => {
      const disk = await filled();
      disk.damage(path, flipped(at));
      return await inspect(disk, ...args);
    };
    expect(await change('pool/header', 40, 'header')).toBe('damaged: checksum mismatch');
    const { path } = newestRoot(await filled());
    const roots = await change(path, 90, 'roots');
    expect(roots).toContain('damaged: checksum mismatch');
    expect(roots.match(/^checkpoint\.[01]:$/gm)).toHaveLength(2);
    expect(await change('pool/journal.0', 40, 'journal')).toContain('at byte 0, damaged a frame that is damaged');
    const disk = await filled();
    const leaf = flipPage(disk, isTop);
    expect(await inspect(disk, 'page', String(leaf))).toContain('checksum mismatch');
    expect(await inspect(disk, 'map', A, '0')).toMatch(/level 1, page \d+.*\n.*level 0.*checksum mismatch/);
    const data = await filled();
    const [slot = 0] = namedSlots(data);
    seal(data, [slot]);
    await flipData(data, slot * EXTENT);
    expect(await inspect(data, 'extent', String(FIRST + slot))).toContain('damaged: its bytes do not have its sum');
  });

  it('says what it cannot find, with exit code 1', async () => {
    await using folder = await tempFolder();
    await onDisk(await filled(), folder.path);
    const print = (text: string): never => {
      throw new Error(text);
    };
    for (const args of [['root', '99'], ['map', uuid(9), '0'], ['page', 'x'], ['nothing'], []])
      expect(main([folder.path, ...args], print)).toBe(1);
    expect(main([join(folder.path, 'none'), 'header'], print)).toBe(1);
  });
});
