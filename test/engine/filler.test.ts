/** Extents of which a few blocks are needed by one entry only: filled up in the background, at a bounded rate, and given back. */

import { expect, it } from 'vitest';
import { afterPowerLoss, BLOCK, bytes, check, EXTENT, MIB, newDisk, openPool, type Pool, quiet, uuid } from './pool.ts';

const [V, S, T] = [uuid(1), uuid(2), uuid(3)] as const;
const COUNT = 12;

/** Each extent of the volume has one block of its own, the rest shows through from what the snapshot held. */
async function partly(pool: Pool): Promise<void> {
  await pool.engine.createVolume({ id: V, sizeBytes: 64 * MIB, sourceId: null });
  await pool.write(V, 0, bytes(COUNT * EXTENT, 1));
  await pool.engine.createSnapshot({ id: S, volumeId: V });
  for (let extent = 0; extent < COUNT; extent += 1) await pool.write(V, extent * EXTENT + BLOCK, bytes(BLOCK, 2));
  await pool.flush(V);
}

async function expectContent(pool: Pool): Promise<void> {
  const wanted = bytes(COUNT * EXTENT, 1);
  for (let extent = 0; extent < COUNT; extent += 1)
    wanted.fill(2, extent * EXTENT + BLOCK, extent * EXTENT + 2 * BLOCK);
  expect(Buffer.compare(await pool.read(V, 0, COUNT * EXTENT), wanted)).toBe(0);
}

/** Time passes, what it begins ends, and what came of it is committed. */
async function seconds(pool: Pool, count: number): Promise<void> {
  for (let second = 0; second < count; second += 1) {
    pool.clock.advance(1000);
    await quiet();
  }
  await pool.flush(V);
  await pool.engine.settle();
}

const mapped = async (pool: Pool) => (await pool.engine.stats()).mappedBytes;

it('what a deleted snapshot left behind for a few blocks becomes free, and nothing that is read changes', async () => {
  const pool = await openPool(newDisk());
  await partly(pool);
  await pool.engine.delete(S);
  await pool.engine.settle();
  expect(await mapped(pool)).toBe(2 * COUNT * EXTENT);
  expect((await pool.engine.space([V]))[0]?.exclusiveBytes).toBe(2 * COUNT * EXTENT);
  // The leaf has to be there: the first time the plane asks for it.
  await seconds(pool, 4);
  expect(await mapped(pool)).toBe(COUNT * EXTENT);
  expect((await pool.engine.space([V]))[0]?.exclusiveBytes).toBe(COUNT * EXTENT);
  expect((await pool.engine.stats()).filledBytes).toBe(COUNT * 15 * BLOCK);
  await expectContent(pool);
  const again = await openPool(afterPowerLoss(pool));
  await expectContent(again);
  await again.engine.close();
  expect(check(again.disk).violations).toEqual([]);
});

it('what another snapshot holds stays where it is', async () => {
  const pool = await openPool(newDisk());
  await partly(pool);
  await pool.engine.createVolume({ id: T, sizeBytes: 64 * MIB, sourceId: S });
  await pool.engine.delete(S);
  await seconds(pool, 4);
  expect((await pool.engine.stats()).filledBytes).toBe(0);
  await pool.engine.delete(T);
  await pool.engine.settle();
  // Nobody told the plane that the volume is alone now: the second look finds out.
  await seconds(pool, 8);
  expect(await mapped(pool)).toBe(COUNT * EXTENT);
  await expectContent(pool);
  await pool.engine.close();
});

it('no more than the rate in a second, and nothing at a rate of 0', async () => {
  for (const perSecond of [0, 3]) {
    const pool = await openPool(newDisk(), { fillBytesPerSecond: perSecond * EXTENT });
    await partly(pool);
    await pool.engine.delete(S);
    await pool.engine.settle();
    await pool.read(V, 0, BLOCK);
    for (let second = 0; second < 3; second += 1) {
      const before = (await pool.engine.stats()).filledBytes;
      pool.clock.advance(1000);
      await quiet();
      expect((await pool.engine.stats()).filledBytes - before).toBeLessThanOrEqual(perSecond * 15 * BLOCK);
    }
    const { filledBytes } = await pool.engine.stats();
    if (perSecond === 0) expect(filledBytes).toBe(0);
    else expect(filledBytes).toBeGreaterThan(0);
    await seconds(pool, 8);
    expect(await mapped(pool)).toBe((perSecond === 0 ? 2 : 1) * COUNT * EXTENT);
    await pool.engine.close();
  }
});

it('a volume deleted while it is filled leaves nothing behind and disturbs nobody', async () => {
  const pool = await openPool(newDisk());
  await partly(pool);
  await pool.engine.createVolume({ id: T, sizeBytes: 64 * MIB, sourceId: null });
  await pool.engine.delete(S);
  await pool.engine.settle();
  await pool.read(V, 0, BLOCK);
  pool.clock.advance(1000);
  await pool.engine.delete(V);
  await pool.engine.settle();
  await pool.write(T, 0, bytes(COUNT * EXTENT, 9));
  await quiet();
  await pool.flush(T);
  expect(Buffer.compare(await pool.read(T, 0, COUNT * EXTENT), bytes(COUNT * EXTENT, 9))).toBe(0);
  await pool.engine.delete(T);
  await pool.engine.settle();
  expect(await mapped(pool)).toBe(0);
  await pool.engine.close();
  expect(check(pool.disk)).toMatchObject({ violations: [], pages: 0 });
});
