/** What the judge finds. Everything here has right checksums: only counting all maps anew can tell. */

import { beforeEach, describe, expect, it } from 'vitest';
import { checkPoolAndData } from '../../src/engine/check.ts';
import type { Page } from '../../src/format/page.ts';
import type { SimDisk } from '../sim/files.ts';
import { changePage, changeRoot, FIRST, FIRST_FILE, flipData, flipPage, namedSlots, seal } from './edit.ts';
import { BLOCK, bytes, check, EXTENT, GIB, newDisk, openPool, uuid } from './pool.ts';

const A = uuid(1);
const S = uuid(2);

let disk: SimDisk;

beforeEach(async () => {
  const pool = await openPool(newDisk());
  await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
  await pool.write(A, 0, bytes(EXTENT, 1));
  await pool.write(A, EXTENT, bytes(BLOCK, 1));
  await pool.engine.createSnapshot({ id: S, volumeId: A });
  await pool.write(A, 0, bytes(BLOCK, 2));
  await pool.engine.close();
  ({ disk } = pool);
});

const kinds = (): string[] => [...new Set(check(disk).violations.map(({ kind }) => kind))].sort();
const isLeaf = (page: Page): boolean => page.type === 'leaf' && page.words[0] !== 0;
/** Position of an entry with a base. */
const withBase = (page: Page): number => page.bases.findIndex((base) => base !== 0);

describe('check', () => {
  it('finds nothing in a pool that is right, and counts what there is', () => {
    expect(check(disk)).toMatchObject({ violations: [], objects: 2, extents: 3, isTruncated: false });
  });

  it('finds a count of mapped extents that is wrong', () => {
    changeRoot(disk, (root) => {
      root.objects = root.objects.map((object) => ({ ...object, mapped: object.mapped + 1 }));
    });
    expect(check(disk).violations.map(({ kind }) => kind)).toEqual(['mapped-count', 'mapped-count']);
  });

  it('finds a count of used extents that is wrong', () => {
    changeRoot(disk, (root) => {
      root.files = root.files.map((file) => ({ ...file, used: file.used + 1 }));
    });
    expect(kinds()).toEqual(['used-count']);
  });

  it.each([1, -1])('finds page references that are off by %d', (delta) => {
    changeRoot(disk, (root) => {
      const id = root.references.findIndex((count) => count > 0);
      root.references[id] = (root.references[id] ?? 0) + delta;
    });
    expect(kinds()).toContain('page-references');
  });

  it('finds pages that nothing reaches', () => {
    changeRoot(disk, (root) => {
      root.objects = root.objects.filter(({ kind }) => kind === 'volume');
    });
    expect(kinds()).toEqual(['extent-references', 'page-references']);
  });

  it('finds two pages in one slot', () => {
    changeRoot(disk, (root) => {
      const [first = 0, second = 0] = [...root.slots.keys()].filter((id) => root.slots[id] !== 0);
      root.slots[second] = root.slots[first] ?? 0;
    });
    expect(kinds()).toEqual(['damaged']);
  });

  it('finds a map that is too low for its size', () => {
    changeRoot(disk, (root) => {
      root.objects = root.objects.map((object) => ({ ...object, sizeBytes: 2 ** 40 }));
    });
    expect(kinds()).toEqual(['map-shape']);
  });

  it('finds extent references that are wrong', () => {
    changePage(
      disk,
      (page) => page.type === 'references',
      (page) => {
        page.words[0] = (page.words[0] ?? 0) + 1;
      },
    );
    expect(kinds()).toEqual(['extent-references']);
  });

  it('finds an extent of a file that does not exist', () => {
    changePage(disk, isLeaf, (page) => {
      page.words[0] = 99 * 16384;
    });
    expect(kinds()).toContain('map-entry');
  });

  it.each([
    ['a base without a mask', (page: Page) => page.masks.fill(0)],
    ['a mask without a base', (page: Page) => page.bases.fill(0)],
    [
      'an extent that is its own base',
      (page: Page) => {
        page.bases[withBase(page)] = page.words[withBase(page) * 2] ?? 0;
      },
    ],
    [
      'a hole with a base',
      (page: Page) => {
        page.words[withBase(page) * 2] = 0;
      },
    ],
  ])('finds %s', (_what, change) => {
    changePage(disk, (page) => page.type === 'leaf' && withBase(page) >= 0, change);
    expect(kinds()).toContain('map-entry');
  });

  it('finds present bits of a hole', () => {
    changePage(disk, isLeaf, (page) => {
      page.words[101] = 1;
    });
    expect(kinds()).toEqual(['map-entry']);
  });

  it('changes nothing', () => {
    const before = disk.operations;
    disk.fail('write', /./, 'EIO', 1);
    disk.fail('sync', /./, 'EIO', 1);
    check(disk);
    expect(disk.operations).toBeGreaterThan(before);
    expect(disk.faults.map(({ remaining }) => remaining)).toEqual([1, 1]);
  });

  it('says whose bytes a damaged leaf and a wrong entry concern', () => {
    // Of the volume alone: the snapshot has the older one.
    changePage(
      disk,
      (page) => page.type === 'leaf' && withBase(page) >= 0,
      (page) => page.masks.fill(0),
    );
    flipPage(disk, (page) => page.type === 'leaf' && withBase(page) < 0);
    const { violations } = check(disk);
    expect(violations.find(({ kind }) => kind === 'map-entry')?.places).toEqual([
      { kind: 'volume', id: A, offset: 0, length: EXTENT },
    ]);
    expect(violations.find(({ kind }) => kind === 'damaged')?.places).toEqual([
      { kind: 'snapshot', id: S, offset: 0, length: 512 * EXTENT },
    ]);
  });

  it('says no more of a volume than it is long, and names everybody who shares a page', async () => {
    const pool = await openPool(disk);
    await pool.engine.createVolume({ id: uuid(5), sizeBytes: 3 * BLOCK, sourceId: null });
    await pool.write(uuid(5), 0, bytes(BLOCK, 1));
    await pool.engine.createSnapshot({ id: uuid(6), volumeId: uuid(5) });
    await pool.engine.close();
    const owner = 3;
    flipPage(disk, (page) => page.type === 'leaf' && page.owner === owner);
    expect(check(disk).violations.flatMap(({ places }) => places)).toEqual([
      { kind: 'volume', id: uuid(5), offset: 0, length: 3 * BLOCK },
      { kind: 'snapshot', id: uuid(6), offset: 0, length: 3 * BLOCK },
    ]);
  });
});

describe('check of the bytes', () => {
  it('finds nothing where every sealed extent has its sum, and says how far it is', () => {
    seal(disk, namedSlots(disk));
    const seen: number[][] = [];
    expect(checkPoolAndData(disk, (done, total) => seen.push([done, total]))).toMatchObject({
      ...{ violations: [], verifiedExtents: 3, damagedExtents: 0 },
    });
    expect(seen.at(-1)).toEqual([3 * EXTENT, 3 * EXTENT]);
  });

  it('finds one bit, with everybody who shows its extent, as extent or as base', async () => {
    const [shared = 0] = namedSlots(disk);
    seal(disk, namedSlots(disk));
    await flipData(disk, shared * EXTENT + 5 * BLOCK);
    expect(check(disk).violations).toEqual([]);
    const { violations, verifiedExtents } = checkPoolAndData(disk, () => {});
    expect(verifiedExtents).toBe(3);
    expect(violations).toMatchObject([{ kind: 'sum', path: FIRST_FILE }]);
    expect(violations[0]?.reason).toMatch(/^slot \d+: its bytes have sum [0-9a-f]{8}, not [0-9a-f]{8}$/);
    expect(violations[0]?.places).toEqual([
      { kind: 'volume', id: A, offset: 0, length: EXTENT },
      { kind: 'snapshot', id: S, offset: 0, length: EXTENT },
    ]);
  });

  it('takes a place that the disk does not give back for a damaged one, and goes on', () => {
    seal(disk, namedSlots(disk));
    disk.fail('read', /\.dat$/, 'EIO', 1);
    const { violations, verifiedExtents } = checkPoolAndData(disk, () => {});
    expect(violations).toMatchObject([{ kind: 'sum', reason: expect.stringContaining('cannot be read: EIO') }]);
    expect(verifiedExtents).toBe(3);
  });

  it('says of an extent that is marked that reads of it fail already', async () => {
    const [slot = 0] = namedSlots(disk);
    seal(disk, [slot]);
    changeRoot(disk, (root) => {
      root.damaged = [FIRST + slot];
    });
    await flipData(disk, slot * EXTENT);
    expect(check(disk)).toMatchObject({ violations: [], damagedExtents: 1 });
    expect(checkPoolAndData(disk, () => {}).violations).toMatchObject([{ reason: expect.stringContaining('marked') }]);
  });
});
