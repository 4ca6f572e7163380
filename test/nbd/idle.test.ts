/** What connections cost while nobody uses them: memory that a busy moment took is given back. */
import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { startDaemon } from '../support/daemon.ts';
import { quarryOn } from '../support/quarry.ts';
import { RawClient } from './raw.ts';

const CLIENTS = 500;
const KIB = 1024;
/** Measured at 13, without the kernel's stack; the rest is for what else the daemon does meanwhile. */
const IDLE_KIB_MAX = 40;
/** Buffers are given back after five seconds. */
const TIMEOUT_MS = 40_000;

async function residentKib(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]);
}

it(
  `${CLIENTS} connections that were busy take less than ${IDLE_KIB_MAX} KiB each when they are idle again`,
  async () => {
    await using daemon = await startDaemon();
    await quarryOn(daemon, 'volume', 'create', 'disk', '--size', '1');
    const before = await residentKib(daemon.pid);
    const clients = await Promise.all(Array.from({ length: CLIENTS }, () => RawClient.ready(daemon.nbdSocket, 'disk')));
    const data = Buffer.alloc(128 * KIB, 7);
    for (const client of clients) {
      expect(await client.write(0, data)).toBe(0);
      expect((await client.read(0, data.length)).equals(data)).toBe(true);
    }
    const growth = async () => ((await residentKib(daemon.pid)) - before) / CLIENTS;
    await expect.poll(growth, { timeout: TIMEOUT_MS / 2, interval: 500 }).toBeLessThan(IDLE_KIB_MAX);
    for (const client of clients) client[Symbol.dispose]();
  },
  TIMEOUT_MS,
);
