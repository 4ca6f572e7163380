/** Damaged files: the pool refuses with what is wrong, or recovers to its last durable state. It never serves anything else. */

import { crc32 } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { Failure } from '../../src/base/errors.ts';
import type { SimDisk } from '../sim/files.ts';
import { IoError } from '../sim/plane.ts';
import { Random } from '../sim/random.ts';
import { afterPowerLoss, BLOCK, bytes, check, EXTENT, GIB, newDisk, openPool, type Pool, quiet, uuid } from './pool.ts';

const A = uuid(1);
const B = uuid(2);
const S = uuid(3);
const SLOT = 8192;

function flip(at: number): (data: Uint8Array) => Uint8Array {
  return (data) => {
    data[at] = (data[at] ?? 0) ^ 0x10;
    return data;
  };
}

function cut(length: number): (data: Uint8Array) => Uint8Array {
  return (data) => data.slice(0, length);
}

/** Raises a version and makes the checksum right again. */
function newer(options: { version: number; crc: number; length: (view: DataView) => number }) {
  return (data: Uint8Array): Uint8Array => {
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    view.setUint32(options.version, 99, true);
    view.setUint32(options.crc, 0, true);
    view.setUint32(options.crc, crc32(data.subarray(0, options.length(view))), true);
    return data;
  };
}

/** Two volumes and a snapshot, with two checkpoints behind and frames after them. */
async function filled(): Promise<Pool> {
  const pool = await openPool(newDisk());
  for (const id of [A, B]) {
    await pool.engine.createVolume({ id, sizeBytes: GIB, sourceId: null });
    await pool.write(id, 0, bytes(EXTENT, 1));
    await pool.flush(id);
  }
  await pool.engine.checkpoint();
  await pool.engine.createSnapshot({ id: S, volumeId: A });
  await pool.write(A, 0, bytes(BLOCK, 2));
  await pool.flush(A);
  await pool.engine.checkpoint();
  for (const index of [1, 2, 3]) {
    await pool.write(A, index * EXTENT, bytes(BLOCK, 3));
    await pool.flush(A);
  }
  await quiet();
  return pool;
}

async function closed(): Promise<SimDisk> {
  const pool = await filled();
  await pool.engine.close();
  return pool.disk;
}

async function refusal(disk: SimDisk): Promise<Failure> {
  try {
    await openPool(disk);
  } catch (error) {
    if (error instanceof Failure) return error;
    throw error;
  }
  throw new Error('the pool opened');
}

/** The half whose frames are the newest, and where they end. */
function newestHalf(disk: SimDisk): { path: string; frames: number[] } {
  const halves = ['pool/journal.0', 'pool/journal.1'].map((path) => {
    const file = disk.open(path, 'read');
    const data = new Uint8Array(file.size());
    file.read(0, data);
    const view = new DataView(data.buffer);
    const frames: number[] = [];
    const first = view.getUint32(16, true);
    // What an older use of the half left behind them does not follow in sequence.
    const isNext = (at: number): boolean =>
      view.getUint32(at, true) === 0x4d524651 && view.getUint32(at + 16, true) === first + frames.length;
    for (let at = 0; at < data.length && isNext(at); ) {
      frames.push(at);
      at += Math.ceil((32 + view.getUint32(at + 8, true)) / 512) * 512;
    }
    return { path, frames, sequence: frames.length === 0 ? 0 : first };
  });
  const newest = halves.sort((a, b) => b.sequence - a.sequence)[0];
  if (newest === undefined) throw new Error('two halves');
  return newest;
}

describe('the pool header', () => {
  it.each([
    ['a flipped bit', flip(30)],
    ['a flipped magic', flip(0)],
    ['a cut', cut(100)],
  ])('with %s is refused as corrupt, by name', async (_what, change) => {
    const disk = await closed();
    disk.damage('pool/header', change);
    expect(await refusal(disk)).toMatchObject({ code: 'corrupt', fields: { path: 'pool/header' } });
    expect(check(disk).violations).toMatchObject([{ kind: 'damaged', path: 'pool/header' }]);
  });

  it('of a newer format is refused, with both versions', async () => {
    const disk = await closed();
    disk.damage('pool/header', newer({ version: 8, crc: 12, length: () => 4096 }));
    expect(await refusal(disk)).toMatchObject({ code: 'newer_format', fields: { found: 99, supported: 1 } });
  });

  it('that is missing beside extent files is not taken for a new folder', async () => {
    const disk = await closed();
    disk.remove('pool/header');
    expect(await refusal(disk)).toMatchObject({ code: 'corrupt', fields: { path: 'pool/header' } });
  });
});

describe('a checkpoint', () => {
  it('damaged while the journal reaches back to the one before costs nothing', async () => {
    const pool = await filled();
    const disk = afterPowerLoss(pool);
    // Written, but its sync never returned: as a power loss leaves it.
    const newest =
      ['pool/checkpoint.0', 'pool/checkpoint.1'].sort((a, b) => numberOf(disk, b) - numberOf(disk, a))[0] ?? '';
    disk.damage(newest, flip(100));
    const outcome = await openPool(disk).catch((error: Error) => error);
    if (outcome instanceof Error) expect(outcome).toMatchObject({ code: 'corrupt' });
    else expect(Buffer.compare(await outcome.read(A, EXTENT, BLOCK), bytes(BLOCK, 3))).toBe(0);
  });

  it('is refused when both are damaged, naming both', async () => {
    const disk = await closed();
    for (const path of ['pool/checkpoint.0', 'pool/checkpoint.1']) disk.damage(path, flip(90));
    const failure = await refusal(disk);
    expect(failure.code).toBe('corrupt');
    expect(failure.message).toContain('pool/checkpoint.0');
    expect(failure.message).toContain('pool/checkpoint.1');
  });

  it('of a newer format is refused', async () => {
    const disk = await closed();
    const length = (view: DataView): number => view.getUint32(16, true);
    for (const path of ['pool/checkpoint.0', 'pool/checkpoint.1'])
      disk.damage(path, newer({ version: 8, crc: 12, length }));
    expect(await refusal(disk)).toMatchObject({ code: 'newer_format' });
  });

  it('that is missing is refused', async () => {
    const disk = await closed();
    disk.remove('pool/checkpoint.1');
    expect(await refusal(disk)).toMatchObject({ code: 'corrupt', fields: { path: 'pool/checkpoint.1' } });
  });
});

function numberOf(disk: SimDisk, path: string): number {
  const file = disk.open(path, 'read');
  const data = new Uint8Array(32);
  file.read(0, data);
  return new DataView(data.buffer).getUint32(24, true);
}

describe('the journal', () => {
  it('with a damaged frame before a whole one is refused: acknowledged changes would be lost', async () => {
    const disk = afterPowerLoss(await filled());
    const { path, frames } = newestHalf(disk);
    expect(frames.length).toBeGreaterThan(2);
    disk.damage(path, flip((frames.at(-2) ?? 0) + 40));
    const failure = await refusal(disk);
    expect(failure).toMatchObject({ code: 'corrupt', fields: { path } });
    expect(failure.message).toContain('acknowledged');
  });

  it('with a torn last frame ends before it', async () => {
    const disk = afterPowerLoss(await filled());
    const { path, frames } = newestHalf(disk);
    disk.damage(path, flip((frames.at(-1) ?? 0) + 40));
    const pool = await openPool(disk);
    expect(Buffer.compare(await pool.read(A, 2 * EXTENT, BLOCK), bytes(BLOCK, 3))).toBe(0);
    expect(Buffer.compare(await pool.read(A, 3 * EXTENT, BLOCK), bytes(BLOCK, 0))).toBe(0);
  });

  it.each(['pool/journal.0', 'pool/journal.1'])('%s cut short is refused', async (path) => {
    const disk = await closed();
    disk.damage(path, cut(1024));
    expect(await refusal(disk)).toMatchObject({ code: 'corrupt', fields: { path } });
  });

  it('that is missing is refused', async () => {
    const disk = await closed();
    disk.remove('pool/journal.0');
    expect(await refusal(disk)).toMatchObject({ code: 'corrupt', fields: { path: 'pool/journal.0' } });
  });

  it('of a newer format is refused', async () => {
    const disk = afterPowerLoss(await filled());
    const { path } = newestHalf(disk);
    disk.damage(path, newer({ version: 4, crc: 12, length: (view) => 32 + view.getUint32(8, true) }));
    expect(await refusal(disk)).toMatchObject({ code: 'newer_format' });
  });
});

describe('the pages', () => {
  it('damaged, give EIO to who needs them and are found by check; the rest is served', async () => {
    const disk = await closed();
    const leaf = slotOf(disk, (view) => view.getUint8(6) === 1 && view.getUint32(12, true) === 2);
    disk.damage('pool/pages', flip(leaf * SLOT + 70));
    expect(check(disk).violations.map(({ kind }) => kind)).toContain('damaged');
    const pool = await openPool(disk);
    await expect(pool.read(B, 0, BLOCK)).rejects.toMatchObject({ errno: 5 });
    expect(pool.events).toMatchObject([{ kind: 'volume-failed', id: B }]);
    expect(Buffer.compare(await pool.read(A, 0, BLOCK), bytes(BLOCK, 2))).toBe(0);
    expect(pool.fatal).toEqual([]);
  });

  it('in the wrong place are not taken for the right ones', async () => {
    const disk = await closed();
    const leaf = slotOf(disk, (view) => view.getUint8(6) === 1 && view.getUint32(12, true) === 2);
    const other = slotOf(disk, (view) => view.getUint8(6) === 1 && view.getUint32(12, true) === 1);
    disk.damage('pool/pages', (data) => {
      data.copyWithin(leaf * SLOT, other * SLOT, (other + 1) * SLOT);
      return data;
    });
    const pool = await openPool(disk);
    await expect(pool.read(B, 0, BLOCK)).rejects.toMatchObject({ errno: 5 });
  });

  it('cut off are found by check and never read as something else', async () => {
    const disk = await closed();
    disk.damage('pool/pages', cut(SLOT));
    expect(check(disk).violations.length).toBeGreaterThan(0);
    const outcome = await openPool(disk)
      .then((pool) => pool.read(A, 0, BLOCK))
      .catch((error: unknown) => error);
    expect(outcome).toBeInstanceOf(Error);
  });
});

function slotOf(disk: SimDisk, matches: (view: DataView) => boolean): number {
  const file = disk.open('pool/pages', 'read');
  const data = new Uint8Array(file.size());
  file.read(0, data);
  for (let slot = 1; (slot + 1) * SLOT <= data.length; slot += 1) {
    if (matches(new DataView(data.buffer, slot * SLOT, SLOT))) return slot;
  }
  throw new Error('no such page');
}

describe('the extent files', () => {
  it('that are missing are refused, by name', async () => {
    const disk = await closed();
    disk.remove('pool/extents/0000001.dat');
    expect(await refusal(disk)).toMatchObject({ code: 'corrupt', fields: { path: 'pool/extents/0000001.dat' } });
    expect(check(disk).violations).toMatchObject([{ kind: 'extent-file' }]);
  });

  it('that are cut short are found by check', async () => {
    const disk = await closed();
    disk.damage('pool/extents/0000001.dat', cut(BLOCK));
    expect(check(disk).violations).toMatchObject([{ kind: 'extent-file', path: 'pool/extents/0000001.dat' }]);
  });

  it('that no record names are removed at the start', async () => {
    const disk = await closed();
    disk.open('pool/extents/0000099.dat', 'create').close();
    await openPool(disk);
    expect(disk.exists('pool/extents/0000099.dat')).toBe(false);
  });
});

describe('one random bit anywhere in the metadata', () => {
  it('never changes what is read: it is refused, fails with EIO, or does not matter', async () => {
    const files = [
      'pool/header',
      'pool/checkpoint.0',
      'pool/checkpoint.1',
      'pool/journal.0',
      'pool/journal.1',
      'pool/pages',
    ];
    const random = new Random(Number(process.env['QUARRY_SEED'] ?? 1));
    const source = await closed();
    for (let round = 0; round < 150; round += 1) {
      const disk = source.afterKill();
      const path = random.pick(files);
      const file = disk.open(path, 'read');
      // Mostly where something stands.
      const at = random.below(Math.min(file.size(), random.pick([512, 8192, 65536])));
      disk.damage(path, flip(at));
      const outcome = await openPool(disk).catch((error: Error) => error);
      if (outcome instanceof Error) {
        expect(outcome, `byte ${at} of ${path}`).toBeInstanceOf(Failure);
        continue;
      }
      for (const [id, offset, value] of [
        [A, 0, 2],
        [A, EXTENT, 3],
        [A, BLOCK, 1],
        [B, 0, 1],
        [S, 0, 1],
      ] as const) {
        const found = await outcome.read(id, offset, BLOCK).catch((error: unknown) => error);
        if (found instanceof IoError) continue;
        expect(found, `byte ${at} of ${path}, ${id} at ${offset}`).toEqual(bytes(BLOCK, value));
      }
    }
  });
});
