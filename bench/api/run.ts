/**
 * The control API of a daemon with the real backend: how long its answers and its work take, and what it needs for many
 * rows, which are put straight into the catalog while it is stopped. Everything is seen from a client's side, over a
 * unix socket. It judges nothing.
 */
import { readFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { performance } from 'node:perf_hooks';
import Table from 'cli-table3';
import { ApiPool } from '../../test/support/api-pool.ts';
import { type Daemon, startDaemon } from '../../test/support/daemon.ts';
import { measureBeside } from './beside.ts';
import { type ApiFigure, type ApiSizes, granted, quantile, settled } from './figures.ts';
import { refill } from './rows.ts';

export const FULL: ApiSizes = {
  ...{ listed: 10_000, page: 1000, rows: 100_000, lists: 50, operations: 200 },
  ...{ creates: 2000, atOnce: 200, rounds: 7, seconds: 5 },
};

const CLOCK_TICKS_PER_SECOND = 100;

function cpuMsOf(daemon: Daemon): number {
  const stat = readFileSync(`/proc/${daemon.pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return ((Number(fields[11]) + Number(fields[12])) * 1000) / CLOCK_TICKS_PER_SECOND;
}

function residentMib(daemon: Daemon): number {
  const status = readFileSync(`/proc/${daemon.pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024;
}

/** Times each of `count` operations, one after the other. */
async function timed(
  daemon: Daemon,
  { name, count }: { name: string; count: number },
  operation: (index: number) => Promise<void>,
): Promise<ApiFigure> {
  const times: number[] = [];
  const cpuBefore = cpuMsOf(daemon);
  for (let index = 0; index < count; index += 1) {
    const before = performance.now();
    await operation(index);
    times.push(performance.now() - before);
  }
  const cpuMs = (cpuMsOf(daemon) - cpuBefore) / count;
  return { name, unit: 'ms', p50: quantile(times, 0.5), p99: quantile(times, 0.99), cpuMs };
}

async function measureWork(daemon: Daemon, api: ApiPool, sizes: ApiSizes): Promise<ApiFigure[]> {
  const count = sizes.operations;
  const made = async (what: string, fields: object): Promise<string> => {
    const { id } = await api.make(`/${what}s`, { [what]: fields });
    await settled(api, `/${what}s/${id}`);
    return id;
  };
  const source = await made('volume', { size: 1 });
  const snapshots: string[] = [];
  return [
    await timed(daemon, { name: 'create an empty volume, to available', count }, async () => {
      await made('volume', { size: 1 });
    }),
    await timed(daemon, { name: 'snapshot a volume, to available', count }, async () => {
      snapshots.push(await made('snapshot', { volume_id: source }));
    }),
    await timed(daemon, { name: 'volume from a snapshot, to available', count }, async (index) => {
      await made('volume', { snapshot_id: snapshots[index] });
    }),
    await measureBurst(daemon, api, sizes),
  ];
}

/** So many requests under way at any time; counted is what was accepted. */
async function measureBurst(daemon: Daemon, api: ApiPool, { creates, atOnce }: ApiSizes): Promise<ApiFigure> {
  let left = creates;
  const cpuBefore = cpuMsOf(daemon);
  const begin = performance.now();
  const client = async (): Promise<void> => {
    while (left > 0) {
      left -= 1;
      await api.make('/volumes', { volume: { size: 1 } });
    }
  };
  await Promise.all(Array.from({ length: atOnce }, client));
  const rate = (creates * 1000) / (performance.now() - begin);
  const name = `accept volumes, ${atOnce} requests at once`;
  const figure = { name, unit: '1/s', p50: rate, p99: rate, cpuMs: (cpuMsOf(daemon) - cpuBefore) / creates } as const;
  while ((await granted(api.ask('GET', '/quarry/status'))).tasks.length > 0);
  return figure;
}

async function measureReads(
  daemon: Daemon,
  api: ApiPool,
  { listed, page, lists, operations }: ApiSizes,
): Promise<ApiFigure[]> {
  let marker: string | null = null;
  const next = async (): Promise<void> => {
    const query: string = marker === null ? '' : `&marker=${marker}`;
    const { volumes } = await granted(api.ask('GET', `/volumes/detail?limit=${page}${query}`));
    marker = volumes.length < page ? null : volumes.at(-1).id;
  };
  const name = `list ${page} of ${listed} volumes in detail`;
  // The first answers of a process are its compiler's.
  for (let index = 0; index < lists / 5; index += 1) await next();
  const list = await timed(daemon, { name, count: lists }, next);
  const { volumes } = await granted(api.ask('GET', `/volumes?limit=${page}`));
  const show = await timed(daemon, { name: 'show a volume', count: operations }, async (index) => {
    await granted(api.ask('GET', `/volumes/${volumes[index % volumes.length].id}`));
  });
  return [list, show];
}

async function measureMemory(daemon: Daemon, api: ApiPool, { rows, page }: ApiSizes): Promise<ApiFigure[]> {
  const cpuMs = cpuMsOf(daemon);
  const idle = residentMib(daemon);
  let marker = '';
  for (let seen = 0; seen < rows; seen += page) {
    const { volumes } = await granted(api.ask('GET', `/volumes/detail?limit=${page}${marker}`));
    if (volumes.length < page) break;
    marker = `&marker=${volumes.at(-1).id}`;
  }
  const after = residentMib(daemon);
  const memory = (name: string, value: number) => ({ name, unit: 'MiB', p50: value, p99: value, cpuMs }) as const;
  return [
    memory(`memory with ${rows} volumes, after the start`, idle),
    memory(`memory with ${rows} volumes, all of them listed`, after),
  ];
}

type Part = (daemon: Daemon, api: ApiPool, sizes: ApiSizes) => Promise<ApiFigure[]>;

async function measured(part: Part, daemon: Daemon, sizes: ApiSizes): Promise<ApiFigure[]> {
  const api = new ApiPool(daemon);
  try {
    return await part(daemon, api, sizes);
  } finally {
    await api[Symbol.asyncDispose]();
  }
}

// What runs this file without the tests' compiler does not know `using`.
export async function benchApi(sizes: ApiSizes): Promise<ApiFigure[]> {
  const daemon = await startDaemon();
  try {
    const work = await measured(measureWork, daemon, sizes);
    await refill(daemon, sizes.listed);
    const reads = await measured(measureReads, daemon, sizes);
    const beside = await measured(measureBeside, daemon, sizes);
    await refill(daemon, sizes.rows);
    return [...reads, ...work, ...beside, ...(await measured(measureMemory, daemon, sizes))];
  } finally {
    await daemon.stop();
  }
}

export async function main(): Promise<number> {
  const figures = await benchApi(FULL);
  const table = new Table({ head: ['', 'median', 'p99', 'CPU each'], style: { head: [], border: [] } });
  for (const { name, unit, p50, p99, cpuMs } of figures) {
    const digits = unit !== 'ms' ? 0 : p50 < 1 ? 3 : 1;
    const [middle, worst] = [p50, p99].map((value) => `${value.toFixed(digits)} ${unit}`);
    const isSpread = unit === 'ms' || unit === '%';
    table.push([name, middle, isSpread ? worst : '', cpuMs === 0 || unit === 'MiB' ? '' : `${cpuMs.toFixed(1)} ms`]);
  }
  process.stdout.write(
    `${table.toString()}\nload of the machine: ${loadavg()
      .map((load) => load.toFixed(1))
      .join(', ')}\n`,
  );
  return 0;
}
