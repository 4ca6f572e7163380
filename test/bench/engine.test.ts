import { expect, test } from 'vitest';
import { benchEngine } from '../../bench/engine/run.ts';

test('the benchmark of the engine measures every case, small', () => {
  const figures = benchEngine({ leaves: 4, seconds: 0 });
  expect(figures.length).toBeGreaterThanOrEqual(6);
  for (const { name, nsPerUnit } of figures) {
    expect(Number.isFinite(nsPerUnit), name).toBe(true);
    expect(nsPerUnit, name).toBeGreaterThan(0);
  }
});
