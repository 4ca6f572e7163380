/**
 * A volume that is written at random all the time, with a snapshot every few seconds and the oldest dropped: what its age does to its
 * speed and its space. Both should stay as they are once the kept snapshots are there.
 */
import type { PoolSettings } from '../../src/engine/engine.ts';
import { BenchPool, type Load } from './pool.ts';

export type AgeingSizes = {
  readonly dir: string;
  readonly sizeMib: number;
  readonly rounds: number;
  readonly secondsPerRound: number;
  readonly kept: number;
  /** To see what one of them does. */
  readonly pool?: Partial<PoolSettings>;
};

export type AgeingFigure = {
  readonly round: number;
  readonly load: Load;
  readonly snapshotMs: number;
  readonly mappedMib: number;
  readonly exclusiveMib: number;
  /** What the filesystem says is taken, freed space that is on its way back included. */
  readonly usedMib: number;
  readonly metadataMib: number;
};

const MIB = 2 ** 20;

export async function* ageing(sizes: AgeingSizes): AsyncGenerator<AgeingFigure> {
  const pool = await BenchPool.open(sizes.dir, sizes.pool);
  try {
    yield* roundsIn(pool, sizes);
  } finally {
    await pool.close();
  }
}

async function* roundsIn(pool: BenchPool, sizes: AgeingSizes): AsyncGenerator<AgeingFigure> {
  const { sizeMib, secondsPerRound, kept } = sizes;
  const id = await pool.volume(sizeMib * MIB);
  await pool.fill(id, sizeMib);
  const snapshots: string[] = [];
  for (let round = 1; round <= sizes.rounds; round += 1) {
    const running = pool.load(id, { rw: 'randwrite', seconds: secondsPerRound, sizeMib });
    const snapshot = await pool.snapshot(id);
    snapshots.push(snapshot.id);
    const [oldest] = snapshots.length > kept ? snapshots.splice(0, 1) : [];
    if (oldest !== undefined) await pool.backend.delete(oldest);
    const load = await running;
    const { mappedBytes, reclaimBytes, metadataBytes } = await pool.backend.stats();
    const [space] = await pool.backend.space([id]);
    yield {
      round,
      load,
      snapshotMs: snapshot.tookMs,
      mappedMib: mappedBytes / MIB,
      exclusiveMib: (space?.exclusiveBytes ?? 0) / MIB,
      usedMib: (mappedBytes + reclaimBytes) / MIB,
      metadataMib: metadataBytes / MIB,
    };
  }
}
