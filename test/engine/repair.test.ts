/** What a repair mends, what it leaves as it is, and that a crash at any of its steps leaves the old pool or the new one. */

import { beforeEach, describe, expect, it } from 'vitest';
import { type CheckReport, checkPoolAndData } from '../../src/engine/check.ts';
import { type Plan, Repair, type RepairOptions } from '../../src/engine/repair.ts';
import { decodeFrame } from '../../src/format/frame.ts';
import type { Page } from '../../src/format/page.ts';
import { SimClock } from '../sim/clock.ts';
import { PowerOff, type SimDisk } from '../sim/files.ts';
import {
  changePage,
  changeRoot,
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
import { afterPowerLoss, BLOCK, bytes, check, EXTENT, GIB, newDisk, openPool, quiet, uuid } from './pool.ts';

const A = uuid(1);
const S = uuid(2);
const B = uuid(3);
const LEAF = 512 * EXTENT;

let disk: SimDisk;

/** A volume with a snapshot that shares most of it, and one that shares nothing. */
beforeEach(async () => {
  const pool = await openPool(newDisk());
  await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
  await pool.write(A, 0, bytes(EXTENT, 1));
  await pool.write(A, LEAF, bytes(EXTENT, 4));
  await pool.engine.createSnapshot({ id: S, volumeId: A });
  await pool.write(A, 0, bytes(BLOCK, 2));
  await pool.engine.createVolume({ id: B, sizeBytes: GIB, sourceId: null });
  await pool.write(B, 0, bytes(EXTENT, 3));
  await pool.engine.close();
  ({ disk } = pool);
});

const PLAIN: RepairOptions = { isDiscarding: false, onScrub: null, fromRoot: null };
const DISCARDING = { ...PLAIN, isDiscarding: true };
const SCRUBBING = { ...PLAIN, onScrub: () => {} };

async function repair(options: RepairOptions = PLAIN, on = disk): Promise<Plan> {
  const planned = Repair.plan(on, options);
  if (!(planned instanceof Repair)) throw new Error(planned.before.violations[0]?.reason);
  try {
    if (planned.plan.mends.length > 0) await planned.apply(new SimClock(), 'now');
    return planned.plan;
  } finally {
    planned.close();
  }
}

const kindsOf = ({ violations }: CheckReport): string[] => [...new Set(violations.map(({ kind }) => kind))].sort();

/** Everything reads as it did, or as `changed` says (null: EIO); and a volume can be written, snapshotted and deleted. */
async function expectData(changed: Record<string, number | null> = {}, on = disk): Promise<void> {
  const pool = await openPool(on);
  const expected = { 'A 0': 2, 'A 1': 1, 'A leaf': 4, 'S 0': 1, 'S leaf': 4, 'B 0': 3, ...changed };
  const at = { 0: 0, 1: BLOCK, leaf: LEAF } as Record<string, number>;
  const ids = { A, S, B } as Record<string, string>;
  for (const [what, value] of Object.entries(expected)) {
    const [name = '', place = ''] = what.split(' ');
    const found = await pool
      .read(ids[name] ?? '', at[place] ?? 0, BLOCK)
      .catch((error: { errno: number }) => error.errno);
    expect(found, what).toEqual(value === null ? 5 : bytes(BLOCK, value));
  }
  await pool.engine.close();
}

const isLeafOf =
  (owner: number) =>
  (page: Page): boolean =>
    page.type === 'leaf' && page.owner === owner;
/** Of A and its snapshot: the second one, which nobody wrote since. */
const isSharedLeaf = (page: Page): boolean => page.type === 'leaf' && newestRoot(disk).root.references[page.id] === 2;
const withBase = (page: Page): number => page.bases.findIndex((base) => base !== 0);

describe('counts', () => {
  it.each<[string, () => void, string[]]>([
    [
      'of mapped extents',
      () =>
        changeRoot(disk, (root) => {
          root.objects = root.objects.map((object) => ({ ...object, mapped: object.mapped + 7 }));
        }),
      ['mapped-count'],
    ],
    [
      'of used extents',
      () =>
        changeRoot(disk, (root) => {
          root.files = root.files.map((file) => ({ ...file, used: file.used + 1 }));
        }),
      ['used-count'],
    ],
    [
      'of references to every page, too high',
      () =>
        changeRoot(disk, (root) => {
          root.references = root.references.map((count) => (count > 0 ? count + 1 : 0));
        }),
      ['page-references'],
    ],
    [
      'of references to every page, too low',
      () =>
        changeRoot(disk, (root) => {
          root.references = root.references.map((count) => Math.max(0, count - 1));
        }),
      ['page-references'],
    ],
    [
      'of references to extents',
      () =>
        changePage(
          disk,
          (page) => page.type === 'references',
          (page) => {
            page.words.set([9, 0, 9]);
            page.words[500] = 1;
          },
        ),
      ['extent-references'],
    ],
  ])('%s are set to what the maps say, and no byte changes', async (_what, damage, kinds) => {
    damage();
    expect(kindsOf(check(disk))).toEqual(expect.arrayContaining(kinds));
    const plan = await repair();
    expect(plan).toMatchObject({ lost: [], lostFrames: null, after: { violations: [] } });
    expect(check(disk).violations).toEqual([]);
    expect((await repair()).mends).toEqual([]);
    await expectData();
  });

  it('of references whose page cannot be read are made anew', async () => {
    flipPage(disk, (page) => page.type === 'references');
    expect(kindsOf(check(disk))).toEqual(['damaged']);
    await repair();
    expect(check(disk).violations).toEqual([]);
    expect((await repair()).mends).toEqual([]);
    await expectData();
  });
});

describe('what nobody names', () => {
  it('is freed: pages, extents and files', async () => {
    changeRoot(disk, (root) => {
      root.objects = root.objects.filter(({ id }) => id !== B);
    });
    disk.open('pool/extents/0000099.dat', 'create').close();
    const { extents } = check(disk);
    const plan = await repair();
    expect(plan.mends.map(({ what }) => what)).toEqual(
      expect.arrayContaining(['pages that nothing names are freed', 'a file that no table names is removed']),
    );
    expect(check(disk)).toMatchObject({ violations: [], objects: 2, extents: extents - 1 });
    expect(disk.exists('pool/extents/0000099.dat')).toBe(false);
    expect((await repair()).mends).toEqual([]);
  });

  it('has no sum and no mark of damage any more', async () => {
    const free = namedSlots(disk).length + 40;
    seal(disk, [...namedSlots(disk), free]);
    changeRoot(disk, (root) => {
      root.damaged = [FIRST + free + 1];
    });
    expect(kindsOf(check(disk))).toEqual(['sum']);
    await repair();
    expect(checkPoolAndData(disk, () => {})).toMatchObject({
      violations: [],
      damagedExtents: 0,
      verifiedExtents: namedSlots(disk).length,
    });
    expect((await repair()).mends).toEqual([]);
  });
});

describe('a page of sums that cannot be read', () => {
  it('is dropped, and its extents can be sealed anew', async () => {
    seal(disk, namedSlots(disk));
    flipPage(disk, (page) => page.type === 'sums');
    const plan = await repair();
    expect(plan.mends).toMatchObject([{ what: expect.stringContaining('the next scrub') }, {}]);
    expect(check(disk).violations).toEqual([]);
    await expectData();
  });
});

describe('a map page that cannot be read', () => {
  it('stays as it is, and fails who reads it; nothing that may be below it is given away', async () => {
    flipPage(disk, isLeafOf(3));
    changeRoot(disk, (root) => {
      root.objects = root.objects.map((object) => ({ ...object, mapped: object.mapped + 7 }));
    });
    const { extents } = check(disk);
    const plan = await repair();
    expect(plan.lost).toEqual([]);
    expect(kindsOf(plan.after)).toEqual(['damaged', 'extent-references', 'used-count']);
    expect(plan.after.violations[0]?.places).toEqual([{ kind: 'volume', id: B, offset: 0, length: LEAF }]);
    expect(check(disk)).toMatchObject({ extents, violations: plan.after.violations });
    expect((await repair()).mends).toEqual([]);
    await expectData({ 'B 0': null });
  });

  it('becomes holes when that is asked for, and what was lost is listed by everybody who shared it', async () => {
    flipPage(disk, isSharedLeaf);
    const plan = await repair(DISCARDING);
    expect(plan.lost).toEqual([
      { kind: 'snapshot', id: S, offset: LEAF, length: LEAF },
      { kind: 'volume', id: A, offset: LEAF, length: LEAF },
    ]);
    expect(check(disk).violations).toEqual([]);
    expect((await repair(DISCARDING)).mends).toEqual([]);
    await expectData({ 'A leaf': 0, 'S leaf': 0 });
  });

  it('takes with it all that was below, and gives its space back, when it is a root', async () => {
    flipPage(disk, (page) => page.type === 'inner' && page.owner === 3);
    const { extents } = check(disk);
    const plan = await repair(DISCARDING);
    expect(plan.lost).toEqual([{ kind: 'volume', id: B, offset: 0, length: GIB }]);
    expect(check(disk)).toMatchObject({ violations: [], extents: extents - 1 });
    await expectData({ 'B 0': 0 });
  });
});

describe('a map entry that cannot be', () => {
  it('stays as it is, or becomes a hole when that is asked for', async () => {
    changePage(
      disk,
      (page) => page.type === 'leaf' && withBase(page) >= 0,
      (page) => page.masks.fill(0),
    );
    const kept = await repair();
    expect(kindsOf(kept.after)).toEqual(['map-entry']);
    const plan = await repair(DISCARDING);
    expect(plan.lost).toEqual([{ kind: 'volume', id: A, offset: 0, length: EXTENT }]);
    expect(check(disk).violations).toEqual([]);
    await expectData({ 'A 0': 0, 'A 1': 0 });
  });
});

describe('a map that is too low for its size', () => {
  it('gets empty pages above', async () => {
    changeRoot(disk, (root) => {
      root.objects = root.objects.map((object) => (object.id === A ? { ...object, sizeBytes: 2 ** 40 } : object));
    });
    await repair();
    expect(check(disk).violations).toEqual([]);
    await expectData();
  });
});

describe('bytes of an extent that are not what they were', () => {
  it('are marked by a scrub, so that reads fail; and are not any more once they are right again', async () => {
    const { page } = findPage(disk, isSharedLeaf);
    seal(disk, namedSlots(disk));
    const offset = ((page.words[0] ?? 0) - FIRST) * EXTENT;
    await flipData(disk, offset);
    expect((await repair(SCRUBBING)).after).toMatchObject({ violations: [], damagedExtents: 1 });
    expect(newestRoot(disk).root.damaged).toEqual([page.words[0]]);
    expect((await repair(SCRUBBING)).mends).toEqual([]);
    await flipData(disk, offset);
    await repair(SCRUBBING);
    expect(newestRoot(disk).root.damaged).toEqual([]);
    expect(checkPoolAndData(disk, () => {}).violations).toEqual([]);
    await expectData();
  });

  it('become holes when that is asked for, and blocks that another extent shows stay', async () => {
    const { page } = findPage(disk, (found) => found.type === 'leaf' && withBase(found) >= 0);
    const position = withBase(page);
    seal(disk, namedSlots(disk));
    await flipData(disk, ((page.bases[position] ?? 0) - FIRST) * EXTENT);
    const plan = await repair({ ...SCRUBBING, isDiscarding: true });
    expect(plan.lost).toEqual([
      { kind: 'snapshot', id: S, offset: 0, length: EXTENT },
      { kind: 'volume', id: A, offset: 0, length: EXTENT },
    ]);
    expect(checkPoolAndData(disk, () => {})).toMatchObject({ violations: [], damagedExtents: 0 });
    await expectData({ 'S 0': 0, 'A 0': 2, 'A 1': 0 });
  });

  it('of the extent on top become holes, and what is below it shows', async () => {
    const { page } = findPage(disk, (found) => found.type === 'leaf' && withBase(found) >= 0);
    const top = page.words[withBase(page) * 2] ?? 0;
    seal(disk, namedSlots(disk));
    await flipData(disk, (top - FIRST) * EXTENT);
    await repair({ ...SCRUBBING, isDiscarding: true });
    expect(checkPoolAndData(disk, () => {}).violations).toEqual([]);
    await expectData({ 'A 0': 0, 'A 1': 1 });
  });
});

describe('an extent file', () => {
  it.each([
    ['that is missing', () => disk.remove(FIRST_FILE)],
    ['that is cut', () => disk.damage(FIRST_FILE, (data) => data.slice(0, BLOCK))],
  ])('%s comes back as one whose extents cannot be read', async (_what, damage) => {
    damage();
    expect(kindsOf(check(disk))).toEqual(['extent-file']);
    const plan = await repair();
    expect(plan.after).toMatchObject({ violations: [], damagedExtents: 3 });
    expect(check(disk)).toMatchObject({ violations: [], damagedExtents: 3 });
    expect((await repair()).mends).toEqual([]);
    const pool = await openPool(disk);
    expect(pool.fatal).toEqual([]);
    await pool.engine.close();
  });
});

describe('a plan', () => {
  it('changes nothing until it is applied', () => {
    flipPage(disk, isLeafOf(3));
    changeRoot(disk, (root) => {
      root.objects = root.objects.map((object) => ({ ...object, mapped: object.mapped + 7 }));
    });
    disk.fail('write', /./, 'EIO', 1);
    disk.fail('sync', /./, 'EIO', 1);
    const planned = Repair.plan(disk, DISCARDING);
    if (!(planned instanceof Repair)) throw new Error('it can be planned');
    expect(planned.plan.lost).toHaveLength(1);
    planned.close();
    expect(disk.faults.map(({ remaining }) => remaining)).toEqual([1, 1]);
    expect(kindsOf(check(disk))).toEqual(['damaged', 'extent-references', 'mapped-count', 'used-count']);
  });

  it('keeps a copy of what there was, also where the disk does not give back all of it', async () => {
    flipPage(disk, isLeafOf(3));
    const before = new Map(METADATA.map((path) => [path, contentOf(disk, path)]));
    const planned = Repair.plan(disk, DISCARDING);
    if (!(planned instanceof Repair)) throw new Error('it can be planned');
    // The whole read, and of the slots after it the first.
    disk.fail('read', /^pool\/pages$/, 'EIO', 2);
    expect(await planned.apply(new SimClock(), 'now')).toBe('pool/before-repair-now');
    planned.close();
    for (const [path, content] of before) {
      if (path === 'pool/pages') content.fill(0, 0, 8192);
      expect(Buffer.compare(contentOf(disk, path.replace('pool/', 'pool/before-repair-now/')), content), path).toBe(0);
    }
    expect(check(disk).violations).toEqual([]);
  });

  it('that finds no space leaves the pool as it is', async () => {
    flipPage(disk, isLeafOf(3));
    const kinds = kindsOf(check(disk));
    const { totalBytes } = disk;
    disk.totalBytes -= disk.space().freeBytes;
    await expect(repair(DISCARDING)).rejects.toMatchObject({ code: 'out_of_space' });
    expect(kindsOf(check(disk))).toEqual(kinds);
    disk.totalBytes = totalBytes;
    await repair(DISCARDING);
    expect(check(disk).violations).toEqual([]);
  });
});

const METADATA = [
  ...['pool/header', 'pool/checkpoint.0', 'pool/checkpoint.1', 'pool/journal.0', 'pool/journal.1', 'pool/pages'],
];

/** Repairs with power for `operations` more writes and syncs; true when that was enough. */
async function repairUntil(on: SimDisk, operations: number, options: RepairOptions): Promise<boolean> {
  on.operationsUntilPowerOff = operations;
  try {
    await repair(options, on);
    return true;
  } catch (error) {
    if (error instanceof PowerOff) return false;
    throw error;
  }
}

describe('the power, at every step of a repair,', () => {
  it('leaves the old pool or the new one, and the next repair ends it', async () => {
    flipPage(disk, isLeafOf(3));
    changeRoot(disk, (root) => {
      root.objects = root.objects.map((object) => ({ ...object, mapped: object.mapped + 7 }));
      root.references = root.references.map((count) => (count > 0 ? count + 1 : 0));
    });
    const old = kindsOf(check(disk));
    const seen = new Set<string>();
    for (let operations = 0, isDone = false; !isDone; operations += 1) {
      const on = disk.afterKill();
      isDone = await repairUntil(on, operations, DISCARDING);
      const next = on.afterCrash();
      const kinds = kindsOf(check(next));
      expect([old, []]).toContainEqual(kinds);
      seen.add(kinds.join());
      await repair(DISCARDING, next);
      expect(check(next).violations).toEqual([]);
      await expectData({ 'B 0': 0 }, next);
    }
    expect([...seen].sort()).toEqual(['', old.join()]);
  });

  it('never makes bytes of a missing extent file read as zeros', async () => {
    disk.remove(FIRST_FILE);
    await disk.syncFolder('pool/extents');
    for (let operations = 0, isDone = false; !isDone; operations += 1) {
      const on = disk.afterKill();
      isDone = await repairUntil(on, operations, PLAIN);
      const next = on.afterCrash();
      const outcome = await openPool(next.afterKill()).catch((error: Error) => error);
      if (outcome instanceof Error) expect(outcome).toMatchObject({ code: 'corrupt', fields: { path: FIRST_FILE } });
      else await expect(outcome.read(A, 0, BLOCK)).rejects.toMatchObject({ errno: 5 });
      const last = next.afterKill();
      await repair(PLAIN, last);
      await expectData({ 'A 0': null, 'A 1': null, 'A leaf': null, 'S 0': null, 'S leaf': null }, last);
    }
  });
});

describe('a pool that does not start', () => {
  /** Two roots, and frames after the newer one: writes of 5, 6 and 7 to the first blocks of three extents of B. */
  async function withFrames(): Promise<SimDisk> {
    const pool = await openPool(disk);
    await pool.write(B, 0, bytes(BLOCK, 4));
    await pool.flush(B);
    await pool.engine.checkpoint();
    for (const index of [1, 2, 3]) {
      await pool.write(B, index * EXTENT, bytes(BLOCK, 4 + index));
      await pool.flush(B);
    }
    await quiet();
    return afterPowerLoss(pool);
  }

  const half = (on: SimDisk): { path: string; frames: number[] } => {
    const found = ['pool/journal.0', 'pool/journal.1'].map((path) => {
      const data = contentOf(on, path);
      const frames: { at: number; sequence: number }[] = [];
      for (let at = 0; at < data.length; at += 512) {
        const frame = decodeFrame(data, at);
        if (typeof frame !== 'string') frames.push({ at, sequence: frame.sequence });
      }
      return { path, frames, newest: Math.max(0, ...frames.map(({ sequence }) => sequence)) };
    });
    const newest = found.sort((one, other) => other.newest - one.newest)[0];
    const frames = newest?.frames.sort((one, other) => one.sequence - other.sequence).map(({ at }) => at) ?? [];
    return { path: newest?.path ?? '', frames };
  };

  const valuesOf = async (on: SimDisk): Promise<number[]> => {
    const pool = await openPool(on);
    const found: number[] = [];
    for (const index of [0, 1, 2, 3]) found.push((await pool.read(B, index * EXTENT, BLOCK))[0] ?? -1);
    await pool.engine.close();
    return found;
  };

  it('because of a frame in the middle, is refused with the roots to choose from, and goes on from one without what follows', async () => {
    const on = await withFrames();
    const { path, frames } = half(on);
    on.damage(path, flipped((frames.at(-2) ?? 0) + 40));
    const refused = Repair.plan(on, PLAIN);
    if (refused instanceof Repair) throw new Error('it was planned');
    const [newest] = refused.roots;
    if (newest === undefined) throw new Error('there is a root');
    expect(refused.before.violations).toMatchObject([{ kind: 'damaged', path }]);
    expect(newest.newestFrame - newest.lastFrame).toBe(2);
    const plan = await repair({ ...PLAIN, fromRoot: newest.number }, on);
    expect(plan.lostFrames).toEqual({ fromFrame: newest.lastFrame + 1, toFrame: newest.newestFrame });
    expect(check(on).violations).toEqual([]);
    expect(await valuesOf(on)).toEqual([4, 5, 0, 0]);
    // What is written from now on is found again.
    const pool = await openPool(on);
    await pool.write(B, 2 * EXTENT, bytes(BLOCK, 9));
    await pool.flush(B);
    await quiet();
    expect(await valuesOf(afterPowerLoss(pool))).toEqual([4, 5, 9, 0]);
  });

  it('because a journal half is gone, goes on without what was in it', async () => {
    const on = await withFrames();
    const { path } = half(on);
    on.remove(path);
    const { number } = newestRoot(on).root;
    const plan = await repair({ ...PLAIN, fromRoot: number }, on);
    expect(plan.mends.map(({ what }) => what)).toContain('the journal half is made anew, empty');
    expect(check(on).violations).toEqual([]);
    expect(await valuesOf(on)).toEqual([4, 0, 0, 0]);
  });

  it('because the newest root is gone, goes back to the one before', async () => {
    const on = await withFrames();
    const { path, root } = newestRoot(on);
    on.damage(path, flipped(100));
    const plan = await repair({ ...DISCARDING, fromRoot: root.number - 1 }, on);
    expect(plan.after.violations).toEqual([]);
    expect(check(on).violations).toEqual([]);
    expect((await valuesOf(on))[0]).toBeOneOf([3, 4]);
  });

  it('says which roots there are when another one is asked for, and that there is none when both are gone', async () => {
    const { number } = newestRoot(disk).root;
    expect(() => Repair.plan(disk, { ...PLAIN, fromRoot: 99 })).toThrow(
      expect.objectContaining({ code: 'bad_request', message: expect.stringContaining(String(number)) }),
    );
    for (const path of ['pool/checkpoint.0', 'pool/checkpoint.1']) disk.damage(path, () => bytes(100, 1));
    expect(Repair.plan(disk, PLAIN)).toMatchObject({ kind: 'refusal', roots: [] });
  });
});
