/** What the judge finds. Everything here has right checksums: only counting all maps anew can tell. */

import { beforeEach, describe, expect, it } from 'vitest';
import { type Checkpoint, decodeCheckpoint, encodeCheckpoint } from '../../src/format/checkpoint.ts';
import { openPage, type Page, sealPage } from '../../src/format/page.ts';
import type { SimDisk } from '../sim/files.ts';
import { BLOCK, bytes, check, EXTENT, GIB, newDisk, openPool, uuid } from './pool.ts';

const A = uuid(1);
const SLOT = 8192;
const ROOTS = ['pool/checkpoint.0', 'pool/checkpoint.1'];

type Changeable = { -readonly [Key in keyof Checkpoint]: Checkpoint[Key] };

let disk: SimDisk;

beforeEach(async () => {
  const pool = await openPool(newDisk());
  await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
  await pool.write(A, 0, bytes(EXTENT, 1));
  await pool.write(A, EXTENT, bytes(BLOCK, 1));
  await pool.engine.createSnapshot({ id: uuid(2), volumeId: A });
  await pool.write(A, 0, bytes(BLOCK, 2));
  await pool.engine.close();
  ({ disk } = pool);
});

function newestRoot(): { path: string; root: Checkpoint } {
  const found = ROOTS.flatMap((path) => {
    const file = disk.open(path, 'read');
    const data = new Uint8Array(file.size());
    file.read(0, data);
    const root = decodeCheckpoint(data);
    return 'kind' in root ? [] : [{ path, root }];
  });
  const newest = found.sort((one, other) => other.root.number - one.root.number)[0];
  if (newest === undefined) throw new Error('a closed pool has a root');
  return newest;
}

function changeRoot(change: (root: Changeable) => void): void {
  const { path, root } = newestRoot();
  const changed = { ...root };
  change(changed);
  disk.damage(path, () => encodeCheckpoint(changed));
}

/** The first page that the root names and that matches. */
function changePage(matches: (page: Page) => boolean, change: (page: Page) => void): void {
  const { root } = newestRoot();
  disk.damage('pool/pages', (data) => {
    for (let id = 1; id < root.slots.length; id += 1) {
      const at = (root.slots[id] ?? 0) * SLOT;
      if (at === 0) continue;
      const page = openPage(data.slice(at, at + SLOT), id, root.number);
      if (typeof page === 'string' || !matches(page)) continue;
      change(page);
      data.set(sealPage(page, root.number), at);
      return data;
    }
    throw new Error('no such page');
  });
}

const kinds = (): string[] => [...new Set(check(disk).violations.map(({ kind }) => kind))].sort();
const isLeaf = (page: Page): boolean => page.type === 'leaf' && page.words[0] !== 0;
/** Position of an entry with a base. */
const withBase = (page: Page): number => page.bases.findIndex((base) => base !== 0);

describe('check', () => {
  it('finds nothing in a pool that is right, and counts what there is', () => {
    expect(check(disk)).toMatchObject({ violations: [], objects: 2, extents: 3, isTruncated: false });
  });

  it('finds a count of mapped extents that is wrong', () => {
    changeRoot((root) => {
      root.objects = root.objects.map((object) => ({ ...object, mapped: object.mapped + 1 }));
    });
    expect(check(disk).violations.map(({ kind }) => kind)).toEqual(['mapped-count', 'mapped-count']);
  });

  it('finds a count of used extents that is wrong', () => {
    changeRoot((root) => {
      root.files = root.files.map((file) => ({ ...file, used: file.used + 1 }));
    });
    expect(kinds()).toEqual(['used-count']);
  });

  it.each([1, -1])('finds page references that are off by %d', (delta) => {
    changeRoot((root) => {
      const id = root.references.findIndex((count) => count > 0);
      root.references[id] = (root.references[id] ?? 0) + delta;
    });
    expect(kinds()).toContain('page-references');
  });

  it('finds pages that nothing reaches', () => {
    changeRoot((root) => {
      root.objects = root.objects.filter(({ kind }) => kind === 'volume');
    });
    expect(kinds()).toEqual(['extent-references', 'page-references']);
  });

  it('finds two pages in one slot', () => {
    changeRoot((root) => {
      const [first = 0, second = 0] = [...root.slots.keys()].filter((id) => root.slots[id] !== 0);
      root.slots[second] = root.slots[first] ?? 0;
    });
    expect(kinds()).toEqual(['damaged']);
  });

  it('finds a map that is too low for its size', () => {
    changeRoot((root) => {
      root.objects = root.objects.map((object) => ({ ...object, sizeBytes: 2 ** 40 }));
    });
    expect(kinds()).toEqual(['map-shape']);
  });

  it('finds extent references that are wrong', () => {
    changePage(
      (page) => page.type === 'references',
      (page) => {
        page.words[0] = (page.words[0] ?? 0) + 1;
      },
    );
    expect(kinds()).toEqual(['extent-references']);
  });

  it('finds an extent of a file that does not exist', () => {
    changePage(isLeaf, (page) => {
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
    changePage((page) => page.type === 'leaf' && withBase(page) >= 0, change);
    expect(kinds()).toContain('map-entry');
  });

  it('finds present bits of a hole', () => {
    changePage(isLeaf, (page) => {
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
});
