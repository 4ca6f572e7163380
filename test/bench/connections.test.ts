import { expect, test } from 'vitest';
import { benchConnections } from '../../bench/nbd/connections.ts';

test('the benchmark of many connections measures them, few', { timeout: 60_000 }, async () => {
  const sizes = { volumes: 3, connections: 12, handshakes: 20, atOnce: 4, idleSeconds: 0 };
  const figures = await benchConnections(sizes);
  expect(figures.handshakesPerSecond).toBeGreaterThan(1);
  expect(figures.startMib).toBeGreaterThan(10);
  for (const kib of [figures.usedKib, figures.idleKib, figures.kernelStackKib]) expect(Number.isFinite(kib)).toBe(true);
});
