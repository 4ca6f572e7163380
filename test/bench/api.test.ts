import { expect, test } from 'vitest';
import { benchApi } from '../../bench/api/run.ts';
import { describeWith } from '../support/peers.ts';

/** It starts five daemons and fio three times; on a busy machine that takes half a minute. */
const TIMEOUT_MS = 180_000;

describeWith(['fio'], 'the benchmark of the API', () => {
  test('measures every case, small', { timeout: TIMEOUT_MS }, async () => {
    const sizes = {
      listed: 30,
      page: 10,
      rows: 60,
      lists: 4,
      operations: 3,
      creates: 8,
      atOnce: 4,
      rounds: 1,
      seconds: 1,
    };
    const figures = await benchApi(sizes);
    expect(new Set(figures.map(({ name }) => name)).size).toBe(14);
    for (const { name, unit, p50, p99 } of figures) {
      if (unit !== '%') expect(p50, name).toBeGreaterThan(0);
      expect(p99, name).toBeGreaterThanOrEqual(p50);
    }
  });
});
