import { expect, test } from 'vitest';
import { benchApi } from '../../bench/api/run.ts';

test('the benchmark of the API measures every case, small', async () => {
  const sizes = { listed: 30, page: 10, rows: 60, lists: 4, operations: 3, creates: 8, atOnce: 4 };
  const figures = await benchApi(sizes);
  expect(new Set(figures.map(({ name }) => name)).size).toBe(8);
  for (const { name, p50, p99 } of figures) {
    expect(p50, name).toBeGreaterThan(0);
    expect(p99, name).toBeGreaterThanOrEqual(p50);
  }
});
