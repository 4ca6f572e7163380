/** What volumes and snapshots take: the figures against what deleting really frees, and what asking for them costs. */

import { describe, expect, it } from 'vitest';
import { exclusivePart } from '../../src/engine/exclusive.ts';
import { Pages } from '../../src/engine/pages.ts';
import { State } from '../../src/engine/state.ts';
import { CHANGE_WORDS, LEAF_ENTRIES, SLOTS_PER_FILE } from '../../src/native/plane.ts';
import { SimDisk } from '../sim/files.ts';
import { Random } from '../sim/random.ts';
import { BLOCK, bytes, EXTENT, GIB, MIB, newDisk, openPool, type Pool, uuid } from './pool.ts';

const SIZE = 96 * MIB;
/** In three leaves. */
const EXTENTS = [0, 1, 2, 511, 512, 513, 1024, 1500];

async function mapped(pool: Pool): Promise<number> {
  await pool.engine.settle();
  return (await pool.engine.stats()).mappedBytes;
}

async function exclusive(pool: Pool, id: string): Promise<number | null | undefined> {
  return (await pool.engine.space([id]))[0]?.exclusiveBytes;
}

/** Random writes, trims, snapshots, copies, reverts and deletions; the figures are asked for all the while. */
async function age(pool: Pool, random: Random): Promise<Set<string>> {
  const volumes = [uuid(1)];
  const all = new Set(volumes);
  const sources = new Map<string, string>();
  await pool.engine.createVolume({ id: uuid(1), sizeBytes: SIZE, sourceId: null });
  for (let step = 2; step < 80; step += 1) {
    const volume = random.pick(volumes);
    const offset = random.pick(EXTENTS) * EXTENT + random.below(16) * BLOCK;
    const length = random.pick([BLOCK, 3 * BLOCK, EXTENT]);
    const dice = random.below(100);
    if (dice < 50) await pool.write(volume, offset, bytes(length, step & 0xff));
    else if (dice < 60) await pool.trim(volume, offset, length);
    else if (dice < 75) {
      await pool.engine.createSnapshot({ id: uuid(step), volumeId: volume });
      sources.set(uuid(step), volume);
      all.add(uuid(step));
    } else if (dice < 85 && volumes.length < 4) {
      await pool.engine.createVolume({ id: uuid(step), sizeBytes: SIZE, sourceId: random.pick([...all]) });
      volumes.push(uuid(step));
      all.add(uuid(step));
    } else if (dice < 93) {
      const id = random.pick([...all].filter((one) => one !== volumes[0]).concat(uuid(0)));
      await pool.engine.delete(id);
      all.delete(id);
      if (volumes.includes(id)) volumes.splice(volumes.indexOf(id), 1);
    } else {
      const [snapshotId] = [...all].filter((id) => sources.get(id) === volume);
      if (snapshotId !== undefined) await pool.engine.revertVolume({ id: volume, snapshotId });
    }
    if (random.chance(0.5)) await pool.engine.space(random.chance(0.5) ? null : [volume]);
  }
  for (const volume of volumes) await pool.flush(volume);
  return all;
}

describe('the space that a volume or snapshot has for itself', () => {
  it.each([1, 2, 3, 4, 5, 6, 7, 8])('is what deleting it frees, in any pool and any order (seed %i)', async (seed) => {
    const random = new Random(seed);
    const pool = await openPool(newDisk(seed), { cleanPagesMax: 4 });
    const left = [...(await age(pool, random))];
    while (left.length > 0) {
      const before = await mapped(pool);
      const spaces = await pool.engine.space(null);
      expect(spaces.map(({ id }) => id).sort()).toEqual([...left].sort());
      const [id] = left.splice(random.below(left.length), 1);
      const foretold = spaces.find((space) => space.id === id);
      expect((await pool.engine.space([id ?? '']))[0]).toEqual(foretold);
      await pool.engine.delete(id ?? '');
      expect(before - (await mapped(pool)), `seed ${seed}, ${id}`).toBe(foretold?.exclusiveBytes);
    }
    await pool.engine.close();
  });

  it('is known again after a restart', async () => {
    const disk = newDisk();
    const pool = await openPool(disk);
    const left = await age(pool, new Random(9));
    await pool.engine.settle();
    const before = await pool.engine.space(null);
    await pool.engine.close();
    const again = await openPool(disk);
    expect(await again.engine.space(null)).toEqual(before);
    expect(before).toHaveLength(left.size);
    await again.engine.close();
  });

  it('is all of it until somebody shares it, and none of it right after a snapshot', async () => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: uuid(1), sizeBytes: SIZE, sourceId: null });
    await pool.write(uuid(1), 0, bytes(2 * EXTENT, 1));
    await pool.flush(uuid(1));
    expect(await pool.engine.space([uuid(1), uuid(7)])).toEqual([
      { id: uuid(1), kind: 'volume', mappedBytes: 2 * EXTENT, sharedBytes: 0, exclusiveBytes: 2 * EXTENT },
    ]);
    await pool.engine.createSnapshot({ id: uuid(2), volumeId: uuid(1) });
    for (const { sharedBytes, exclusiveBytes } of await pool.engine.space(null))
      expect([sharedBytes, exclusiveBytes]).toEqual([2 * EXTENT, 0]);
    // A block beside the old ones: the old extent is still needed by both.
    await pool.write(uuid(1), 0, bytes(BLOCK, 2));
    await pool.flush(uuid(1));
    expect(await exclusive(pool, uuid(1))).toBe(EXTENT);
    expect(await exclusive(pool, uuid(2))).toBe(0);
    await pool.write(uuid(1), 0, bytes(EXTENT, 3));
    await pool.flush(uuid(1));
    expect(await exclusive(pool, uuid(2))).toBe(EXTENT);
    await pool.engine.close();
  });

  it('is not known while a page cannot be read, which keeps nobody else from knowing', async () => {
    const disk = newDisk();
    const pool = await openPool(disk, { cleanPagesMax: 0 });
    for (const number of [1, 2]) {
      await pool.engine.createVolume({ id: uuid(number), sizeBytes: SIZE, sourceId: null });
      await pool.write(uuid(number), 0, bytes(EXTENT, 1));
      await pool.engine.createSnapshot({ id: uuid(10 + number), volumeId: uuid(number) });
      await pool.write(uuid(number), 0, bytes(EXTENT, 2));
      await pool.flush(uuid(number));
    }
    await pool.engine.checkpoint();
    await pool.engine.close();
    const again = await openPool(disk, { cleanPagesMax: 0 });
    disk.fail('read', /pages/, 'EIO', 1);
    const found = await again.engine.space(null);
    expect(found.map(({ exclusiveBytes }) => exclusiveBytes).sort()).toEqual([EXTENT, EXTENT, EXTENT, null]);
    await again.engine.close();
  });
});

describe('the walk for it', () => {
  it('looks at the pages that would go, not at the size of the volume', () => {
    const { state, volume } = largeState();
    state.apply(
      { type: 'create', number: 2, kind: 'snapshot', sizeBytes: volume.sizeBytes, sourceNumber: 1, id: uuid(2) },
      2,
    );
    // 16 extents, in one leaf of 16 TiB.
    change(state, 700_000 * 64, 16, 60 * SLOTS_PER_FILE);
    const part = exclusivePart(state, volume, { firstLeaf: 0, pagesMax: 1000 });
    expect(part).toEqual({ mapped: 16, bases: 0, nextLeaf: null, pages: 3 });
  });

  it('gives the same in parts as in one piece', () => {
    const { state, volume } = largeState();
    const whole = exclusivePart(state, volume, { firstLeaf: 0, pagesMax: Number.POSITIVE_INFINITY });
    expect(whole.mapped).toBe(volume.mapped);
    let [mapped, pages, parts] = [0, 0, 0];
    for (let firstLeaf: number | null = 0; firstLeaf !== null; parts += 1) {
      const part = exclusivePart(state, volume, { firstLeaf, pagesMax: 8 });
      expect(part.pages).toBeLessThanOrEqual(8);
      mapped += part.mapped;
      pages += part.pages;
      firstLeaf = part.nextLeaf;
    }
    expect(mapped).toBe(whole.mapped);
    expect(parts).toBeGreaterThan(10);
    expect(pages).toBeGreaterThanOrEqual(whole.pages);
  });
});

/** 16 TiB of which 64 extents each are mapped in 100 leaves far apart. */
function largeState() {
  const disk = new SimDisk({ seed: 1, totalBytes: GIB });
  const pages = new Pages(disk.open('pages', 'create'), null, { cleanMax: 1 << 20, generation: 0 });
  const state = new State(pages, uuid(99), null);
  state.apply(
    { type: 'create', number: 1, kind: 'volume', sizeBytes: 16 * 1024 * GIB, sourceNumber: 0, id: uuid(1) },
    1,
  );
  for (let fileNumber = 1; fileNumber <= 60; fileNumber += 1)
    state.apply({ type: 'file-create', fileNumber, owner: 1 }, 1);
  for (let leaf = 0; leaf < 100; leaf += 1)
    change(state, leaf * 5000 * LEAF_ENTRIES, 64, SLOTS_PER_FILE * (1 + (leaf >> 1)) + (leaf & 1) * 64);
  const volume = state.objects.get(1);
  if (volume === undefined) throw new Error('the volume was just created');
  return { state, volume };
}

function change(state: State, firstIndex: number, count: number, firstExtent: number): void {
  const changes = new Uint32Array(count * CHANGE_WORDS);
  for (let at = 0; at < count; at += 1) changes.set([firstIndex + at, firstExtent + at, 0xffff, 0], at * CHANGE_WORDS);
  state.apply({ type: 'changes', number: 1, changes }, 2);
}
