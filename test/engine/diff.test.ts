/** Map and diff against brute force: block by block, on random histories with snapshots, clones and reverts. */

import { describe, expect, it } from 'vitest';
import type { ByteRange } from '../../src/engine/volume-store.ts';
import { Random } from '../sim/random.ts';
import { BLOCK, EXTENT, MIB, newDisk, openPool, type Pool, uuid } from './pool.ts';

const SIZE = 40 * MIB;
/** Both leaves, their border, and the end. */
const EXTENTS = [0, 1, 2, 510, 511, 512, 513, SIZE / EXTENT - 1];

/** Block to stamp; absent: a hole. */
type Blocks = Map<number, number>;

class History {
  readonly random: Random;
  readonly pool: Pool;
  readonly things = new Map<string, Blocks>();
  readonly volumes: string[] = [];
  #lastStamp = 0;

  constructor(seed: number, pool: Pool) {
    this.random = new Random(seed);
    this.pool = pool;
  }

  async step(): Promise<void> {
    const { random, pool, things } = this;
    const id = random.pick(this.volumes);
    const blocks = things.get(id) ?? new Map();
    const dice = random.below(10);
    const next = uuid(things.size + 1);
    if (dice < 5) return this.#write(id, blocks, true);
    if (dice < 7) return this.#write(id, blocks, false);
    if (dice < 8) {
      await pool.engine.createSnapshot({ id: next, volumeId: id });
      things.set(next, new Map(blocks));
    } else if (dice < 9) {
      const source = random.pick([...things.keys()]);
      await pool.engine.createVolume({ id: next, sizeBytes: SIZE, sourceId: source });
      things.set(next, new Map(things.get(source)));
      this.volumes.push(next);
    } else {
      const snapshots = [...things.keys()].filter((known) => !this.volumes.includes(known));
      if (snapshots.length === 0) return;
      const snapshotId = random.pick(snapshots);
      await pool.engine.revertVolume({ id, snapshotId });
      things.set(id, new Map(things.get(snapshotId)));
    }
  }

  async #write(id: string, blocks: Blocks, isData: boolean): Promise<void> {
    const { random, pool } = this;
    const first = random.pick(EXTENTS) * 16 + random.below(16);
    const count = Math.min(random.pick([1, 2, 7, 16, 20]), SIZE / BLOCK - first);
    this.#lastStamp += 1;
    const stamp = this.#lastStamp;
    if (isData) await pool.write(id, first * BLOCK, new Uint8Array(count * BLOCK).fill(stamp));
    else await pool.trim(id, first * BLOCK, count * BLOCK);
    for (let block = first; block < first + count; block += 1) {
      if (isData) blocks.set(block, stamp);
      else blocks.delete(block);
    }
  }
}

function requireTidy(ranges: readonly ByteRange[]): void {
  let [end, kind] = [-1, ''];
  for (const range of ranges) {
    expect(range.length).toBeGreaterThan(0);
    expect(range.offset).toBeGreaterThanOrEqual(end);
    expect(range.offset === end && range.kind === kind, 'neighbours of one kind are one range').toBe(false);
    [end, kind] = [range.offset + range.length, range.kind];
  }
  expect(end).toBeLessThanOrEqual(SIZE);
}

function byBlock(ranges: readonly ByteRange[]): Map<number, string> {
  const kinds = new Map<number, string>();
  for (const { offset, length, kind } of ranges) {
    for (let at = offset; at < offset + length; at += BLOCK) kinds.set(at / BLOCK, kind);
  }
  return kinds;
}

describe('on random histories', () => {
  it('map and diff say what a comparison of all blocks says', async () => {
    const firstSeed = Number(process.env['QUARRY_SEED'] ?? 1);
    for (let seed = firstSeed; seed < firstSeed + 8; seed += 1) {
      const history = new History(seed, await openPool(newDisk(seed)));
      const { pool, things, random } = history;
      await pool.engine.createVolume({ id: uuid(1), sizeBytes: SIZE, sourceId: null });
      things.set(uuid(1), new Map());
      history.volumes.push(uuid(1));
      for (let step = 0; step < 40; step += 1) await history.step();

      for (const [id, blocks] of things) {
        const ranges = await pool.engine.map(id);
        requireTidy(ranges);
        const kinds = byBlock(ranges);
        expect(kinds.size).toBe(SIZE / BLOCK);
        for (const [block, kind] of kinds)
          if ((kind === 'data') !== blocks.has(block)) throw new Error(`seed ${seed}: ${id} block ${block} is ${kind}`);
      }
      for (let pair = 0; pair < 12; pair += 1) {
        const fromId = random.chance(0.2) ? null : random.pick([...things.keys()]);
        const toId = random.pick([...things.keys()]);
        const ranges = await pool.engine.diff({ fromId, toId });
        requireTidy(ranges);
        const kinds = byBlock(ranges);
        const [from, to] = [fromId === null ? new Map<number, number>() : things.get(fromId), things.get(toId)];
        for (let block = 0; block < SIZE / BLOCK; block += 1) {
          const [before, after, kind] = [from?.get(block), to?.get(block), kinds.get(block)];
          // One write is one stamp, and it lies in one place, unless an edge was copied: so what is the same may be told as changed, but not the reverse.
          const isRight = kind === undefined ? before === after : (kind === 'data') === (after !== undefined);
          if (!isRight)
            throw new Error(`seed ${seed}: ${fromId} to ${toId}, block ${block}: ${kind}, was ${before}, is ${after}`);
          if (kind === 'hole' && before === undefined)
            throw new Error(`seed ${seed}: block ${block} was a hole before`);
        }
      }
      await pool.engine.close();
    }
  });
});
