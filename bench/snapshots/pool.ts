/** A pool of its own for a benchmark of snapshots, with one volume and fio as its client. Measures nothing itself. */
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createLocalBackend, type LocalBackend } from '../../src/backend/local.ts';
import type { PoolSettings } from '../../src/engine/engine.ts';
import { NbdClient } from '../../src/image/nbd-client.ts';

const MIB = 2 ** 20;

/** What fio saw of one run. */
export type Load = { readonly iops: number; readonly p99Ms: number; readonly maxMs: number };

type FioSide = {
  readonly iops: number;
  readonly total_ios: number;
  readonly clat_ns: { readonly max: number; readonly percentile?: Readonly<Record<string, number>> };
};

export class BenchPool {
  readonly backend: LocalBackend;
  readonly #folder: string;

  private constructor(backend: LocalBackend, folder: string) {
    this.backend = backend;
    this.#folder = folder;
  }

  static async open(dir: string, settings: Partial<PoolSettings> = {}): Promise<BenchPool> {
    const folder = await mkdtemp(join(dir, 'quarry-bench-'));
    const backend = await createLocalBackend({
      dataDir: folder,
      nbdAddresses: [`unix:${join(folder, 's.sock')}`],
      nbdTls: null,
      nbdLimits: { connectionsMax: 100, exportConnectionsMax: 100 },
      // A volume of 16 TiB is measured on whatever disk there is.
      pool: { maxOverSubscription: 1e6, ...settings },
      onEvent: () => {},
      onFatal: (error) => {
        throw error;
      },
    });
    return new BenchPool(backend, folder);
  }

  uri(id: string): string {
    return `nbd+unix:///${id}?socket=${join(this.#folder, 's.sock')}`;
  }

  async volume(sizeBytes: number, sourceId: string | null = null): Promise<string> {
    const id = randomUUID();
    await this.backend.createVolume({ id, sizeBytes, sourceId });
    await this.backend.publish({ name: id, targetId: id, readOnly: false, description: '', isListed: false });
    return id;
  }

  async snapshot(volumeId: string): Promise<{ readonly id: string; readonly tookMs: number }> {
    const id = randomUUID();
    const before = performance.now();
    await this.backend.createSnapshot({ id, volumeId });
    return { id, tookMs: performance.now() - before };
  }

  /** Everything in it is written once, from the front. */
  async fill(id: string, sizeMib: number): Promise<void> {
    await this.#fio(id, [`--size=${sizeMib}m`, '--rw=write', '--bs=1m', '--iodepth=8', '--end_fsync=1']);
  }

  /** For that long, in the first part of the volume. */
  async load(id: string, options: { rw: string; seconds: number; sizeMib: number }): Promise<Load> {
    const { rw, seconds, sizeMib } = options;
    const { read, write } = await this.#fio(id, [
      ...[`--rw=${rw}`, '--bs=4k', '--iodepth=32', '--randrepeat=0', '--norandommap'],
      ...['--time_based', `--runtime=${seconds}`, `--size=${sizeMib}m`],
    ]);
    const side = write.total_ios > read.total_ios ? write : read;
    const p99Ns = side.clat_ns.percentile?.['99.000000'] ?? Number.NaN;
    return { iops: side.iops, p99Ms: p99Ns / 1e6, maxMs: side.clat_ns.max / 1e6 };
  }

  #fio(id: string, args: readonly string[]): Promise<{ read: FioSide; write: FioSide }> {
    return new Promise((resolve, reject) => {
      const fixed = ['--name=j', '--ioengine=nbd', '--output-format=json', `--uri=${this.uri(id)}`];
      const child = spawn('fio', [...fixed, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
      let stdout = '';
      child.stdout.on('data', (chunk) => {
        stdout += chunk;
      });
      child.on('error', reject);
      child.on('close', (code) => {
        if (code !== 0) return reject(new Error(`fio ended with ${code}: ${stdout.slice(0, 300)}`));
        const parsed = JSON.parse(stdout.slice(stdout.indexOf('{'))) as { jobs: [{ read: FioSide; write: FioSide }] };
        return resolve(parsed.jobs[0]);
      });
    });
  }

  /** One block to a random place, so that the next snapshot has a map of its own. */
  async scatter(id: string, { count, sizeMib }: { count: number; sizeMib: number }): Promise<void> {
    const client = await NbdClient.connect(this.uri(id));
    const block = Buffer.alloc(4096, 0x5a);
    for (let done = 0; done < count; done += 1)
      await client.write(Math.floor((Math.random() * sizeMib * MIB) / 4096) * 4096, block);
    await client.flush();
    await client.close();
  }

  async close(): Promise<void> {
    await this.backend.close();
    await rm(this.#folder, { recursive: true, force: true });
  }
}

export function quantile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
}
