/**
 * Many clients of many volumes: how many handshakes a second, and what a connection takes while nobody uses it, after it was
 * used. Client and daemon share the machine. It judges nothing.
 */
import { readFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { setTimeout as pause } from 'node:timers/promises';
import { RawClient } from '../../test/nbd/raw.ts';
import { ApiPool } from '../../test/support/api-pool.ts';
import { type Daemon, startDaemon } from '../../test/support/daemon.ts';
import { settled } from '../api/figures.ts';

export type ConnectionSizes = {
  readonly volumes: number;
  readonly connections: number;
  readonly handshakes: number;
  /** Clients that connect at once, and volumes that are made at once. */
  readonly atOnce: number;
  /** Buffers are given back after five seconds; a busy machine takes longer. */
  readonly idleSeconds: number;
};

export type ConnectionFigures = {
  readonly handshakesPerSecond: number;
  /** Resident memory of the daemon: before the first connection, and more per connection right after use and when idle. */
  readonly startMib: number;
  readonly usedKib: number;
  readonly idleKib: number;
  /** The machine's kernel stacks, which are not in a process's resident memory. */
  readonly kernelStackKib: number;
};

const FULL: ConnectionSizes = { volumes: 1000, connections: 4000, handshakes: 10_000, atOnce: 32, idleSeconds: 15 };
const BLOCK = Buffer.alloc(4096, 7);

function kibOf(path: string, field: string): number {
  const found = new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(readFileSync(path, 'utf8'));
  return Number(found?.[1]);
}

/** `work` for each number below `count`, so many at once. */
async function each(count: number, atOnce: number, work: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) await work(next++);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}

export async function benchConnections(sizes: ConnectionSizes): Promise<ConnectionFigures> {
  const daemon = await startDaemon();
  try {
    const ids = await makeVolumes(daemon, sizes);
    const handshakesPerSecond = await measureHandshakes(daemon, ids, sizes);
    return { handshakesPerSecond, ...(await measureMemory(daemon, ids, sizes)) };
  } finally {
    await daemon.stop();
  }
}

async function makeVolumes(daemon: Daemon, { volumes, atOnce }: ConnectionSizes): Promise<string[]> {
  const api = new ApiPool(daemon);
  const ids: string[] = [];
  try {
    await each(volumes, atOnce, async () => {
      const { id } = await api.make('/volumes', { volume: { size: 1 } });
      await settled(api, `/volumes/${id}`);
      ids.push(id);
    });
  } finally {
    await api[Symbol.asyncDispose]();
  }
  return ids;
}

function connectTo(daemon: Daemon, ids: readonly string[], index: number): Promise<RawClient> {
  return RawClient.ready(daemon.nbdSocket, ids[index % ids.length] ?? '');
}

async function measureHandshakes(daemon: Daemon, ids: readonly string[], sizes: ConnectionSizes): Promise<number> {
  const begun = performance.now();
  await each(sizes.handshakes, sizes.atOnce, async (index) => {
    (await connectTo(daemon, ids, index))[Symbol.dispose]();
  });
  return (sizes.handshakes * 1000) / (performance.now() - begun);
}

async function measureMemory(
  daemon: Daemon,
  ids: readonly string[],
  { connections, atOnce, idleSeconds }: ConnectionSizes,
): Promise<Omit<ConnectionFigures, 'handshakesPerSecond'>> {
  const resident = (): number => kibOf(`/proc/${daemon.pid}/status`, 'VmRSS');
  const stacks = (): number => kibOf('/proc/meminfo', 'KernelStack');
  const [start, stacksBefore] = [resident(), stacks()];
  const perConnection = (kib: number): number => kib / connections;
  const clients: RawClient[] = [];
  await each(connections, atOnce, async (index) => {
    const client = await connectTo(daemon, ids, index);
    clients.push(client);
    const errno = await client.write(0, BLOCK);
    if (errno !== 0 || !(await client.read(0, BLOCK.length)).equals(BLOCK)) throw new Error(`a write failed: ${errno}`);
  });
  const usedKib = perConnection(resident() - start);
  await pause(idleSeconds * 1000);
  const idleKib = perConnection(resident() - start);
  const kernelStackKib = perConnection(stacks() - stacksBefore);
  for (const client of clients) client[Symbol.dispose]();
  return { startMib: start / 1024, usedKib, idleKib, kernelStackKib };
}

/** Optionally how many volumes. */
export async function main([volumesGiven]: readonly string[]): Promise<number> {
  const volumes = volumesGiven === undefined ? FULL.volumes : Number(volumesGiven);
  const figures = await benchConnections({ ...FULL, volumes });
  const { connections, handshakes } = FULL;
  process.stdout.write(
    `${volumes} volumes, ${handshakes} handshakes: ${figures.handshakesPerSecond.toFixed(0)}/s\n` +
      `${connections} connections: ${figures.usedKib.toFixed(1)} KiB each right after use, ${figures.idleKib.toFixed(1)} KiB idle, ` +
      `${figures.kernelStackKib.toFixed(1)} KiB of kernel stack; the daemon had ${figures.startMib.toFixed(0)} MiB before\n`,
  );
  return 0;
}
