/** Law 3: a freed extent is neither granted nor punched before the record that freed it is durable and nobody can see it any more. */

import { describe, expect, it } from 'vitest';
import { BLOCK, bytes, EXTENT, GIB, MIB, newDisk, openPool, type Pool, quiet, uuid } from './pool.ts';

const A = uuid(1);

/** A volume with one extent, and what is punched from then on. */
async function oneExtent(): Promise<{ pool: Pool; punched: number[] }> {
  const pool = await openPool(newDisk());
  await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
  await pool.write(A, 0, bytes(BLOCK, 1));
  await pool.write(A, EXTENT, bytes(EXTENT, 1));
  await pool.flush(A);
  const punched: number[] = [];
  const punch = pool.plane.punchRun.bind(pool.plane);
  pool.plane.punchRun = (fileNumber, firstSlot, count) => {
    for (let slot = firstSlot; slot < firstSlot + count; slot += 1) punched.push(slot);
    return punch(fileNumber, firstSlot, count);
  };
  return { pool, punched };
}

/** Long enough for every round in which small holes are punched. */
async function timePasses(pool: Pool): Promise<void> {
  for (let second = 0; second < 8; second += 1) {
    pool.clock.advance(1000);
    await quiet();
  }
}

describe('a freed extent', () => {
  it('is held while a request that began before may still see it', async () => {
    const { pool, punched } = await oneExtent();
    const quiesced = pool.plane.quiescedEpoch.bind(pool.plane);
    const held = quiesced();
    pool.plane.quiescedEpoch = () => held;
    await pool.trim(A, 0, EXTENT);
    await pool.flush(A);
    await timePasses(pool);
    expect(punched).not.toContain(0);
    expect((await pool.engine.stats()).reclaimBytes).toBeGreaterThanOrEqual(EXTENT);
    pool.plane.quiescedEpoch = quiesced;
    await timePasses(pool);
    expect(punched).toContain(0);
  });

  it('is held while the record that freed it is not durable', async () => {
    const { pool, punched } = await oneExtent();
    await pool.trim(A, 0, EXTENT);
    pool.disk.isStalled = true;
    const flushing = pool.flush(A);
    await quiet();
    await timePasses(pool);
    expect(punched).not.toContain(0);
    expect((await pool.engine.stats()).reclaimBytes).toBeGreaterThanOrEqual(EXTENT);
    pool.disk.isStalled = false;
    pool.disk.releaseSyncs();
    await flushing;
    await timePasses(pool);
    expect(punched).toContain(0);
  });
});

describe('a leaf that is needed while a snapshot is being taken', () => {
  /** Given as own, it would be written in place although the snapshot shows it. */
  it('is given without own extents until the record of the snapshot is applied', async () => {
    const first = await openPool(newDisk());
    await first.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
    for (const index of [0, 512]) await first.write(A, index * EXTENT, bytes(BLOCK, 1));
    await first.engine.close();
    const pool = await openPool(first.disk);
    await pool.write(A, BLOCK, bytes(BLOCK, 1));
    pool.disk.isStalled = true;
    const snapshot = pool.engine.createSnapshot({ id: uuid(2), volumeId: A });
    await quiet();
    // The plane has raised its generation and syncs; the second leaf is not there yet.
    const writing = pool.write(A, 512 * EXTENT, bytes(BLOCK, 2));
    await quiet();
    pool.disk.isStalled = false;
    pool.disk.releaseSyncs();
    await Promise.all([snapshot, writing]);
    expect((await pool.read(uuid(2), 512 * EXTENT, BLOCK))[0]).toBe(1);
    expect((await pool.read(A, 512 * EXTENT, BLOCK))[0]).toBe(2);
  });
});

/** With a snapshot dropped every few seconds, on a disk that is told of each hole, a busy volume once stood still for seconds. */
it.each([
  { punchMs: 0, punched: 20 },
  { punchMs: 300, punched: 4 },
])('punching that takes $punchMs ms a hole takes a tenth of the time at most', async ({ punchMs, punched }) => {
  const pool = await openPool(newDisk());
  await pool.engine.createVolume({ id: uuid(1), sizeBytes: 64 * MIB, sourceId: null });
  await pool.write(uuid(1), 0, bytes(40 * MIB, 1));
  await pool.flush(uuid(1));
  for (let offset = 0; offset < 40 * MIB; offset += 2 * MIB) await pool.trim(uuid(1), offset, MIB);
  await pool.flush(uuid(1));
  await quiet();
  const punch = pool.plane.punchRun.bind(pool.plane);
  let [count, largest] = [0, 0];
  pool.plane.punchRun = (...run) => {
    count += 1;
    largest = Math.max(largest, run[2]);
    pool.clock.advance(punchMs);
    return punch(...run);
  };
  const until = pool.clock.now() + 10_000;
  while (pool.clock.now() < until) {
    pool.clock.advance(100);
    await quiet();
  }
  expect(count).toBeGreaterThan(1);
  expect(count).toBeLessThanOrEqual(punched);
  if (punchMs > 0) return;
  expect(count).toBe(punched);
  // Long runs go in pieces.
  await pool.write(uuid(1), 0, bytes(40 * MIB, 2));
  await pool.flush(uuid(1));
  await pool.trim(uuid(1), 0, 32 * MIB);
  await pool.flush(uuid(1));
  await pool.engine.settle();
  expect(largest).toBe(64);
});
