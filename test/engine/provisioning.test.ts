/** How much a pool promises, and what it says when it fills up. */

import { expect, it } from 'vitest';
import { Failure } from '../../src/base/errors.ts';
import { bytes, EXTENT, MIB, newDisk, openPool, type Pool, uuid } from './pool.ts';

const [A, B, C] = [uuid(1), uuid(2), uuid(3)] as const;
/** Beside what a pool's own files take. */
const DISK = 64 * MIB;

function poolOf(settings: { maxOverSubscription?: number; reservedPercentage?: number; reserveBytes?: number } = {}) {
  return openPool(newDisk(1, DISK), { maxOverSubscription: 4, ...settings });
}

async function refusal(work: Promise<unknown>): Promise<string | null> {
  const error = await work.then(
    () => null,
    (reason: unknown) => reason,
  );
  if (error === null) return null;
  if (error instanceof Failure && error.code === 'no_backend') return error.message;
  throw error;
}

const create = (pool: Pool, id: string, sizeBytes: number, sourceId: string | null = null) =>
  refusal(pool.engine.createVolume({ id, sizeBytes, sourceId }));

it('promises as many times its size as it may, to new volumes, copies and growth alike, and changes nothing when it refuses', async () => {
  const pool = await poolOf();
  expect(await create(pool, A, 3 * DISK)).toBeNull();
  expect(await create(pool, B, DISK + MIB)).toMatch(/4\.02 times the pool's 0\.06 GiB.*ratio is 4\./);
  expect(await create(pool, B, DISK / 2)).toBeNull();
  // Snapshots are promises of nothing.
  await pool.engine.createSnapshot({ id: uuid(9), volumeId: A });
  expect(await create(pool, C, DISK / 2 + MIB, B)).toMatch(/4\.02 times/);
  expect(await refusal(pool.engine.resizeVolume({ id: B, sizeBytes: DISK + MIB }))).toMatch(/4\.02 times/);
  expect((await pool.engine.usage([B]))[0]?.sizeBytes).toBe(DISK / 2);
  expect((await pool.engine.stats()).provisionedBytes).toBe(3.5 * DISK);
  expect(await refusal(pool.engine.resizeVolume({ id: B, sizeBytes: DISK }))).toBeNull();
  // What is there already is not refused when it is asked for again.
  await pool.engine.createVolume({ id: A, sizeBytes: 3 * DISK, sourceId: null });
  await pool.engine.delete(A);
  expect(await create(pool, C, 3 * DISK - MIB)).toBeNull();
});

it('never promises more when several ask at once', async () => {
  const pool = await poolOf();
  const ids = Array.from({ length: 12 }, (_, index) => uuid(index + 1));
  const answers = await Promise.all(ids.map((id) => create(pool, id, DISK / 2)));
  expect(answers.filter((answer) => answer === null)).toHaveLength(8);
  const copies = Array.from({ length: 3 }, (_, index) => create(pool, uuid(20 + index), DISK / 2, uuid(1)));
  expect(await Promise.all(copies)).not.toContain(null);
  expect((await pool.engine.stats()).provisionedBytes).toBe(4 * DISK);
});

it('counts only on what is free and not kept back', async () => {
  const pool = await poolOf({ maxOverSubscription: 2, reservedPercentage: 50 });
  const { freeBytes } = await pool.engine.stats();
  const room = (freeBytes - DISK / 2) * 2;
  const largest = Math.floor(room / MIB) * MIB;
  expect(await create(pool, A, largest + MIB)).toMatch(/are free for new volumes/);
  expect(await create(pool, A, largest)).toBeNull();
  // What there is may fill what is kept back for others.
  await pool.write(A, 0, bytes(40 * MIB, 1));
  await pool.flush(A);
  expect(await create(pool, B, MIB)).toMatch(/0 GiB are free for new volumes/);
});

it('says once when it fills up and when that is over, before writers notice', async () => {
  const pool = await poolOf({ reserveBytes: 4 * MIB });
  const levels = () => pool.events.map((event) => (event.kind === 'pool-level' ? event.level : event.kind));
  await create(pool, A, DISK);
  pool.clock.advance(5000);
  expect(levels()).toEqual([]);
  let offset = 0;
  const fillTo = async (roomBytes: number) => {
    while ((await pool.engine.stats()).freeBytes - 4 * MIB > roomBytes) {
      await pool.write(A, offset, bytes(EXTENT, 1));
      offset += EXTENT;
    }
    pool.clock.advance(3000);
  };
  await fillTo(11 * MIB);
  expect(levels()).toEqual(['low']);
  await fillTo(2 * MIB);
  expect(levels()).toEqual(['low', 'critical']);
  expect((await pool.engine.stats()).level).toBe('critical');
  await pool.flush(A);
  await pool.engine.delete(A);
  await pool.engine.settle();
  pool.clock.advance(1000);
  expect(levels()).toEqual(['low', 'critical', 'ok']);
  await pool.engine.close();
});

it('counts on what was deleted a moment ago, also while it is on its way back', async () => {
  const pool = await poolOf({ reserveBytes: 32 * MIB });
  expect(await create(pool, A, DISK)).toBeNull();
  // Until nothing is left: the journal takes some of the disk.
  for (let at = 0; at < DISK; at += MIB) await pool.write(A, at, bytes(MIB, 1)).catch(() => {});
  expect(await create(pool, B, DISK)).toMatch(/0 GiB are free/);
  await pool.engine.delete(A);
  expect(await create(pool, B, DISK)).toBeNull();
  await pool.write(B, 0, bytes(4 * MIB, 2));
  expect(await pool.read(B, 3 * MIB, EXTENT)).toEqual(bytes(EXTENT, 2));
});
