/**
 * Random operations against a model, with crashes at every kind of moment. `QUARRY_SEED=n` repeats one seed (first seed of a
 * range together with `QUARRY_SEEDS=count`); without them a few fixed seeds run.
 */

import { describe, expect, it } from 'vitest';
import { World } from './world.ts';

const MIB = 2 ** 20;
/** About five seconds in all. */
const FEW = 5;
const first = Number(process.env['QUARRY_SEED'] ?? 1);
const count = Number(process.env['QUARRY_SEEDS'] ?? (process.env['QUARRY_SOAK'] === undefined ? FEW : 200));
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
  it('keeps every promise when the power fails at any operation of the disk', { timeout: 3_600_000 }, async () => {
    // Each seed's run is repeated with the power failing at its first operation, its second, and so on until it ends by itself.
    for (const seed of seeds.slice(0, seeds.length > FEW ? seeds.length : 1)) {
      for (let crashAt = 0, crashes = 1; crashes > 0; crashAt += 1) {
        const world = new World({ seed, rounds: 10, faults: false, totalBytes: 1024 * MIB, crashAt });
        try {
          await world.run();
        } catch (error) {
          const message = error instanceof Error ? error.message : String(error);
          throw new Error(`seed ${seed}, power off at operation ${crashAt}: ${message}`, { cause: error });
        }
        crashes = world.crashes;
      }
    }
  });
  it('keeps every promise on a disk that fills up', { timeout: 3_600_000 }, () =>
    runAll({ faults: false, totalBytes: 2 * MIB }),
  );
});
