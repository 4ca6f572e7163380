/** Limits of speed as the engine keeps them: given to the plane whenever it serves the volume, forgotten with the volume. */
import { expect, it } from 'vitest';
import { NO_LIMITS, speedLimitsOf } from '../../src/native/speed-limits.ts';
import { afterPowerLoss, MIB, newDisk, openPool, uuid } from './pool.ts';

const A = uuid(1);
const S = uuid(2);
const create = { id: A, sizeBytes: MIB, sourceId: null };
const limits = { totalIopsSec: 100, readBytesSec: 5, readBytesSecMax: 10 };
const wanted = {
  ...NO_LIMITS,
  totalOps: { average: 100, burst: 0, burstSeconds: 1 },
  readBytes: { average: 5, burst: 10, burstSeconds: 1 },
};

it('are in force at once on a volume that is served, and taken away again', async () => {
  const pool = await openPool(newDisk());
  await pool.engine.createVolume(create);
  const handle = await pool.handle(A);
  await pool.engine.setLimits({ id: A, limits });
  expect(pool.plane.limitsOf(handle)).toEqual(wanted);
  await pool.engine.setLimits({ id: A, limits: null });
  expect(pool.plane.limitsOf(handle)).toEqual(NO_LIMITS);
});

it('wait for a volume that is not served yet, and outlive its exports and a revert', async () => {
  const pool = await openPool(newDisk());
  await pool.engine.createVolume(create);
  await pool.engine.setLimits({ id: A, limits });
  expect(pool.plane.limitsOf(await pool.handle(A))).toEqual(wanted);
  await pool.engine.unpublish(A);
  expect(pool.plane.limitsOf(await pool.handle(A))).toEqual(wanted);
  const before = await pool.handle(A);
  await pool.engine.createSnapshot({ id: S, volumeId: A });
  await pool.engine.revertVolume({ id: A, snapshotId: S });
  const after = await pool.handle(A);
  expect(after).not.toBe(before);
  expect(pool.plane.limitsOf(after)).toEqual(wanted);
});

it('are forgotten with the volume, and at the end of the process', async () => {
  const pool = await openPool(newDisk());
  await pool.engine.createVolume(create);
  await pool.engine.setLimits({ id: A, limits });
  await pool.engine.delete(A);
  await pool.engine.createVolume(create);
  expect(pool.plane.limitsOf(await pool.handle(A))).toEqual(NO_LIMITS);
  await pool.engine.setLimits({ id: A, limits });
  const again = await openPool(afterPowerLoss(pool));
  expect(again.plane.limitsOf(await again.handle(A))).toEqual(NO_LIMITS);
});

it('that make no sense change nothing, and the message names the value', async () => {
  const pool = await openPool(newDisk());
  await pool.engine.createVolume(create);
  const handle = await pool.handle(A);
  await pool.engine.setLimits({ id: A, limits });
  await expect(pool.engine.setLimits({ id: A, limits: { totalIopsSec: 5, writeIopsSec: -3 } })).rejects.toThrow(
    /writeIopsSec is -3/,
  );
  expect(pool.plane.limitsOf(handle)).toEqual(wanted);
});

it('of 0, null and nothing at all are the same: none', () => {
  const nothing = { totalIopsSec: 0, readIopsSec: null, writeBytesSec: undefined, writeBytesSecMaxLength: 0 };
  expect(speedLimitsOf(nothing)).toEqual(NO_LIMITS);
  expect(speedLimitsOf(null)).toEqual(NO_LIMITS);
});
