/** What the parts of this benchmark share: what a figure is, and how an answer or a status is waited for. */
import type { Answer, ApiPool, Json } from '../../test/support/api-pool.ts';

export type ApiFigure = {
  readonly name: string;
  readonly unit: 'ms' | '1/s' | 'MiB' | '%';
  /** Of a rate or a size the figure itself; of what is measured in rounds the median, and then the worst. */
  readonly p50: number;
  readonly p99: number;
  /** Of the daemon's process, per operation (0: not measured); it stays comparable when the machine is busy. */
  readonly cpuMs: number;
};

export type ApiSizes = {
  readonly listed: number;
  readonly page: number;
  readonly rows: number;
  readonly lists: number;
  readonly operations: number;
  readonly creates: number;
  readonly atOnce: number;
  /** Rounds of fio alone and beside the API, and seconds of each half. */
  readonly rounds: number;
  readonly seconds: number;
};

export function quantile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
}

export async function granted(asked: Promise<Answer>): Promise<Json> {
  const { status, body } = await asked;
  if (status >= 300) throw new Error(`${status}: ${JSON.stringify(body)}`);
  return body;
}

export async function settled(api: ApiPool, path: string): Promise<void> {
  for (;;) {
    const { status } = Object.values(await granted(api.ask('GET', path)))[0] as { status: string };
    if (status === 'available') return;
    if (status.startsWith('error')) throw new Error(`${path} is in status ${status}`);
  }
}
