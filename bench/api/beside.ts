/**
 * What a busy control API does to who reads and writes an attached volume: fio's p99 alone, beside clients of the same daemon's API,
 * and beside the same clients of another daemon. They take turns within one run, and fio asks at a fixed rate. The third says what
 * of it is the machine, which is as busy then: what remains is what the daemon's own parts do to each other.
 */
import { execFileSync } from 'node:child_process';
import { ApiPool } from '../../test/support/api-pool.ts';
import { type Daemon, startDaemon } from '../../test/support/daemon.ts';
import { fill, fio, seenBy } from '../nbd/fio.ts';
import { type ApiFigure, type ApiSizes, granted, quantile, settled } from './figures.ts';
import { refill } from './rows.ts';

const SIZE_MIB = 512;
/** Reads and writes per second. */
const RATES = '2800,1200';
const JOB = ['--rw=randrw', '--rwmixread=70', '--bs=4k', '--iodepth=8', `--rate_iops=${RATES}`];

function isInstalled(): boolean {
  try {
    execFileSync('fio', ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

async function attached(api: ApiPool): Promise<string> {
  const { id } = await api.make('/volumes', { volume: { size: 1 } });
  await settled(api, `/volumes/${id}`);
  const wanted = { volume_uuid: id, connector: { host: 'bench' } };
  const attachment = await api.make('/attachments', { attachment: wanted });
  await granted(api.ask('POST', `/attachments/${attachment.id}/action`, { 'os-complete': {} }));
  return attachment.connection_info.uri;
}

/** Two clients that never rest: one looks, one makes and deletes. Returns how many requests were answered. */
async function work(api: ApiPool, page: number, isOver: () => boolean): Promise<number> {
  let answers = 0;
  const ask = async (...request: Parameters<ApiPool['ask']>) => {
    answers += 1;
    return granted(api.ask(...request));
  };
  const look = async (): Promise<void> => {
    while (!isOver()) {
      const { volumes } = await ask('GET', `/volumes/detail?limit=${page}`);
      for (const { id } of volumes.slice(0, 10)) await api.ask('GET', `/volumes/${id}`);
    }
  };
  const make = async (): Promise<void> => {
    while (!isOver()) {
      const { volume } = await ask('POST', '/volumes', { volume: { size: 1 } });
      await settled(api, `/volumes/${volume.id}`);
      const { snapshot } = await ask('POST', '/snapshots', { snapshot: { volume_id: volume.id } });
      await settled(api, `/snapshots/${snapshot.id}`);
      await ask('DELETE', `/volumes/${volume.id}?cascade=true`);
    }
  };
  await Promise.all([look(), make()]);
  return answers;
}

async function p99Ms(uri: string, seconds: number): Promise<number> {
  const shape = ['--name=j', `--uri=${uri}`, `--size=${SIZE_MIB}m`, '--norandommap', '--time_based'];
  return seenBy(await fio([...shape, `--runtime=${seconds}`, ...JOB])).p99Us / 1000;
}

/** fio beside clients that work until it has ended; `alone`: beside nobody. */
async function measured(
  uri: string,
  sizes: ApiSizes,
  api: ApiPool | 'alone',
): Promise<{ p99: number; answers: number }> {
  let isOver = false;
  const working = api === 'alone' ? Promise.resolve(0) : work(api, sizes.page, () => isOver);
  // Clients that fail end it at once; they must not go on behind an fio that fails.
  const ended = working.then(() => new Promise<never>(() => {}));
  try {
    const p99 = await Promise.race([p99Ms(uri, sizes.seconds), ended]);
    isOver = true;
    return { p99, answers: await working };
  } finally {
    isOver = true;
  }
}

/** By how much each is above its counterpart of the same round, in percent. */
function above(values: readonly number[], than: readonly number[]): number[] {
  return values.map((value, round) => (value / (than[round] ?? Number.NaN) - 1) * 100);
}

/** Nothing where fio is not installed. */
export async function measureBeside(_daemon: Daemon, api: ApiPool, sizes: ApiSizes): Promise<ApiFigure[]> {
  if (!isInstalled()) return [];
  const other = await startDaemon();
  try {
    const first = new ApiPool(other);
    const { id } = await first.make('/volumes', { volume: { size: 1 } });
    await settled(first, `/volumes/${id}`);
    await first[Symbol.asyncDispose]();
    await refill(other, sizes.listed);
    const others = new ApiPool(other);
    try {
      return await rounds({ own: api, others }, sizes);
    } finally {
      await others[Symbol.asyncDispose]();
    }
  } finally {
    await other.stop();
  }
}

async function rounds({ own, others }: { own: ApiPool; others: ApiPool }, sizes: ApiSizes): Promise<ApiFigure[]> {
  const uri = await attached(own);
  await fill(uri, SIZE_MIB);
  const alone: number[] = [];
  const besideOwn: number[] = [];
  const besideOther: number[] = [];
  let answers = 0;
  for (let round = 0; round < sizes.rounds; round += 1) {
    alone.push((await measured(uri, sizes, 'alone')).p99);
    const seen = await measured(uri, sizes, own);
    besideOwn.push(seen.p99);
    answers += seen.answers;
    besideOther.push((await measured(uri, sizes, others)).p99);
  }
  const figure = (name: string, unit: ApiFigure['unit'], values: readonly number[]): ApiFigure => ({
    ...{ name, unit, cpuMs: 0 },
    ...{ p50: quantile(values, 0.5), p99: Math.max(...values) },
  });
  const rate = answers / (sizes.rounds * sizes.seconds);
  return [
    figure('p99 of fio on an attached volume, alone', 'ms', alone),
    figure('p99 of fio beside the API of its daemon', 'ms', besideOwn),
    figure('p99 of fio beside the API of another daemon', 'ms', besideOther),
    figure('its own API moves it, against alone', '%', above(besideOwn, alone)),
    figure('its own API moves it, against another one', '%', above(besideOwn, besideOther)),
    figure('lists and changes meanwhile', '1/s', [rate]),
  ];
}
