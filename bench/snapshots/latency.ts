/**
 * How long a snapshot takes, and what clients notice of it: small and large volumes, few and many snapshots before it, nobody writing
 * and somebody writing as fast as possible at random; and whether a copy of a copy of a copy is slower than the first.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { BenchPool, type Load, quantile } from './pool.ts';

const GIB = 2 ** 30;

export type LatencySizes = {
  readonly dir: string;
  readonly sizesGib: readonly number[];
  readonly snapshotsBefore: readonly number[];
  readonly taken: number;
  readonly seconds: number;
  readonly usedMib: number;
  readonly chain: number;
};

export type SnapshotFigure = {
  readonly name: string;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** What the writer saw meanwhile, and before; null where there was none. */
  readonly load: Load | null;
  readonly loadBefore: Load | null;
};

function figure(name: string, times: readonly number[], load: Load | null, loadBefore: Load | null): SnapshotFigure {
  const [p50Ms, p99Ms] = [quantile(times, 0.5), quantile(times, 0.99)];
  return { name, p50Ms, p99Ms, maxMs: Math.max(...times), load, loadBefore };
}

async function many(pool: BenchPool, id: string, sizes: LatencySizes, count: number): Promise<void> {
  for (let done = 0; done < count; done += 1) {
    await pool.scatter(id, { count: 1, sizeMib: sizes.usedMib });
    await pool.snapshot(id);
  }
}

export async function* snapshotLatency(sizes: LatencySizes): AsyncGenerator<SnapshotFigure> {
  for (const sizeGib of sizes.sizesGib) {
    const pool = await BenchPool.open(sizes.dir);
    try {
      yield* ofOneSize(pool, sizeGib, sizes);
    } finally {
      await pool.close();
    }
  }
}

async function* ofOneSize(pool: BenchPool, sizeGib: number, sizes: LatencySizes): AsyncGenerator<SnapshotFigure> {
  const id = await pool.volume(sizeGib * GIB);
  await pool.fill(id, sizes.usedMib);
  let there = 0;
  for (const before of sizes.snapshotsBefore) {
    await many(pool, id, sizes, before - there);
    const name = `${sizeGib} GiB, ${before} snapshots`;
    const quiet: number[] = [];
    for (let taken = 0; taken < sizes.taken; taken += 1) {
      await pool.scatter(id, { count: 4, sizeMib: sizes.usedMib });
      quiet.push((await pool.snapshot(id)).tookMs);
    }
    yield figure(`${name}, quiet`, quiet, null, null);
    yield await underLoad(pool, id, `${name}, random writes`, sizes);
    there = before + sizes.taken;
  }
}

/** A snapshot each quarter of a second, as writes go on. */
async function underLoad(pool: BenchPool, id: string, name: string, sizes: LatencySizes): Promise<SnapshotFigure> {
  const { seconds, usedMib: sizeMib } = sizes;
  const loadBefore = await pool.load(id, { rw: 'randwrite', seconds, sizeMib });
  let isOver = false;
  const load = pool.load(id, { rw: 'randwrite', seconds, sizeMib }).finally(() => {
    isOver = true;
  });
  const busy: number[] = [];
  await pause(seconds * 125);
  while (!isOver) {
    busy.push((await pool.snapshot(id)).tookMs);
    await pause(250);
  }
  return figure(name, busy, await load, loadBefore);
}

export type ChainFigure = { readonly copies: number; readonly readIops: number; readonly writeIops: number };

/** Each copy is made of the one before, which has been written to since: at the end nothing is where it was. */
export async function chainOfCopies(sizes: LatencySizes): Promise<ChainFigure[]> {
  const pool = await BenchPool.open(sizes.dir);
  try {
    return await copiesIn(pool, sizes);
  } finally {
    await pool.close();
  }
}

async function copiesIn(pool: BenchPool, sizes: LatencySizes): Promise<ChainFigure[]> {
  const { seconds, usedMib: sizeMib } = sizes;
  const sizeBytes = sizeMib * 2 ** 20;
  const first = await pool.volume(sizeBytes);
  await pool.fill(first, sizeMib);
  let last = first;
  for (let copies = 0; copies < sizes.chain; copies += 1) {
    const next = await pool.volume(sizeBytes, last);
    await pool.scatter(next, { count: 16, sizeMib });
    await pool.backend.unpublish(last);
    last = next;
  }
  // Both with everything to copy on writing: the first as a copy of itself.
  const ids = [await pool.volume(sizeBytes, first), last];
  const figures: ChainFigure[] = [];
  for (const [index, id] of ids.entries()) {
    const read = await pool.load(id, { rw: 'randread', seconds, sizeMib });
    const write = await pool.load(id, { rw: 'randwrite', seconds, sizeMib });
    figures.push({ copies: index === 0 ? 1 : sizes.chain, readIops: read.iops, writeIops: write.iops });
  }
  return figures;
}
