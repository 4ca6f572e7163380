/** What clients are told that ask, while they negotiate, for snapshots and for what changed since one. */

import { describe, expect, it } from 'vitest';
import { CHANGED_RANGES_MAX, Changes } from '../../src/engine/questions.ts';
import { BLOCK, bytes, EXTENT, GIB, MIB, newDisk, openPool, type Pool, uuid } from './pool.ts';

const VOLUME = uuid(1);
const FIRST = uuid(2);
const SECOND = uuid(3);
const CLONE = uuid(4);
const OF_CLONE = uuid(5);
const OTHER = uuid(6);
const OF_OTHER = uuid(7);

/** FIRST, a write, SECOND, a write; a clone of FIRST with a write and a snapshot; and a stranger. */
async function history(): Promise<Pool> {
  const pool = await openPool(newDisk());
  const { engine } = pool;
  await engine.createVolume({ id: VOLUME, sizeBytes: 10 * GIB, sourceId: null });
  await pool.write(VOLUME, 0, bytes(EXTENT, 1));
  await engine.createSnapshot({ id: FIRST, volumeId: VOLUME });
  await pool.write(VOLUME, 5 * GIB, bytes(BLOCK, 2));
  await engine.createSnapshot({ id: SECOND, volumeId: VOLUME });
  await pool.write(VOLUME, BLOCK, bytes(BLOCK, 3));
  await engine.createVolume({ id: CLONE, sizeBytes: 10 * GIB, sourceId: FIRST });
  await pool.write(CLONE, MIB, bytes(BLOCK, 4));
  await engine.createSnapshot({ id: OF_CLONE, volumeId: CLONE });
  await engine.createVolume({ id: OTHER, sizeBytes: 10 * GIB, sourceId: null });
  await engine.createSnapshot({ id: OF_OTHER, volumeId: OTHER });
  return pool;
}

async function ask(pool: Pool, id: string, snapshotId: string | null): Promise<number[] | null> {
  await pool.engine.publish({ name: id, targetId: id, readOnly: false, isListed: true, description: '' });
  return (await pool.plane.ask(pool.plane.handleOf(id), snapshotId))?.map(Number) ?? null;
}

async function snapshotsOf(pool: Pool, id: string): Promise<string[]> {
  await pool.engine.publish({ name: id, targetId: id, readOnly: false, isListed: true, description: '' });
  const words = (await pool.plane.ask(pool.plane.handleOf(id), null)) ?? [];
  const digits = words.map((word) => word.toString(16).padStart(16, '0')).join('');
  return (digits.match(/.{32}/g) ?? []).map((id) => id.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-'));
}

describe('a client that negotiates', () => {
  it('is told the snapshots behind a volume, a snapshot or a clone, newest first, and nobody else', async () => {
    const pool = await history();
    expect(await snapshotsOf(pool, VOLUME)).toEqual([SECOND, FIRST]);
    expect(await snapshotsOf(pool, SECOND)).toEqual([FIRST]);
    expect(await snapshotsOf(pool, FIRST)).toEqual([]);
    expect(await snapshotsOf(pool, CLONE)).toEqual([OF_CLONE, FIRST]);
    expect(await snapshotsOf(pool, OTHER)).toEqual([OF_OTHER]);
  });

  it('is told what changed since one of them, with what was written a moment ago and never flushed', async () => {
    const pool = await history();
    expect(await ask(pool, VOLUME, SECOND)).toEqual([BLOCK, 2 * BLOCK]);
    expect(await ask(pool, VOLUME, FIRST)).toEqual([BLOCK, 2 * BLOCK, 5 * GIB, 5 * GIB + BLOCK]);
    expect(await ask(pool, SECOND, FIRST)).toEqual([5 * GIB, 5 * GIB + BLOCK]);
    expect(await ask(pool, CLONE, FIRST)).toEqual([MIB, MIB + BLOCK]);
    expect(await ask(pool, CLONE, OF_CLONE)).toEqual([]);
    // Data that became zeros have changed as well as new data have.
    await pool.trim(VOLUME, 0, BLOCK);
    expect(await ask(pool, VOLUME, SECOND)).toEqual([0, 2 * BLOCK]);
  });

  it('is told nothing about snapshots of others, of the future, or that are gone', async () => {
    const pool = await history();
    for (const [id, snapshotId] of [
      [VOLUME, OF_OTHER],
      [VOLUME, OF_CLONE],
      [FIRST, SECOND],
      [CLONE, SECOND],
      [SECOND, SECOND],
      [VOLUME, VOLUME],
      [VOLUME, uuid(99)],
    ] as const)
      expect(await ask(pool, id, snapshotId), `${id} ${snapshotId}`).toBeNull();
    await pool.engine.delete(FIRST);
    expect(await ask(pool, VOLUME, FIRST)).toBeNull();
    expect(await ask(pool, VOLUME, SECOND)).toEqual([BLOCK, 2 * BLOCK]);
  });

  it('gets an answer that took many turns as from one', async () => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: VOLUME, sizeBytes: 40 * GIB, sourceId: null });
    await pool.engine.createSnapshot({ id: FIRST, volumeId: VOLUME });
    const offsets = Array.from({ length: 200 }, (_, index) => index * 160 * MIB + (index % 7) * BLOCK);
    for (const offset of offsets) await pool.write(VOLUME, offset, bytes(BLOCK, 1));
    expect(await ask(pool, VOLUME, FIRST)).toEqual(offsets.flatMap((offset) => [offset, offset + BLOCK]));
  });
});

describe('a list of changes', () => {
  it('joins what touches, and what is close once there are too many, losing nothing', () => {
    const changes = new Changes(4);
    const add = (offset: number, length: number) => changes.add({ offset, length, kind: 'data' });
    add(0, BLOCK);
    add(BLOCK, BLOCK);
    for (const offset of [MIB, MIB + 2 * BLOCK, 9 * MIB]) add(offset, BLOCK);
    const before = [0, 2 * BLOCK, MIB, MIB + BLOCK, MIB + 2 * BLOCK, MIB + 3 * BLOCK, 9 * MIB, 9 * MIB + BLOCK];
    expect([...changes.words()].map(Number)).toEqual(before);
    add(20 * MIB, BLOCK);
    const after = [0, 2 * BLOCK, MIB, MIB + 3 * BLOCK, 9 * MIB, 9 * MIB + BLOCK, 20 * MIB, 20 * MIB + BLOCK];
    expect([...changes.words()].map(Number)).toEqual(after);
    expect(CHANGED_RANGES_MAX).toBeGreaterThan(1000);
  });
});
