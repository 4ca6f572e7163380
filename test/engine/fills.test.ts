/**
 * Volumes that are filled while they are served, on a simulated disk: whatever order fills, writes and trims come in and whenever the
 * power goes, a client sees what it wrote last, and elsewhere what comes.
 */
import { expect, it } from 'vitest';
import { Failure } from '../../src/base/errors.ts';
import { Random } from '../sim/random.ts';
import { afterPowerLoss, BLOCK, bytes, EXTENT, MIB, newDisk, openPool, type Pool, uuid } from './pool.ts';

const A = uuid(1);
const SIZE = MIB;
const whole = { id: A, ranges: [{ offset: 0, length: SIZE }] };

async function filling(): Promise<Pool> {
  const pool = await openPool(newDisk());
  await pool.engine.createVolume({ id: A, sizeBytes: SIZE, sourceId: null });
  await pool.engine.beginFill(whole);
  return pool;
}

it('tell of what clients wait for, once, and the answer reaches all of them', async () => {
  const pool = await filling();
  const reads = Promise.all([pool.read(A, EXTENT, BLOCK), pool.read(A, EXTENT + BLOCK, BLOCK)]);
  await expect.poll(() => pool.events).toEqual([{ kind: 'bytes-wanted', id: A, offset: EXTENT }]);
  await pool.plane.arrive(await pool.handle(A), EXTENT, bytes(EXTENT, 7));
  expect(await reads).toEqual([bytes(BLOCK, 7), bytes(BLOCK, 7)]);
  const failing = pool.read(A, 0, BLOCK);
  await expect.poll(() => pool.events.length).toBe(2);
  await pool.engine.failFill({ id: A, offset: 0 });
  await expect(failing).rejects.toThrow('errno 5');
  await pool.engine.narrowFill({ id: A, ranges: [{ offset: 0, length: EXTENT }] });
  expect(await pool.read(A, 0, BLOCK)).toEqual(bytes(BLOCK, 0));
});

it.each([
  [{ offset: 1, length: EXTENT }, 'an offset inside of an extent'],
  [{ offset: 0, length: EXTENT - 1 }, 'an end inside of an extent'],
  [{ offset: 0, length: SIZE + EXTENT }, 'an end beyond the volume'],
  [{ offset: 0, length: 0 }, 'nothing'],
])('refuse %o: %s', async (range) => {
  const pool = await openPool(newDisk());
  await pool.engine.createVolume({ id: A, sizeBytes: SIZE, sourceId: null });
  const error = await pool.engine.beginFill({ id: A, ranges: [range] }).catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(Failure);
  expect((error as Failure).code).toBe('bad_request');
  expect(await pool.read(A, 0, BLOCK)).toEqual(bytes(BLOCK, 0));
});

it.each(Array.from({ length: 12 }, (_, seed) => seed + 1))(
  'keep what clients wrote and bring the rest, with the power going at times (seed %i)',
  async (seed) => {
    const random = new Random(seed);
    const source = Uint8Array.from({ length: SIZE }, (_, at) => (Math.floor(at / BLOCK) % 250) + 1);
    const model = source.slice();
    let pool = await filling();
    for (let step = 0; step < 120; step += 1) {
      const offset = random.below(SIZE / BLOCK) * BLOCK;
      const length = Math.min(SIZE - offset, (1 + random.below(20)) * BLOCK);
      const what = random.below(10);
      if (what < 4) {
        const data = bytes(length, 1 + random.below(255));
        await pool.write(A, offset, data);
        model.set(data, offset);
      } else if (what < 6) {
        await pool.trim(A, offset, length);
        model.fill(0, offset, offset + length);
      } else if (what < 9) {
        const start = Math.floor(offset / EXTENT) * EXTENT;
        await pool.plane.arrive(await pool.handle(A), start, source.subarray(start, start + EXTENT));
      } else {
        await pool.flush(A);
        pool = await openPool(afterPowerLoss(pool));
        await pool.engine.beginFill(whole);
      }
    }
    await pool.plane.arrive(await pool.handle(A), 0, source);
    await pool.flush(A);
    await pool.engine.endFill(A);
    expect(Buffer.from(await pool.read(A, 0, SIZE)).equals(Buffer.from(model))).toBe(true);
    pool = await openPool(afterPowerLoss(pool));
    expect(Buffer.from(await pool.read(A, 0, SIZE)).equals(Buffer.from(model))).toBe(true);
  },
);
