/** fio as the client of an NBD server: run on some targets, and what it saw of them. It knows no server and no job. */
import { spawn } from 'node:child_process';

type FioSide = {
  readonly total_ios: number;
  readonly iops: number;
  readonly bw: number;
  readonly clat_ns?: FioLatency;
};
type FioLatency = { readonly percentile?: Readonly<Record<string, number>> };
type FioOutput = { readonly jobs: readonly { readonly read: FioSide; readonly write: FioSide }[] };

export function fio(args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn('fio', ['--ioengine=nbd', '--output-format=json', ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk) => {
      stdout += chunk;
    });
    child.stderr.on('data', (chunk) => {
      stderr += chunk;
    });
    child.on('error', reject);
    child.on('close', (code) => {
      if (code === 0) resolve(stdout.slice(stdout.indexOf('{')));
      else reject(new Error(`fio ended with ${code}: ${(stderr + stdout).slice(0, 300)}`));
    });
  });
}

export type Seen = {
  readonly ios: number;
  readonly iops: number;
  readonly mibPerSecond: number;
  readonly p99Us: number;
};

/** Of all jobs together; of the latencies the worst. */
export function seenBy(output: string): Seen {
  const result: FioOutput = JSON.parse(output);
  const sides = result.jobs.flatMap(({ read, write }) => [read, write]).filter((side) => side.total_ios > 0);
  const sum = (of: (side: FioSide) => number) => sides.reduce((total, side) => total + of(side), 0);
  const p99Ns = sides.map((side) => side.clat_ns?.percentile?.['99.000000'] ?? 0);
  return {
    ios: sum((side) => side.total_ios),
    iops: sum((side) => side.iops),
    mibPerSecond: sum((side) => side.bw) / 1024,
    p99Us: Math.max(0, ...p99Ns) / 1000,
  };
}

/** Writes the whole of it once. */
export async function fill(uri: string, sizeMib: number): Promise<void> {
  await fio([
    '--name=j',
    `--uri=${uri}`,
    `--size=${sizeMib}m`,
    '--rw=write',
    '--bs=1m',
    '--iodepth=8',
    '--end_fsync=1',
  ]);
}
