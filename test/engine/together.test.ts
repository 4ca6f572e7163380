/** Snapshots of several volumes at one instant: in the order of writes, in the journal, and when one of the volumes cannot. */
import { expect, it } from 'vitest';
import type { Failure } from '../../src/base/errors.ts';
import { afterPowerLoss, BLOCK, bytes, check, EXTENT, MIB, newDisk, openPool, type Pool, quiet, uuid } from './pool.ts';

const [A, B, S, T] = [uuid(1), uuid(2), uuid(3), uuid(4)];
const PAIR = [
  { id: S, volumeId: A },
  { id: T, volumeId: B },
];

async function twoVolumes(seed = 1): Promise<Pool> {
  const pool = await openPool(newDisk(seed));
  for (const id of [A, B]) await pool.engine.createVolume({ id, sizeBytes: MIB, sourceId: null });
  return pool;
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'no failure',
    (error: Failure) => error.code ?? String(error),
  );
}

async function stampOf(pool: Pool, id: string): Promise<number> {
  return new DataView((await pool.read(id, BLOCK, 4)).buffer).getUint32(0);
}

function stamped(stamp: number): Uint8Array {
  const block = new Uint8Array(BLOCK);
  new DataView(block.buffer).setUint32(0, stamp);
  return block;
}

it.each([1, 2, 3, 4, 5, 6, 7, 8])(
  'never show the second of two ordered writes without the first (seed %i)',
  async (seed) => {
    const pool = await twoVolumes(seed);
    const handles = [await pool.handle(A), await pool.handle(B)];
    let isOver = false;
    let written = 0;
    const writer = (async () => {
      for (let stamp = 1; !isOver; stamp += 1) {
        for (const handle of handles) await pool.plane.write(handle, BLOCK, stamped(stamp));
        written = stamp;
        if (stamp % 3 === seed % 3) await new Promise<void>((resolve) => setImmediate(resolve));
      }
    })();
    let newest = 0;
    for (let round = 0; round < 10; round += 1) {
      while (written < newest + 3) await new Promise<void>((resolve) => setImmediate(resolve));
      const [one, two] = [uuid(100 + 2 * round), uuid(101 + 2 * round)];
      const wanted = [
        { id: one, volumeId: A },
        { id: two, volumeId: B },
      ];
      await pool.engine.createSnapshots(round % 2 === 0 ? wanted : wanted.reverse());
      const [ahead, behind] = [await stampOf(pool, one), await stampOf(pool, two)];
      expect(ahead - behind, `${ahead} and ${behind}`).toBeGreaterThanOrEqual(0);
      expect(ahead - behind, `${ahead} and ${behind}`).toBeLessThanOrEqual(1);
      expect(ahead).toBeGreaterThan(newest);
      newest = ahead;
    }
    isOver = true;
    await writer;
    expect(pool.plane.bugs).toEqual([]);
  },
);

it('are of one instant also for a volume that begins to be served meanwhile', async () => {
  const pool = await twoVolumes();
  await pool.write(B, 0, bytes(BLOCK, 1));
  // While B is frozen and its file synced, a client comes to A and writes.
  const snapshots = pool.engine.createSnapshots(PAIR);
  const late = pool.write(A, 0, bytes(BLOCK, 9)).then(() => pool.flush(A));
  await Promise.all([snapshots, late]);
  expect([(await pool.read(S, 0, 1))[0], (await pool.read(T, 0, 1))[0]]).toEqual([0, 1]);
});

it('are all there after a power loss, or none', async () => {
  let [none, all] = [0, 0];
  for (let operations = 0; operations < 40; operations += 1) {
    const pool = await twoVolumes(operations + 1);
    for (const id of [A, B]) await pool.write(id, 0, bytes(3 * EXTENT, 5));
    pool.disk.operationsUntilPowerOff = operations;
    pool.engine.createSnapshots(PAIR).catch(() => {});
    await quiet();
    const disk = afterPowerLoss(pool);
    expect(check(disk).violations).toEqual([]);
    const again = await openPool(disk);
    const found = (await again.engine.usage([S, T])).length;
    expect([0, 2]).toContain(found);
    if (found === 0) none += 1;
    else all += 1;
    // Asked again, as control does.
    await again.engine.createSnapshots(PAIR);
    expect((await again.engine.usage([S, T])).length).toBe(2);
  }
  expect(Math.min(none, all)).toBeGreaterThan(0);
});

it('are none when the disk of one volume fails; the other volumes go on', async () => {
  const pool = await twoVolumes();
  await pool.write(A, 0, bytes(EXTENT, 1));
  await pool.write(B, 0, bytes(EXTENT, 2));
  await quiet();
  pool.disk.fail('sync', /0000001\.dat$/, 'EIO', 1);
  expect(await codeOf(pool.engine.createSnapshots(PAIR))).toBe('io_error');
  expect(await pool.engine.usage([S, T])).toEqual([]);
  expect(pool.events).toMatchObject([{ kind: 'volume-failed', id: A }]);
  expect(await codeOf(pool.engine.createSnapshots(PAIR))).toBe('io_error');
  await pool.write(B, 0, bytes(EXTENT, 3));
  await pool.flush(B);
  await pool.engine.createSnapshot({ id: T, volumeId: B });
  expect((await pool.read(T, 0, 1))[0]).toBe(3);
  expect(pool.fatal).toEqual([]);
});

it('of groups that share volumes, asked for at once in any order, all come to an end', async () => {
  const pool = await twoVolumes();
  const writes = [A, B].map((id) => pool.write(id, 0, bytes(4 * EXTENT, 1)));
  const group = (number: number, volumes: readonly string[]) =>
    pool.engine.createSnapshots(volumes.map((volumeId, at) => ({ id: uuid(10 * number + at), volumeId })));
  const single = pool.engine.createSnapshot({ id: S, volumeId: A });
  await Promise.all([group(1, [A, B]), group(2, [B, A]), single, group(3, [A]), pool.flush(B), ...writes]);
  expect((await pool.engine.stats()).snapshots).toBe(6);
});

it('wait for a volume that is being deleted, and then find it gone', async () => {
  const pool = await twoVolumes();
  await pool.write(B, 0, bytes(EXTENT, 1));
  const deleted = pool.engine.delete(B);
  expect(await codeOf(pool.engine.createSnapshots(PAIR))).toBe('not_found');
  await deleted;
  expect((await pool.engine.stats()).snapshots).toBe(0);
});

it('are possible up to 256 at once', async () => {
  const pool = await twoVolumes();
  const wanted = Array.from({ length: 257 }, (_, index) => ({ id: uuid(1000 + index), volumeId: A }));
  expect(await codeOf(pool.engine.createSnapshots(wanted))).toBe('bad_request');
  expect((await pool.engine.stats()).snapshots).toBe(0);
  await pool.engine.createSnapshots(wanted.slice(1));
  expect((await pool.engine.stats()).snapshots).toBe(256);
});
