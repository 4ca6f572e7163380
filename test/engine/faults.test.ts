/** Faults that concern one page, one file or one moment: who it concerns gets an error, the pool goes on. Each was fatal or worse once. */

import { describe, expect, it } from 'vitest';
import type { SimDisk } from '../sim/files.ts';
import {
  afterPowerLoss,
  BLOCK,
  bytes,
  check,
  EXTENT,
  GIB,
  MIB,
  newDisk,
  openPool,
  type Pool,
  quiet,
  uuid,
} from './pool.ts';

const A = uuid(1);
const B = uuid(2);
const S = uuid(3);
const SLOT = 8192;
const LEAF = 1;
const REFERENCES = 3;

async function twoVolumes(options: { totalBytes?: number } = {}): Promise<SimDisk> {
  const pool = await openPool(newDisk(1, options.totalBytes ?? GIB));
  for (const id of [A, B]) {
    await pool.engine.createVolume({ id, sizeBytes: GIB, sourceId: null });
    await pool.write(id, 0, bytes(BLOCK, 1));
    await pool.write(id, 512 * EXTENT, bytes(BLOCK, 1));
  }
  await pool.engine.close();
  return pool.disk;
}

/** Flips a bit in the one page of this type and owner that lies in the lowest slot. */
function damagePage(disk: SimDisk, type: number, owner: number): void {
  disk.damage('pool/pages', (data) => {
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    for (let at = SLOT; at + SLOT <= data.length; at += SLOT) {
      if (view.getUint8(at + 6) !== type || view.getUint32(at + 12, true) !== owner) continue;
      view.setUint8(at + 100, view.getUint8(at + 100) ^ 1);
      return data;
    }
    throw new Error('no such page');
  });
}

function expectAll(found: Uint8Array, value: number): void {
  expect(Buffer.compare(found, bytes(found.length, value))).toBe(0);
}

describe('a capture in several parts', () => {
  /**
   * When an early part could not be applied (its map page could not be read), that was known only a turn later. The last part, served in
   * the same turn, was applied and the client's FLUSH answered as if all of it were durable. Found by reading.
   */
  it('of which an early one cannot be applied is not acknowledged', async () => {
    const pool = await openPool(await twoVolumes(), { cleanPagesMax: 0 });
    pool.plane.partMax = 1;
    // Both leaves are in the plane, none in the engine.
    await pool.write(A, 0, bytes(BLOCK, 2));
    await pool.write(A, 512 * EXTENT, bytes(BLOCK, 2));
    await pool.flush(A);
    await pool.write(A, BLOCK, bytes(BLOCK, 3));
    await pool.write(A, 512 * EXTENT + BLOCK, bytes(BLOCK, 3));
    await pool.engine.map(B);
    await pool.engine.checkpoint();
    await pool.engine.map(B);
    pool.disk.fail('read', /pages$/, 'EIO', 1);
    await expect(pool.flush(A)).rejects.toMatchObject({ errno: 5 });
    expect(pool.events).toMatchObject([{ kind: 'volume-failed', id: A }]);
    await pool.write(B, BLOCK, bytes(BLOCK, 3));
    await pool.flush(B);
    expect(pool.fatal).toEqual([]);
    const disk = afterPowerLoss(pool);
    expect(check(disk).violations).toEqual([]);
    const again = await openPool(disk);
    expectAll(await again.read(A, 0, BLOCK), 2);
    expectAll(await again.read(A, 512 * EXTENT, BLOCK), 2);
  });
});

describe('a damaged map page', () => {
  /** Dropping it in the background ended the process, and again at each start: one bad sector and a deletion took the pool away. */
  it('of a deleted volume costs the space below it and nothing else', async () => {
    const disk = await twoVolumes();
    damagePage(disk, LEAF, 2);
    let pool = await openPool(disk);
    await pool.engine.delete(B);
    await pool.engine.settle();
    expect(pool.fatal).toEqual([]);
    await pool.engine.delete(A);
    await pool.engine.settle();
    // A's two extents came back, and the one of B that could be found.
    expect((await pool.engine.stats()).mappedBytes).toBe(EXTENT);
    expect(disk.exists('pool/extents/0000001.dat')).toBe(false);
    await pool.engine.close();
    pool = await openPool(pool.disk);
    await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
    await pool.write(A, 0, bytes(BLOCK, 4));
    await pool.flush(A);
    await quiet();
    expect(pool.fatal).toEqual([]);
  });

  /** Looking for free extents read it outside of any request: the process ended. And nothing of the volume could be read. */
  it('of reference counts gives no extents away, and stops only changes to what it counts', async () => {
    const disk = await twoVolumes();
    damagePage(disk, REFERENCES, 1);
    const pool = await openPool(disk);
    await pool.write(A, 5 * EXTENT, bytes(EXTENT, 7));
    await pool.flush(A);
    expectAll(await pool.read(A, 5 * EXTENT, EXTENT), 7);
    expectAll(await pool.read(A, 0, BLOCK), 1);
    await pool.write(A, 0, bytes(BLOCK, 2));
    await expect(pool.flush(A)).rejects.toMatchObject({ errno: 5 });
    await pool.write(B, 5 * EXTENT, bytes(EXTENT, 8));
    await pool.flush(B);
    expect(pool.fatal).toEqual([]);
  });
});

describe('a disk that cannot reserve or punch space', () => {
  it('fails the writes that need new space, and no others, until it can again', async () => {
    const pool = await openPool(await twoVolumes());
    const { plane } = pool;
    const allocate = plane.allocateRun.bind(plane);
    plane.allocateRun = () => Promise.reject(new Error('fallocate failed with errno 5'));
    await expect(pool.write(A, 9 * EXTENT, bytes(BLOCK, 2))).rejects.toMatchObject({ errno: 5 });
    await pool.write(A, 0, bytes(BLOCK, 2));
    await pool.flush(A);
    plane.allocateRun = allocate;
    await pool.write(A, 9 * EXTENT, bytes(BLOCK, 2));
    await pool.flush(A);
    expect(pool.fatal).toEqual([]);
    await pool.engine.close();
    expect(check(pool.disk).violations).toEqual([]);
  });

  it('goes on without giving space back', async () => {
    const pool = await openPool(await twoVolumes());
    pool.plane.punchRun = () => Promise.reject(new Error('punching failed with errno 95'));
    await pool.trim(A, 0, EXTENT);
    await pool.flush(A);
    await pool.engine.settle();
    await pool.write(A, 0, bytes(BLOCK, 5));
    await pool.flush(A);
    expectAll(await pool.read(A, 0, BLOCK), 5);
    expect(pool.fatal).toEqual([]);
  });
});

describe('a checkpoint that finds no space', () => {
  /** Found by the model on a disk that fills up: any checkpoint that could not be written ended the process. */
  it.each([/pages$/, /checkpoint/])('in %s leaves everything as it was and is tried again', async (path) => {
    const pool = await openPool(await twoVolumes());
    await pool.write(A, 20 * EXTENT, bytes(BLOCK, 2));
    await pool.flush(A);
    pool.disk.fail('write', path, 'ENOSPC', 2);
    await expect(pool.engine.checkpoint()).rejects.toMatchObject({ code: 'out_of_space' });
    await pool.write(A, 21 * EXTENT, bytes(BLOCK, 3));
    await pool.flush(A);
    await expect(pool.engine.checkpoint()).rejects.toMatchObject({ code: 'out_of_space' });
    pool.clock.advance(1000);
    await quiet();
    const at = rootNumber(pool);
    await pool.engine.checkpoint();
    expect(rootNumber(pool)).toBe(at + 1);
    expect(pool.fatal).toEqual([]);
    const disk = afterPowerLoss(pool);
    expect(check(disk).violations).toEqual([]);
    const again = await openPool(disk);
    expectAll(await again.read(A, 20 * EXTENT, BLOCK), 2);
    expectAll(await again.read(A, 21 * EXTENT, BLOCK), 3);
  });
});

function rootNumber(pool: Pool): number {
  return Math.max(
    ...[0, 1].map((which) => {
      const file = pool.disk.open(`pool/checkpoint.${which}`, 'read');
      const head = new Uint8Array(32);
      return file.read(0, head) < 32 ? 0 : new DataView(head.buffer).getUint32(24, true);
    }),
  );
}

describe('a revert', () => {
  async function reverting(turns: number, meanwhile: (pool: Pool) => Promise<unknown>): Promise<Pool> {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: A, sizeBytes: MIB, sourceId: null });
    await pool.write(A, 0, bytes(BLOCK, 1));
    await pool.engine.createSnapshot({ id: S, volumeId: A });
    await pool.write(A, 0, bytes(BLOCK, 2));
    const revert = pool.engine.revertVolume({ id: A, snapshotId: S });
    for (let turn = 0; turn < turns; turn += 1) await Promise.resolve();
    const results = await Promise.allSettled([revert, meanwhile(pool)]);
    expect(results[1]?.status).toBe('fulfilled');
    await quiet();
    expect(pool.fatal).toEqual([]);
    return pool;
  }

  /** Its names were kept in a variable and published again, whatever had been asked meanwhile. Found by reading. */
  it('does not bring back an export that was taken away meanwhile', async () => {
    for (let turns = 0; turns < 30; turns += 1) {
      const pool = await reverting(turns, (running) => running.engine.unpublish(A));
      expect(() => pool.plane.handleOf(A)).toThrow('no export');
    }
  });

  /** The record named a snapshot that was gone, which failed an assertion and ended the process. Found by reading. */
  it('whose snapshot is deleted meanwhile either happens or is refused; the export stays', async () => {
    for (let turns = 0; turns < 30; turns += 1) {
      const pool = await reverting(turns, (running) => running.engine.delete(S));
      const found = await pool.plane.read(pool.plane.handleOf(A), 0, BLOCK);
      expect([1, 2]).toContain(found[0]);
      await pool.engine.close();
      expect(check(pool.disk).violations).toEqual([]);
    }
  });
});

describe('a volume deleted while it is given space', () => {
  it('leaves no extent file behind', async () => {
    for (let turns = 0; turns < 12; turns += 1) {
      const pool = await openPool(newDisk(turns));
      await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
      await pool.handle(A);
      pool.disk.isStalled = turns % 2 === 0;
      void pool.write(A, 0, bytes(BLOCK, 1)).catch(() => {});
      for (let turn = 0; turn < turns; turn += 1) await Promise.resolve();
      const deleting = pool.engine.delete(A);
      await quiet();
      pool.disk.isStalled = false;
      pool.disk.releaseSyncs();
      await deleting;
      await quiet();
      await pool.engine.settle();
      await pool.engine.close();
      expect(pool.fatal).toEqual([]);
      expect(pool.disk.list('pool/extents')).toEqual([]);
      expect(check(pool.disk).violations).toEqual([]);
    }
  });
});
