/**
 * Random operations against a model, with crashes at every kind of moment. `QUARRY_SEED=n` repeats one seed (first seed of a
 * range together with `QUARRY_SEEDS=count`); without them a few fixed seeds run.
 */

import { describe, expect, it } from 'vitest';
import { World } from './world.ts';

const MIB = 2 ** 20;
const first = Number(process.env['QUARRY_SEED'] ?? 1);
const count = Number(process.env['QUARRY_SEEDS'] ?? (process.env['QUARRY_SOAK'] === undefined ? 12 : 200));
const isSingle =
  process.env['QUARRY_SEED'] !== undefined &&
  process.env['QUARRY_SEEDS'] === undefined &&
  process.env['QUARRY_SOAK'] === undefined;
const seeds = Array.from({ length: isSingle ? 1 : count }, (_, index) => first + index);

async function runAll(options: { faults: boolean; totalBytes: number }): Promise<void> {
  for (const seed of seeds) {
    const world = new World({ seed, rounds: 60, ...options });
    try {
      await world.run();
    } catch (error) {
      throw new Error(
        `seed ${seed} (repeat with QUARRY_SEED=${seed}): ${error instanceof Error ? error.message : String(error)}`,
        { cause: error },
      );
    }
    expect(world.crashes).toBeGreaterThan(0);
  }
}

describe('a pool under random operations and crashes', () => {
  it('keeps every promise when the power fails', { timeout: 3_600_000 }, () =>
    runAll({ faults: false, totalBytes: 1024 * MIB }),
  );
  it('keeps every promise when the disk fails too', { timeout: 3_600_000 }, () =>
    runAll({ faults: true, totalBytes: 1024 * MIB }),
  );
  it('keeps every promise on a disk that fills up', { timeout: 3_600_000 }, () =>
    runAll({ faults: false, totalBytes: 2 * MIB }),
  );
});
