import { describe, expect, it } from 'vitest';
import { Pages } from '../../src/engine/pages.ts';
import { SimDisk } from '../sim/files.ts';
import { Random } from '../sim/random.ts';

type Bench = { disk: SimDisk; pages: Pages };

function newPages(cleanMax = 4): Bench {
  const disk = new SimDisk({ seed: 1, totalBytes: 2 ** 26 });
  return { disk, pages: new Pages(disk.open('pages', 'create'), null, { cleanMax, generation: 0 }) };
}

function set(pages: Pages, id: number, value: number): void {
  pages.edit(id).words[0] = value;
}

function finish(pages: Pages): void {
  while (pages.writeSome(3));
  pages.endCheckpoint();
}

describe('pages', () => {
  it('get the lowest free id', () => {
    const { pages } = newPages();
    const ids = [1, 2, 3].map(() => pages.create('leaf', 1).id);
    expect(ids).toEqual([1, 2, 3]);
    pages.free(2);
    expect([pages.create('leaf', 1).id, pages.create('leaf', 1).id]).toEqual([2, 4]);
  });

  it('changed while their checkpoint runs are written there as they were', () => {
    const { disk, pages } = newPages(0);
    for (let value = 1; value <= 9; value += 1) set(pages, pages.create('leaf', 1).id, value);
    const table = pages.beginCheckpoint(1);
    pages.writeSome(3);
    for (let id = 1; id <= 9; id += 1) set(pages, id, 100 + id);
    finish(pages);
    const before = new Pages(disk.open('pages', 'read'), table, { cleanMax: 9, generation: 1 });
    for (let id = 1; id <= 9; id += 1) expect(before.get(id).words[0]).toBe(id);
    for (let id = 1; id <= 9; id += 1) expect(pages.get(id).words[0]).toBe(100 + id);
  });

  it('keep the slots of the last root until the next one is durable', () => {
    const { disk, pages } = newPages(0);
    for (let value = 1; value <= 5; value += 1) set(pages, pages.create('leaf', 1).id, value);
    const first = pages.beginCheckpoint(1);
    finish(pages);
    for (let round = 0; round < 3; round += 1) {
      for (let id = 1; id <= 5; id += 1) set(pages, id, 50 + round);
      pages.beginCheckpoint(2);
      while (pages.writeSome(2));
      pages.abortCheckpoint();
    }
    const before = new Pages(disk.open('pages', 'read'), first, { cleanMax: 9, generation: 1 });
    for (let id = 1; id <= 5; id += 1) expect(before.get(id).words[0]).toBe(id);
  });

  it('of a checkpoint given up at any place are whole in the next, and slots do not leak', () => {
    for (let seed = 1; seed <= 60; seed += 1) {
      const random = new Random(seed);
      const { disk, pages } = newPages(2);
      const model = new Map<number, number>();
      let durable: { table: ReturnType<Pages['beginCheckpoint']>; model: Map<number, number>; number: number } | null =
        null;
      let number = 0;
      const change = (): void => {
        const ids = [...model.keys()];
        if (ids.length < 6 || random.chance(0.3)) {
          const { id } = pages.create('leaf', 1);
          set(pages, id, random.below(2 ** 31));
          model.set(id, pages.get(id).words[0] ?? 0);
        } else if (random.chance(0.25)) {
          const id = random.pick(ids);
          pages.free(id);
          model.delete(id);
        } else {
          const id = random.pick(ids);
          set(pages, id, random.below(2 ** 31));
          model.set(id, pages.get(id).words[0] ?? 0);
        }
      };
      for (let round = 0; round < 20; round += 1) {
        for (let count = random.below(12); count > 0; count -= 1) change();
        const captured = new Map(model);
        const table = pages.beginCheckpoint(number + 1);
        const isFull = random.chance(0.4);
        if (isFull) disk.fail('write', /pages/, 'ENOSPC', 1 + random.below(3));
        let isGivenUp = false;
        try {
          while (pages.writeSome(1)) if (random.chance(0.6)) change();
        } catch {
          isGivenUp = true;
        }
        disk.faults.length = 0;
        if (isGivenUp || random.chance(0.2)) pages.abortCheckpoint();
        else {
          pages.endCheckpoint();
          number += 1;
          durable = { table, model: captured, number };
        }
        for (const [id, value] of model) expect(pages.get(id).words[0], `seed ${seed}`).toBe(value);
        if (durable === null) continue;
        const before = new Pages(disk.open('pages', 'read'), durable.table, {
          cleanMax: 99,
          generation: durable.number,
        });
        for (const [id, value] of durable.model) expect(before.get(id).words[0], `seed ${seed}`).toBe(value);
      }
      // With nothing left but what two checkpoints in a row name, all slots come back.
      for (const id of model.keys()) pages.free(id);
      for (let round = 0; round < 2; round += 1) {
        pages.beginCheckpoint(number + 1 + round);
        finish(pages);
      }
      expect(pages.usedBytes, `seed ${seed}`).toBe(0);
    }
  });

  /** Pages that a checkpoint had written stayed in memory until one had to be read: filling a volume never needed one. */
  it('not used lately leave memory once they are written, those with changes stay', () => {
    const { disk, pages } = newPages(2);
    for (let value = 1; value <= 30; value += 1) set(pages, pages.create('leaf', 1).id, value);
    pages.beginCheckpoint(1);
    while (pages.writeSome(3));
    set(pages, 30, 31);
    pages.endCheckpoint();
    disk.fail('read', /pages/, 'EIO', 1);
    expect(pages.get(30).words[0]).toBe(31);
    expect(() => pages.get(1)).toThrow('failed');
  });
});
