import { describe, expect, it } from 'vitest';
import type { Failure } from '../../src/base/errors.ts';
import { afterPowerLoss, BLOCK, bytes, check, EXTENT, GIB, KIB, MIB, newDisk, openPool, quiet, uuid } from './pool.ts';

const A = uuid(1);
const B = uuid(2);
const S = uuid(3);
const T = uuid(4);

async function codeOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'no failure',
    (error: Failure) => error.code ?? String(error),
  );
}

/** Compared as a whole: an element at a time is slow. */
function expectAll(found: Uint8Array, length: number, value: number): void {
  expect(Buffer.compare(found, bytes(length, value)), `${length} bytes of ${value}, found ${found[0]} …`).toBe(0);
}

describe('volumes', () => {
  it('read as zeros where nothing was written, and as written elsewhere', async () => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
    await pool.write(A, 100 * MIB + 512, bytes(3 * BLOCK, 7));
    expectAll(await pool.read(A, 100 * MIB, 512), 512, 0);
    expectAll(await pool.read(A, 100 * MIB + 512, 3 * BLOCK), 3 * BLOCK, 7);
    expectAll(await pool.read(A, 0, BLOCK), BLOCK, 0);
  });

  it('are published listed or not, and change that under the same name', async () => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
    const export_ = { name: 'secret', targetId: A, readOnly: false, description: '' };
    await pool.engine.publish({ ...export_, isListed: false });
    expect(pool.plane.listed()).not.toContain('secret');
    await pool.engine.publish({ ...export_, isListed: true });
    expect(pool.plane.listed()).toContain('secret');
  });

  it('keep what was flushed when the power fails', async () => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
    await pool.write(A, 0, bytes(EXTENT, 1));
    await pool.flush(A);
    const disk = afterPowerLoss(pool);
    expect(check(disk).violations).toEqual([]);
    expectAll(await (await openPool(disk)).read(A, 0, EXTENT), EXTENT, 1);
  });

  it('have their writes committed by the timer when nobody flushes', async () => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
    await pool.write(A, 0, bytes(BLOCK, 1));
    pool.clock.advance(10_000);
    await quiet();
    expectAll(await (await openPool(afterPowerLoss(pool))).read(A, 0, BLOCK), BLOCK, 1);
  });

  it.each([0, -4096, 4097, 64 * 2 ** 40 + 4096, Number.NaN])(
    'are refused with a size of %d bytes',
    async (sizeBytes) => {
      const pool = await openPool(newDisk());
      expect(await codeOf(pool.engine.createVolume({ id: A, sizeBytes, sourceId: null }))).toBe('bad_request');
    },
  );

  it.each([4096, 64 * 2 ** 40])('work at the limit of %d bytes, to the last block', async (sizeBytes) => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: A, sizeBytes, sourceId: null });
    await pool.write(A, sizeBytes - BLOCK, bytes(BLOCK, 9));
    await pool.flush(A);
    expectAll(await pool.read(A, sizeBytes - BLOCK, BLOCK), BLOCK, 9);
    expect((await pool.engine.map(A)).at(-1)).toEqual({ offset: sizeBytes - BLOCK, length: BLOCK, kind: 'data' });
    await pool.engine.close();
    expect(check(pool.disk).violations).toEqual([]);
  });

  it('grow while in use, across the heights of their map', async () => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: A, sizeBytes: MIB, sourceId: null });
    await pool.write(A, 0, bytes(BLOCK, 1));
    for (const sizeBytes of [33 * GIB, 33 * 1024 * GIB]) {
      await pool.engine.resizeVolume({ id: A, sizeBytes });
      await pool.write(A, sizeBytes - BLOCK, bytes(BLOCK, 2));
      await pool.flush(A);
    }
    expectAll(await pool.read(A, 0, BLOCK), BLOCK, 1);
    expectAll(await pool.read(A, 33 * GIB - BLOCK, BLOCK), BLOCK, 2);
    expect(await codeOf(pool.engine.resizeVolume({ id: A, sizeBytes: MIB }))).toBe('bad_request');
    expect(check(afterPowerLoss(pool)).violations).toEqual([]);
  });

  it('are created, resized and deleted once however often it is asked', async () => {
    const pool = await openPool(newDisk());
    const create = { id: A, sizeBytes: MIB, sourceId: null };
    await Promise.all([pool.engine.createVolume(create), pool.engine.createVolume(create)]);
    await pool.engine.resizeVolume({ id: A, sizeBytes: 2 * MIB });
    await pool.engine.resizeVolume({ id: A, sizeBytes: 2 * MIB });
    expect(await pool.engine.usage(null)).toHaveLength(1);
    await pool.engine.delete(A);
    await pool.engine.delete(A);
    expect(await pool.engine.usage(null)).toEqual([]);
  });

  it('are not deleted while clients are connected, and afterwards they are', async () => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: A, sizeBytes: MIB, sourceId: null });
    const handle = await pool.handle(A);
    pool.plane.setConnections(handle, 2);
    expect(await codeOf(pool.engine.delete(A))).toBe('wrong_state');
    pool.plane.setConnections(handle, 0);
    await pool.engine.delete(A);
    expect(() => pool.plane.handleOf(A)).toThrow();
  });

  it('give their space back when they are deleted: files, pages and counts', async () => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
    await pool.write(A, 0, bytes(4 * MIB, 1));
    await pool.flush(A);
    await pool.engine.delete(A);
    await pool.engine.settle();
    expect((await pool.engine.stats()).mappedBytes).toBe(0);
    expect(pool.disk.list('pool/extents')).toEqual([]);
    await pool.engine.close();
    expect(check(pool.disk)).toMatchObject({ violations: [], pages: 0, extents: 0 });
  });

  it('give trimmed space back in the background', async () => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
    await pool.write(A, 0, bytes(4 * MIB, 1));
    await pool.flush(A);
    const before = pool.disk.space().freeBytes;
    await pool.trim(A, MIB, 2 * MIB);
    await pool.flush(A);
    for (let second = 0; second < 3; second += 1) {
      pool.clock.advance(1000);
      await quiet();
    }
    expect(pool.disk.space().freeBytes).toBeGreaterThanOrEqual(before + 2 * MIB - EXTENT);
    expectAll(await pool.read(A, 0, MIB), MIB, 1);
    expectAll(await pool.read(A, MIB, 2 * MIB), 2 * MIB, 0);
  });
});

describe('snapshots and clones', () => {
  it('keep what was there when the volume goes on', async () => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
    await pool.write(A, 0, bytes(EXTENT, 1));
    await pool.engine.createSnapshot({ id: S, volumeId: A });
    await pool.write(A, BLOCK, bytes(BLOCK, 2));
    await pool.engine.createSnapshot({ id: T, volumeId: A });
    await pool.write(A, 2 * BLOCK, bytes(100, 3));
    expectAll(await pool.read(S, 0, EXTENT), EXTENT, 1);
    expectAll(await pool.read(T, BLOCK, BLOCK), BLOCK, 2);
    expectAll(await pool.read(T, 2 * BLOCK, BLOCK), BLOCK, 1);
    expectAll(await pool.read(A, 2 * BLOCK, 100), 100, 3);
    expectAll(await pool.read(A, 2 * BLOCK + 100, 100), 100, 1);
  });

  it('survive each other in any order of deletion', async () => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
    await pool.write(A, 0, bytes(EXTENT, 1));
    await pool.engine.createSnapshot({ id: S, volumeId: A });
    await pool.engine.createVolume({ id: B, sizeBytes: 2 * GIB, sourceId: S });
    await pool.write(B, 0, bytes(BLOCK, 2));
    await pool.engine.delete(A);
    await pool.engine.delete(S);
    await pool.engine.settle();
    expectAll(await pool.read(B, 0, BLOCK), BLOCK, 2);
    expectAll(await pool.read(B, BLOCK, EXTENT - BLOCK), EXTENT - BLOCK, 1);
    await pool.engine.delete(B);
    await pool.engine.settle();
    await pool.engine.close();
    expect(check(pool.disk)).toMatchObject({ violations: [], objects: 0, pages: 0, extents: 0 });
  });

  it('of a running volume hold every write that was acknowledged before', async () => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
    for (let index = 0; index < 40; index += 1) await pool.write(A, index * EXTENT, bytes(BLOCK, index + 1));
    const during = pool.write(A, 50 * EXTENT, bytes(BLOCK, 200));
    await pool.engine.createSnapshot({ id: S, volumeId: A });
    await during;
    for (let index = 0; index < 40; index += 1) {
      expectAll(await pool.read(S, index * EXTENT, BLOCK), BLOCK, index + 1);
    }
  });

  it('cost no extents until something is written', async () => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
    await pool.write(A, 0, bytes(MIB, 1));
    await pool.flush(A);
    const before = (await pool.engine.stats()).mappedBytes;
    for (let index = 0; index < 100; index += 1)
      await pool.engine.createVolume({ id: uuid(100 + index), sizeBytes: GIB, sourceId: A });
    expect((await pool.engine.stats()).mappedBytes).toBe(before);
  });

  it('leave the volume writing in place again once they are deleted', async () => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
    await pool.write(A, 0, bytes(EXTENT, 1));
    await pool.engine.createSnapshot({ id: S, volumeId: A });
    await pool.engine.delete(S);
    await pool.engine.settle();
    await quiet();
    const before = (await pool.engine.stats()).mappedBytes;
    await pool.write(A, 0, bytes(BLOCK, 2));
    await pool.flush(A);
    expect((await pool.engine.stats()).mappedBytes).toBe(before);
    expectAll(await pool.read(A, 0, BLOCK), BLOCK, 2);
  });

  it('are what a volume becomes by revert, published or not', async () => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
    await pool.write(A, 0, bytes(BLOCK, 1));
    await pool.engine.createSnapshot({ id: S, volumeId: A });
    await pool.write(A, 0, bytes(BLOCK, 2));
    await pool.write(A, 5 * EXTENT, bytes(BLOCK, 2));
    await pool.engine.revertVolume({ id: A, snapshotId: S });
    expectAll(await pool.read(A, 0, BLOCK), BLOCK, 1);
    expectAll(await pool.read(A, 5 * EXTENT, BLOCK), BLOCK, 0);
    await pool.write(A, 0, bytes(BLOCK, 3));
    expectAll(await pool.read(S, 0, BLOCK), BLOCK, 1);
  });

  it('are refused for what does not exist', async () => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
    expect(await codeOf(pool.engine.createSnapshot({ id: S, volumeId: B }))).toBe('not_found');
    expect(await codeOf(pool.engine.createVolume({ id: B, sizeBytes: GIB, sourceId: S }))).toBe('not_found');
    expect(await codeOf(pool.engine.createVolume({ id: B, sizeBytes: MIB, sourceId: A }))).toBe('bad_request');
    expect(await codeOf(pool.engine.createSnapshot({ id: A, volumeId: A }))).toBe('conflict');
  });
});

describe('map and diff', () => {
  it('show data and holes by block, what is only in the plane included', async () => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: A, sizeBytes: MIB, sourceId: null });
    await pool.write(A, BLOCK, bytes(2 * BLOCK, 1));
    await pool.write(A, EXTENT, bytes(BLOCK, 1));
    expect(await pool.engine.map(A)).toEqual([
      { offset: 0, length: BLOCK, kind: 'hole' },
      { offset: BLOCK, length: 2 * BLOCK, kind: 'data' },
      { offset: 3 * BLOCK, length: EXTENT - 3 * BLOCK, kind: 'hole' },
      { offset: EXTENT, length: BLOCK, kind: 'data' },
      { offset: EXTENT + BLOCK, length: MIB - EXTENT - BLOCK, kind: 'hole' },
    ]);
  });

  it('find the blocks written and trimmed between two snapshots', async () => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
    await pool.write(A, 0, bytes(EXTENT, 1));
    await pool.write(A, 40 * MIB, bytes(EXTENT, 1));
    await pool.engine.createSnapshot({ id: S, volumeId: A });
    await pool.write(A, 2 * BLOCK, bytes(BLOCK, 2));
    await pool.trim(A, 40 * MIB, 3 * BLOCK);
    await pool.engine.createSnapshot({ id: T, volumeId: A });
    expect(await pool.engine.diff({ fromId: S, toId: T })).toEqual([
      { offset: 2 * BLOCK, length: BLOCK, kind: 'data' },
      { offset: 40 * MIB, length: 3 * BLOCK, kind: 'hole' },
    ]);
    expect(await pool.engine.diff({ fromId: S, toId: S })).toEqual([]);
    expect((await pool.engine.diff({ fromId: null, toId: S })).map(({ length }) => length)).toEqual([EXTENT, EXTENT]);
  });

  it('compare volumes of different heights', async () => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
    await pool.write(A, 0, bytes(BLOCK, 1));
    await pool.engine.createSnapshot({ id: S, volumeId: A });
    await pool.engine.resizeVolume({ id: A, sizeBytes: 100 * GIB });
    await pool.write(A, 99 * GIB, bytes(BLOCK, 1));
    expect(await pool.engine.diff({ fromId: S, toId: A })).toEqual([{ offset: 99 * GIB, length: BLOCK, kind: 'data' }]);
  });
});

describe('a full pool', () => {
  it('refuses writes with ENOSPC, keeps what it has, and goes on when something is deleted', async () => {
    const pool = await openPool(newDisk(1, 16 * MIB), { reserveBytes: 4 * MIB });
    await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
    await pool.engine.createVolume({ id: B, sizeBytes: GIB, sourceId: null });
    await pool.write(A, 0, bytes(4 * MIB, 1));
    await pool.flush(A);
    let errno = 0;
    for (let at = 0; errno === 0 && at < 64; at += 1) {
      await pool.write(B, at * MIB, bytes(MIB, 2)).catch((error: { errno: number }) => {
        errno = error.errno;
      });
    }
    expect(errno).toBe(28);
    expect(pool.fatal).toEqual([]);
    expect(pool.disk.space().freeBytes).toBeGreaterThanOrEqual(3 * MIB);
    expectAll(await pool.read(A, 0, 4 * MIB), 4 * MIB, 1);
    await pool.engine.delete(A);
    await pool.engine.settle();
    await pool.write(B, 512 * MIB, bytes(MIB, 3));
    expectAll(await pool.read(B, 512 * MIB, MIB), MIB, 3);
    await pool.engine.close();
    expect(check(pool.disk).violations).toEqual([]);
  });

  it('has whoever writes right after a deletion wait for its space, and not fail', async () => {
    const pool = await openPool(newDisk(1, 24 * MIB), { reserveBytes: 4 * MIB });
    await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
    await pool.engine.createVolume({ id: B, sizeBytes: 64 * GIB, sourceId: null });
    // A leaf each: its deletion takes many frames.
    for (let at = 0; at < 200; at += 1) await pool.write(B, at * 64 * MIB, bytes(BLOCK, 2)).catch(() => {});
    await pool.flush(B);
    await expect(pool.write(A, 0, bytes(20 * MIB, 1))).rejects.toMatchObject({ errno: 28 });
    await pool.engine.delete(B);
    await pool.write(A, 0, bytes(8 * MIB, 3));
    expectAll(await pool.read(A, 0, 8 * MIB), 8 * MIB, 3);
  });
});

describe('a failing disk', () => {
  it('fails the volume whose file could not be synced, and no other', async () => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
    await pool.engine.createVolume({ id: B, sizeBytes: GIB, sourceId: null });
    await pool.write(A, 0, bytes(BLOCK, 1));
    pool.disk.fail('sync', /0000001\.dat$/, 'EIO', 1);
    await expect(pool.flush(A)).rejects.toMatchObject({ errno: 5 });
    await expect(pool.read(A, 0, BLOCK)).rejects.toMatchObject({ errno: 5 });
    expect(pool.events).toMatchObject([{ kind: 'volume-failed', id: A }]);
    expect((await pool.engine.usage([A]))[0]?.failed).toContain('extent file 1');
    expect(await codeOf(pool.engine.createSnapshot({ id: S, volumeId: A }))).toBe('io_error');
    await pool.write(B, 0, bytes(BLOCK, 2));
    await pool.flush(B);
    expect(pool.fatal).toEqual([]);
  });

  it('ends everything when the journal cannot be synced, and answers nobody as if it had worked', async () => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
    await pool.write(A, 0, bytes(BLOCK, 1));
    pool.disk.fail('sync', /journal/, 'EIO', 1);
    await expect(pool.flush(A)).rejects.toMatchObject({ errno: 5 });
    expect(pool.fatal).toHaveLength(1);
    await expect(pool.engine.createVolume({ id: B, sizeBytes: GIB, sourceId: null })).rejects.toThrow();
    const again = await openPool(afterPowerLoss(pool));
    expect((await again.engine.usage(null)).map(({ id }) => id)).toEqual([A]);
  });

  it('gives EIO to who needs a map page that cannot be read, and serves the rest', async () => {
    const first = await openPool(newDisk());
    for (const id of [A, B]) {
      await first.engine.createVolume({ id, sizeBytes: GIB, sourceId: null });
      await first.write(id, 0, bytes(BLOCK, 1));
    }
    await first.engine.close();
    const pool = await openPool(first.disk);
    pool.disk.fail('read', /pages$/, 'EIO', 1);
    await expect(pool.read(A, 0, BLOCK)).rejects.toMatchObject({ errno: 5 });
    expectAll(await pool.read(B, 0, BLOCK), BLOCK, 1);
    // A later try finds the disk well again.
    expectAll(await pool.read(A, 0, BLOCK), BLOCK, 1);
    expect(pool.fatal).toEqual([]);
  });
});

describe('a data folder', () => {
  it('is refused to a second daemon', async () => {
    const pool = await openPool(newDisk());
    expect(await codeOf(openPool(pool.disk))).toBe('locked');
    await pool.engine.close();
    await openPool(pool.disk);
  });

  it('opens again after its creation was cut off anywhere', async () => {
    for (let operations = 0; operations < 40; operations += 1) {
      const disk = newDisk(operations);
      disk.operationsUntilPowerOff = operations;
      await Promise.race([openPool(disk).catch(() => null), quiet()]);
      disk.powerOff();
      const pool = await openPool(disk.afterCrash());
      await pool.engine.createVolume({ id: A, sizeBytes: 64 * KIB, sourceId: null });
      await pool.engine.close();
      expect(check(pool.disk).violations).toEqual([]);
    }
  });
});
