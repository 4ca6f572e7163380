/** What a deletion costs: steps of the drop list and frames of the journal, in proportion to what it frees. */

import { describe, expect, it } from 'vitest';
import { DROP_STEPS, dropSteps } from '../../src/engine/dropping.ts';
import { Pages } from '../../src/engine/pages.ts';
import { State } from '../../src/engine/state.ts';
import { CHANGE_WORDS, LEAF_ENTRIES, SLOTS_PER_FILE } from '../../src/native/plane.ts';
import { afterPowerLoss, bytes, check, EXTENT, GIB, MIB, newDisk, openPool, uuid } from './pool.ts';

const TIB = 1024 * GIB;
/** 100 GiB. */
const LEAVES = 3200;
const FILES = Math.ceil((LEAVES * LEAF_ENTRIES) / SLOTS_PER_FILE) + 1;

/** 16 TiB of which 100 GiB are mapped, spread over all of it, and a snapshot of that. */
function large(): State {
  const pages = new Pages(newDisk().open('pages', 'create'), null, { cleanMax: 1 << 20, generation: 0 });
  const state = new State(pages, uuid(99), null);
  const create = { type: 'create', sizeBytes: 16 * TIB } as const;
  state.apply({ ...create, number: 1, kind: 'volume', sourceNumber: 0, id: uuid(1) }, 1);
  for (let fileNumber = 1; fileNumber <= FILES; fileNumber += 1)
    state.apply({ type: 'file-create', fileNumber, owner: 1 }, 1);
  for (let leaf = 0; leaf < LEAVES; leaf += 1)
    write(state, leaf * 160 * LEAF_ENTRIES, LEAF_ENTRIES, SLOTS_PER_FILE + leaf * LEAF_ENTRIES);
  state.apply({ ...create, number: 2, kind: 'snapshot', sourceNumber: 1, id: uuid(2) }, 1);
  state.takeFreed();
  return state;
}

function write(state: State, firstIndex: number, count: number, firstExtent: number): void {
  const changes = new Uint32Array(count * CHANGE_WORDS);
  for (let at = 0; at < count; at += 1) changes.set([firstIndex + at, firstExtent + at, 0xffff, 0], at * CHANGE_WORDS);
  state.apply({ type: 'changes', number: 1, changes }, 1);
}

/** Until the list is empty: pages freed, frames written, extents freed, and the most that one frame did. */
function dropAll(state: State): { pages: number; frames: number; extents: number; pagesAtOnce: number } {
  const count = (): number => [...state.pages.ids()].length;
  const before = count();
  let [frames, extents, pagesAtOnce] = [0, 0, 0];
  while (state.drops.length > 0) {
    const start = count();
    state.apply({ type: 'drop', steps: dropSteps(state) }, 1);
    extents += state.takeFreed().length;
    pagesAtOnce = Math.max(pagesAtOnce, start - count());
    frames += 1;
  }
  return { pages: before - count(), frames, extents, pagesAtOnce };
}

describe('deleting a snapshot of 16 TiB', () => {
  it('of which 1 MiB of 100 GiB is its own costs three pages and a few frames', () => {
    const state = large();
    write(state, 1600 * 160 * LEAF_ENTRIES, 16, FILES * SLOTS_PER_FILE);
    state.apply({ type: 'delete', number: 2 }, 1);
    const cost = dropAll(state);
    expect(cost).toMatchObject({ pages: 3, extents: 16 });
    expect(cost.frames).toBeLessThanOrEqual(4);
  });

  it('that is the same as the volume costs one frame', () => {
    const state = large();
    state.apply({ type: 'delete', number: 2 }, 1);
    expect(dropAll(state)).toMatchObject({ pages: 0, frames: 1, extents: 0 });
  });

  it('together with the volume gives all of it back, a bounded part in each frame', () => {
    const state = large();
    for (const number of [1, 2]) state.apply({ type: 'delete', number }, 1);
    const cost = dropAll(state);
    expect(cost.extents).toBe(LEAVES * LEAF_ENTRIES);
    expect(cost.pagesAtOnce).toBeLessThanOrEqual(DROP_STEPS);
    // Pages of references go with their files.
    expect(cost.pages).toBe(LEAVES + 500 + 1);
  });
});

it.each([0, 1, 2, 3, 4, 6, 9])(
  'a deletion goes on after a power loss at operation %i of the disk in the middle of it',
  async (operation) => {
    const pool = await openPool(newDisk(operation + 1), { journalHalfBytes: 4 * MIB });
    await pool.engine.createVolume({ id: uuid(1), sizeBytes: 64 * GIB, sourceId: null });
    // One extent in each of 100 leaves: several frames.
    for (let leaf = 0; leaf < 100; leaf += 1) await pool.write(uuid(1), leaf * 32 * MIB, bytes(EXTENT, 1));
    await pool.flush(uuid(1));
    await pool.engine.delete(uuid(1));
    pool.disk.operationsUntilPowerOff = operation;
    while (!pool.disk.isOff) await new Promise<void>((resolve) => setImmediate(resolve));
    const again = await openPool(afterPowerLoss(pool), { journalHalfBytes: 4 * MIB });
    expect(await again.engine.usage(null)).toEqual([]);
    await again.engine.settle();
    expect(await again.engine.stats()).toMatchObject({ mappedBytes: 0, reclaimBytes: 0 });
    await again.engine.close();
    expect(check(again.disk)).toMatchObject({ violations: [], pages: 0 });
  },
);
