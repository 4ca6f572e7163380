/**
 * Power loss under load: the data folder is on a filesystem whose disk keeps in memory what was not flushed and loses any of it
 * when the power fails. The harness itself is tried on disks that lie about their flushes, which it must find out.
 */
import { describe, expect, it } from 'vitest';
import { canMount } from '../support/mounted-disk.ts';
import { describeWith } from '../support/peers.ts';
import { powerRounds } from './power-rounds.ts';

const SEED = Number(process.env['QUARRY_SEED'] ?? 20261124);
const ROUNDS = process.env['QUARRY_SOAK'] === '1' ? 30 : 3;
/** One round loses something with near certainty; these are for the rest. */
const LYING_ROUNDS = 6;
const TIMEOUT_MS = 900_000;
const EXT4 = ['mkfs.ext4', '-q', '-E', 'nodiscard,lazy_itable_init=0'];
const XFS = ['mkfs.xfs', '-q', '-K'];

if (!canMount && process.env['CI'] === 'true') throw new Error('needs root, /dev/fuse and loop devices');

const where = canMount ? describe : describe.skip;

where('a disk that loses what was not flushed', () => {
  describeWith(['nbdsh', 'nbdfuse', 'mkfs.ext4', 'mkfs.xfs'], 'when the power fails under load', () => {
    it.each([
      ['ext4', EXT4],
      ['xfs', XFS],
    ])(
      'keeps all that was flushed, and every snapshot shows one moment, on %s',
      async (_, format) => {
        const { lost, looked } = await powerRounds({ seed: SEED, rounds: ROUNDS, format });
        expect(lost, 'blocks that the disk lost').toBeGreaterThan(0);
        expect(looked, 'volumes and snapshots that were looked at').toBeGreaterThanOrEqual(ROUNDS);
      },
      TIMEOUT_MS,
    );

    it(
      'finds out a disk that lies about flushes of what clients wrote',
      async () => {
        const rounds = powerRounds({ seed: SEED, rounds: LYING_ROUNDS, format: EXT4, lie: 'stamped' });
        await expect(rounds).rejects.toThrow(/was flushed|which was answered before/);
      },
      TIMEOUT_MS,
    );

    it(
      'finds out a disk that lies about every flush',
      async () => {
        await expect(powerRounds({ seed: SEED, rounds: LYING_ROUNDS, format: EXT4, lie: 'all' })).rejects.toThrow();
      },
      TIMEOUT_MS,
    );
  });
});
