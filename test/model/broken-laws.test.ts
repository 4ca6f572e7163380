/**
 * The simulation can fail: a plane or a disk that breaks a law of docs/durability.md on purpose is noticed within a few seeds, for
 * the reason that the law gives.
 */

import { describe, expect, it } from 'vitest';
import { World, type WorldOptions } from './world.ts';

/** Most are noticed by the first to fifth, reuse by the seventeenth; chance gets some room. */
const SEEDS = 40;
const WRONG_BYTES = /found .* allowed|bytes, but slot \d+ is in use/;

async function firstFailure(options: Partial<WorldOptions>): Promise<string> {
  for (let seed = 1; seed <= SEEDS; seed += 1) {
    const world = new World({ seed, rounds: 60, faults: false, totalBytes: 2 ** 30, probing: 0.05, ...options });
    try {
      await world.run();
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }
  return `nothing in ${SEEDS} seeds`;
}

describe('a plane that breaks a law', { timeout: 600_000 }, () => {
  it.each([
    ['bytes before pointer', {}, WRONG_BYTES],
    ['pointer before reply', {}, WRONG_BYTES],
    ['unpointer before reuse', {}, /extent \d+ was taken|are not those that were sealed|found .* allowed/],
    ['a failed sync is final', { faults: true, onlySyncs: true }, WRONG_BYTES],
    ['shared is not written', {}, WRONG_BYTES],
  ] as const)('is noticed: %s', async (breaks, options, reason) => {
    expect(await firstFailure({ breaks, ...options })).toMatch(reason);
  });
});

describe('a disk that answers syncs and does not obey', { timeout: 600_000 }, () => {
  it.each([
    ['of the journal', /journal/, /is damaged|found .* allowed|is lost/],
    ['of pages', /pages$/, /check: pool\/pages|is damaged/],
    ['of checkpoints', /checkpoint/, /is damaged/],
    ['of extents', /\.dat$/, WRONG_BYTES],
  ] as const)('is noticed: %s', async (_, lies, reason) => {
    expect(await firstFailure({ lies })).toMatch(reason);
  });
});
