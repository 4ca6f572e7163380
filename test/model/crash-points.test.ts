/**
 * Crash points by the thousand: at operations of the disk, chosen at random, what a power failure at that moment may leave is drawn
 * many times; each is recovered, checked and compared with the model. Prints how many there were. `QUARRY_SEED` as in model.test.ts.
 */

import { expect, it } from 'vitest';
import { World } from './world.ts';

const MIB = 2 ** 20;
const isSoak = process.env['QUARRY_SOAK'] !== undefined;
const first = Number(process.env['QUARRY_SEED'] ?? 1);
const isSingle = process.env['QUARRY_SEED'] !== undefined && process.env['QUARRY_SEEDS'] === undefined && !isSoak;
const count = isSingle ? 1 : Number(process.env['QUARRY_SEEDS'] ?? (isSoak ? 100 : 3));
/** Share of the disk's operations at which is looked. */
const PROBING = 0.4;

it('whatever a power failure leaves at any moment is recovered to what was promised', {
  timeout: 3_600_000,
}, async () => {
  const before = process.cpuUsage();
  let [points, moments] = [0, 0];
  for (let seed = first; seed < first + count; seed += 1) {
    const totalBytes = (seed % 3 === 0 ? 2 : 1024) * MIB;
    const world = new World({ seed, rounds: isSoak ? 60 : 20, faults: seed % 2 === 0, totalBytes, probing: PROBING });
    try {
      await world.run();
    } catch (error) {
      const command = `QUARRY_SEED=${seed} ${isSoak ? 'QUARRY_SEEDS=1 QUARRY_SOAK=1 ' : ''}npx vitest run --project model test/model/crash-points.test.ts`;
      const reason = error instanceof Error ? error.message : String(error);
      throw new Error(`seed ${seed} (repeat with ${command}): ${reason}`, { cause: error });
    }
    points += world.probe.crashPoints;
    moments += world.probe.moments;
  }
  const { user, system } = process.cpuUsage(before);
  const seconds = (user + system) / 1e6;
  console.info(
    `${points} crash points at ${moments} moments in ${seconds.toFixed(1)} s of one core: ${Math.round(points / seconds)} a second`,
  );
  expect(points).toBeGreaterThan(500 * count);
});
