/** The scrub: what snapshots keep gets sums, and what the disk changes is found, named and never served. */

import { describe, expect, it } from 'vitest';
import { IoError } from '../sim/plane.ts';
import { Random } from '../sim/random.ts';
import { flipPage } from './edit.ts';
import { afterPowerLoss, BLOCK, bytes, check, EXTENT, GIB, newDisk, openPool, type Pool, quiet, uuid } from './pool.ts';

const A = uuid(1);
const S = uuid(2);
const C = uuid(3);
const FILE = 'pool/extents/0000001.dat';
const FAST = { scrubBytesPerSecond: 0, scrubIntervalMs: 0 };

/** A volume with `count` extents, each with a byte of its own, and a snapshot of it. */
async function kept(count = 40): Promise<Pool> {
  const pool = await openPool(newDisk(), FAST);
  await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
  for (let index = 0; index < count; index += 1) await pool.write(A, index * EXTENT, bytes(EXTENT, index + 1));
  await pool.flush(A);
  await pool.engine.createSnapshot({ id: S, volumeId: A });
  return pool;
}

function flip(pool: Pool, path: string, at: number): void {
  pool.disk.flipBit(path, at);
}

describe('a scrub', () => {
  it('gives a sum to what a snapshot keeps, once, and compares it from then on', async () => {
    const pool = await kept();
    expect(await pool.engine.scrub()).toMatchObject({ sealedBytes: 40 * EXTENT, findings: [], damagedBytes: 0 });
    expect(await pool.engine.scrub()).toMatchObject({ sealedBytes: 0, comparedBytes: 40 * EXTENT, findings: [] });
    await pool.engine.close();
    expect(check(pool.disk).violations).toEqual([]);
  });

  it('leaves alone what a volume has for itself: it may change at any moment', async () => {
    const pool = await kept();
    await pool.write(A, 100 * EXTENT, bytes(EXTENT, 7));
    await pool.flush(A);
    expect(await pool.engine.scrub()).toMatchObject({ sealedBytes: 40 * EXTENT });
  });

  it('finds a flipped bit anywhere in sealed data, names who shows it, and nobody reads it any more', async () => {
    const random = new Random(11);
    for (let round = 0; round < 10; round += 1) {
      const pool = await kept();
      await pool.engine.createVolume({ id: C, sizeBytes: GIB, sourceId: S });
      await pool.engine.scrub();
      const index = random.below(40);
      flip(pool, FILE, index * EXTENT + random.below(EXTENT));
      const { findings, damagedBytes } = await pool.engine.scrub();
      expect(damagedBytes).toBe(EXTENT);
      expect(findings).toMatchObject([{ path: FILE, reason: expect.stringContaining(`slot ${index}:`) }]);
      const shown = findings[0]?.shown ?? [];
      expect(shown.map(({ id, offset, length }) => [id, offset, length]).sort()).toEqual(
        [A, C, S].map((id) => [id, index * EXTENT, EXTENT]).sort(),
      );
      for (const id of [A, S, C]) await expect(pool.read(id, index * EXTENT, BLOCK)).rejects.toThrow(IoError);
      const other = (index + 1) % 40;
      expect(await pool.read(A, other * EXTENT, BLOCK)).toEqual(bytes(BLOCK, other + 1));
      expect(pool.events).toContainEqual(
        expect.objectContaining({ kind: 'damage', reason: expect.stringContaining(S) }),
      );
      await pool.engine.close();
      expect(check(pool.disk).violations).toEqual([]);
    }
  });

  it('remembers damage over a power loss, and forgets it with the last who shows it', async () => {
    const pool = await kept();
    await pool.engine.scrub();
    flip(pool, FILE, 3 * EXTENT + 5);
    await pool.engine.scrub();
    const again = await openPool(afterPowerLoss(pool), FAST);
    await expect(again.read(S, 3 * EXTENT, BLOCK)).rejects.toThrow(IoError);
    await quiet();
    expect((await again.engine.scrubStatus()).findings).toMatchObject([{ path: FILE }]);
    await again.engine.delete(S);
    await again.engine.delete(A);
    await again.engine.settle();
    expect(await again.engine.scrubStatus()).toMatchObject({ damagedBytes: 0, findings: [] });
    // The slots are used again, and read.
    await again.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
    for (let index = 0; index < 40; index += 1) await again.write(A, index * EXTENT, bytes(EXTENT, 9));
    for (let index = 0; index < 40; index += 1)
      expect(await again.read(A, index * EXTENT, BLOCK)).toEqual(bytes(BLOCK, 9));
  });

  it('lets blocks of a damaged extent be overwritten, and then read', async () => {
    const pool = await kept();
    await pool.engine.scrub();
    flip(pool, FILE, 3 * EXTENT + 5);
    await pool.engine.scrub();
    await pool.write(A, 3 * EXTENT, bytes(BLOCK, 99));
    expect(await pool.read(A, 3 * EXTENT, BLOCK)).toEqual(bytes(BLOCK, 99));
    await expect(pool.read(A, 3 * EXTENT + BLOCK, BLOCK)).rejects.toThrow(IoError);
    await expect(pool.write(A, 3 * EXTENT + BLOCK, bytes(100, 1))).rejects.toThrow(IoError);
    await pool.write(A, 3 * EXTENT, bytes(EXTENT, 100));
    expect(await pool.read(A, 3 * EXTENT, EXTENT)).toEqual(bytes(EXTENT, 100));
  });

  it('is mended with the right bytes, over a power loss, and with no others', async () => {
    const pool = await kept();
    await pool.write(A, 60 * EXTENT + BLOCK, bytes(BLOCK, 5));
    await pool.engine.createSnapshot({ id: C, volumeId: A });
    await pool.engine.scrub();
    const places = [
      { index: 3, right: bytes(EXTENT, 4) },
      // One block of sixteen is there; the others were never written.
      { index: 60, right: bytes(EXTENT, 77).fill(5, BLOCK, 2 * BLOCK) },
    ];
    flip(pool, FILE, 3 * EXTENT + 5);
    flip(pool, FILE, 40 * EXTENT + BLOCK + 5);
    const { findings } = await pool.engine.scrub();
    expect(findings).toHaveLength(2);
    for (const { index, right } of places) {
      const finding = findings.find(({ shown }) => shown.some(({ offset }) => offset === index * EXTENT));
      const [address, place] = [finding?.address ?? 0, finding?.shown[0]];
      if (place === undefined) throw new Error('somebody shows it');
      expect(await pool.engine.heal({ address, place, bytes: bytes(EXTENT, 99) })).toBe(false);
      await expect(pool.read(A, index * EXTENT + BLOCK, BLOCK)).rejects.toThrow(IoError);
      expect(await pool.engine.heal({ address, place, bytes: right })).toBe(true);
      expect(await pool.engine.heal({ address, place, bytes: right })).toBe(false);
      expect(await pool.read(A, index * EXTENT + BLOCK, BLOCK)).toEqual(right.slice(BLOCK, 2 * BLOCK));
    }
    const again = await openPool(afterPowerLoss(pool), FAST);
    expect(await again.engine.scrub()).toMatchObject({ damagedBytes: 0, findings: [] });
    expect(await again.read(C, 3 * EXTENT, EXTENT)).toEqual(bytes(EXTENT, 4));
  });

  it('takes what the disk cannot read twice for damaged, and a single bus error for none', async () => {
    const pool = await kept(1);
    pool.disk.fail('read', /\.dat$/, 'EIO', 1);
    expect(await pool.engine.scrub()).toMatchObject({ damagedBytes: 0, sealedBytes: EXTENT });
    pool.disk.fail('read', /\.dat$/, 'EIO', 1);
    expect(await pool.engine.scrub()).toMatchObject({ damagedBytes: 0 });
    pool.disk.fail('read', /\.dat$/, 'EIO', 5);
    expect(await pool.engine.scrub()).toMatchObject({ damagedBytes: EXTENT });
  });

  it('finds a damaged page of the tables that is not in memory, and names who loses what', async () => {
    const pool = await kept();
    await pool.engine.close();
    const again = await openPool(pool.disk, FAST);
    const slots = (await again.engine.stats()).metadataBytes / 8192;
    for (let slot = 1; slot <= slots; slot += 1) flip(again, 'pool/pages', slot * 8192 + 3000);
    expect((await again.engine.scrub()).findings).toHaveLength(slots);
    const shown = (await again.engine.scrubStatus()).findings.flatMap((finding) => finding.shown);
    expect(shown).toContainEqual({ id: S, kind: 'snapshot', offset: 0, length: GIB });
  });

  it.each(['references', 'sums'] as const)('goes on beside a damaged page of %s, which it names', async (type) => {
    const pool = await kept();
    // A second file, of a volume of its own, whose tables are sound.
    await pool.engine.createVolume({ id: C, sizeBytes: GIB, sourceId: null });
    await pool.write(C, 0, bytes(EXTENT, 9));
    await pool.engine.createSnapshot({ id: uuid(4), volumeId: C });
    if (type === 'sums') await pool.engine.scrub();
    await pool.engine.close();
    flipPage(pool.disk, (page) => page.type === type && page.owner === 1);
    const again = await openPool(pool.disk, FAST);
    const status = await again.engine.scrub();
    expect(again.fatal).toEqual([]);
    expect(status.findings).toMatchObject([{ path: 'pool/pages', address: null }]);
    expect(type === 'sums' ? status.comparedBytes : status.sealedBytes).toBe(EXTENT);
    expect(await again.read(C, 0, BLOCK)).toEqual(bytes(BLOCK, 9));
  });

  it('has a page that is still in memory written again', async () => {
    const pool = await kept();
    await pool.engine.checkpoint();
    await pool.engine.checkpoint();
    await pool.engine.scrub();
    await pool.engine.checkpoint();
    // Every slot: those that are in use among them.
    pool.disk.damage('pool/pages', (data) => data.map((byte, at) => (at % 8192 === 3000 ? byte ^ 1 : byte)));
    expect(await pool.engine.scrub()).toMatchObject({ findings: [] });
    await pool.engine.close();
    expect(check(pool.disk).violations).toEqual([]);
  });
});

describe('an extent whose snapshots are gone', () => {
  it('loses its sum before the volume writes it in place, also if the power fails right then', async () => {
    const pool = await kept(4);
    await pool.engine.scrub();
    await pool.engine.delete(S);
    await pool.engine.settle();
    await quiet();
    await pool.write(A, 0, bytes(BLOCK, 77));
    await pool.flush(A);
    const again = await openPool(afterPowerLoss(pool), FAST);
    expect(await again.engine.scrub()).toMatchObject({ damagedBytes: 0, findings: [] });
    expect(await again.read(A, 0, BLOCK)).toEqual(bytes(BLOCK, 77));
    // In place: no extent more than before.
    expect((await again.engine.stats()).mappedBytes).toBe(4 * EXTENT);
  });
});

it('a pass begins by itself when its time has come, and a pool that closes does not wait for its pace', async () => {
  const pool = await openPool(newDisk(), { scrubBytesPerSecond: EXTENT, scrubIntervalMs: 60_000 });
  await pool.engine.createVolume({ id: A, sizeBytes: GIB, sourceId: null });
  for (let index = 0; index < 8; index += 1) await pool.write(A, index * EXTENT, bytes(EXTENT, 1));
  await pool.engine.createSnapshot({ id: S, volumeId: A });
  pool.clock.advance(59_000);
  await quiet();
  expect(await pool.engine.scrubStatus()).toMatchObject({ isRunning: false, startedAt: null });
  pool.clock.advance(2_000);
  await quiet();
  expect(await pool.engine.scrubStatus()).toMatchObject({ isRunning: true });
  await pool.engine.close();
  expect(await pool.engine.scrubStatus()).toMatchObject({ isRunning: false });
});
