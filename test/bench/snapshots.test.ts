import { tmpdir } from 'node:os';
import { expect, it } from 'vitest';
import { ageing } from '../../bench/snapshots/ageing.ts';
import { chainOfCopies, snapshotLatency } from '../../bench/snapshots/latency.ts';
import { describeWith } from '../support/peers.ts';

const SMALL = { dir: tmpdir(), sizesGib: [1], snapshotsBefore: [1], taken: 2, seconds: 1, usedMib: 16, chain: 3 };

describeWith(['fio'], 'the benchmark of snapshots', () => {
  it('measures a snapshot, a chain of copies and a round of ageing, small', async () => {
    for await (const { name, p99Ms, load } of snapshotLatency(SMALL)) {
      expect(p99Ms, name).toBeGreaterThan(0);
      if (load !== null) expect(load.iops, name).toBeGreaterThan(0);
    }
    expect((await chainOfCopies(SMALL)).map(({ copies }) => copies)).toEqual([1, 3]);
    const sizes = { dir: tmpdir(), sizeMib: 16, rounds: 2, secondsPerRound: 1, kept: 1 };
    for await (const { load, mappedMib } of ageing(sizes)) {
      expect(load.iops).toBeGreaterThan(0);
      expect(mappedMib).toBeGreaterThanOrEqual(16);
    }
  });
});
