/** What went wrong once, each with its story. Found by the model test unless said otherwise. */

import { describe, expect, it } from 'vitest';
import { afterPowerLoss, BLOCK, bytes, check, EXTENT, GIB, KIB, newDisk, openPool, quiet, uuid } from './pool.ts';

const A = uuid(1);
const B = uuid(2);
const C = uuid(3);

describe('what went wrong once', () => {
  /**
   * The number of an extent file was free as soon as the record of its removal was applied, but the file was unlinked only after
   * that record was durable. A volume that got a new file with this number in between lost it to the unlink.
   */
  it('a file number is not given again before the old file is gone', async () => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
    await pool.engine.createVolume({ id: B, sizeBytes: GIB, sourceId: null });
    await pool.write(A, 0, bytes(BLOCK, 1));
    await pool.flush(A);
    await pool.engine.delete(A);
    await quiet();
    // The removal's record waits for the disk; meanwhile B wants its first file.
    pool.disk.isStalled = true;
    pool.clock.advance(1000);
    const writing = pool.write(B, 0, bytes(BLOCK, 2));
    await quiet();
    pool.disk.isStalled = false;
    pool.disk.releaseSyncs();
    await writing;
    await pool.flush(B);
    await quiet();
    const disk = afterPowerLoss(pool);
    expect(check(disk).violations).toEqual([]);
    expect(Buffer.compare(await (await openPool(disk)).read(B, 0, BLOCK), bytes(BLOCK, 2))).toBe(0);
  });

  /**
   * A checkpoint holds frames whose own sync has not returned. After a crash that lost those frames the journal went on behind the
   * last frame it found, and the next start took the gap in the sequence for damage and refused the pool.
   */
  it('a checkpoint that overtakes the journal does not make the next start refuse', async () => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
    // The frame of B never reaches the disk; the checkpoint that holds B does.
    pool.disk.holdBack(/journal/);
    void pool.engine.createVolume({ id: B, sizeBytes: GIB, sourceId: null }).catch(() => {});
    await quiet();
    await pool.engine.checkpoint();
    const second = await openPool(afterPowerLoss(pool));
    await second.engine.createVolume({ id: C, sizeBytes: GIB, sourceId: null });
    const third = await openPool(afterPowerLoss(second));
    expect((await third.engine.usage(null)).map(({ id }) => id).sort()).toEqual([A, B, C]);
  });

  /**
   * Frames and roots that a killed process had written and not synced were read from the page cache and built upon: slots that the last
   * durable root still named were written again. Then the power failed, and neither root was whole.
   */
  it('what a killed process left unsynced is synced before anything is built upon it', async () => {
    for (let seed = 1; seed <= 30; seed += 1) {
      const pool = await openPool(newDisk(seed));
      await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
      await pool.write(A, 0, bytes(EXTENT, 1));
      await pool.flush(A);
      await pool.engine.checkpoint();
      await pool.write(A, EXTENT, bytes(EXTENT, 2));
      await pool.flush(A);
      pool.disk.isStalled = true;
      void pool.engine.checkpoint();
      await quiet();
      const killed = pool.disk.afterKill();
      const second = await openPool(killed);
      await second.write(A, 2 * EXTENT, bytes(EXTENT, 3));
      await second.flush(A);
      killed.operationsUntilPowerOff = 3;
      void second.engine.checkpoint().catch(() => {});
      await quiet();
      const disk = afterPowerLoss(second);
      expect(check(disk).violations).toEqual([]);
      const third = await openPool(disk);
      for (const index of [0, 1, 2]) {
        expect(Buffer.compare(await third.read(A, index * EXTENT, EXTENT), bytes(EXTENT, index + 1))).toBe(0);
      }
    }
  });

  /**
   * While a frame waited for its place, more records joined it, and it was written over the end of its half. Found by reading.
   */
  it('a frame does not grow while it waits for its place', async () => {
    const pool = await openPool(newDisk(), { journalHalfBytes: 16 * KIB });
    await Promise.all(
      Array.from({ length: 400 }, (_, index) =>
        pool.engine.createVolume({ id: uuid(index + 10), sizeBytes: GIB, sourceId: null }),
      ),
    );
    await quiet();
    for (const path of ['pool/journal.0', 'pool/journal.1']) expect(pool.disk.open(path, 'read').size()).toBe(16 * KIB);
    const again = await openPool(afterPowerLoss(pool), { journalHalfBytes: 16 * KIB });
    expect(await again.engine.usage(null)).toHaveLength(400);
  });

  /**
   * The header's name in its folder became durable before those of journal and checkpoints: after a power loss a pool
   * existed that lacked them. Found by cutting off its creation everywhere (engine.test.ts).
   */
  it('a pool whose creation was cut off is made anew', async () => {
    const disk = newDisk();
    disk.operationsUntilPowerOff = 12;
    await Promise.race([openPool(disk).catch(() => null), quiet()]);
    const pool = await openPool(disk.afterCrash());
    expect(await pool.engine.usage(null)).toEqual([]);
  });

  /** A snapshot that was asked for while its volume was being closed waited for ever. Found by reading. */
  it('a freeze of a volume that is being closed ends', async () => {
    const pool = await openPool(newDisk());
    await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
    await pool.write(A, 0, bytes(BLOCK, 1));
    const results = await Promise.allSettled([
      pool.engine.delete(A),
      pool.engine.createSnapshot({ id: B, volumeId: A }),
      pool.engine.createVolume({ id: C, sizeBytes: GIB, sourceId: A }),
    ]);
    expect(results[0]?.status).toBe('fulfilled');
    await pool.engine.settle();
    await pool.engine.close();
    expect(check(pool.disk).violations).toEqual([]);
  });
});
