/** A daemon whose backups go to a folder, asked over its API as a client would: volumes, backups and restores, each timed. */
import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as pause } from 'node:timers/promises';
import { NbdClient } from '../../src/image/nbd-client.ts';
import { ApiPool } from '../../test/support/api-pool.ts';
import { type Daemon, startDaemon } from '../../test/support/daemon.ts';
import { quarryOn } from '../../test/support/quarry.ts';
import { granted } from '../api/figures.ts';
import { type Change, MIB } from './image.ts';
import { cpuSecondsOf, type Figure, keptIn, type Subject, type Work } from './steps.ts';

/** Short beside what is measured, and long enough to cost nothing. */
const ASK_EVERY_MS = 10;
/** A volume of 1 TiB on whatever disk there is. */
const CONFIG = '[pool]\nmax_over_subscription_ratio = 1000000\n';

export class BackupDaemon {
  readonly daemon: Daemon;
  readonly #repository: string;
  #api: ApiPool;

  private constructor(daemon: Daemon, repository: string) {
    this.daemon = daemon;
    this.#repository = repository;
    this.#api = new ApiPool(daemon);
  }

  static async start(folder: string): Promise<BackupDaemon> {
    const [config, repository] = [join(folder, 'quarry.toml'), join(folder, 'repository')];
    await writeFile(config, CONFIG);
    const args = ['--config', config, '--backups', `file:${repository}`];
    const daemon = await startDaemon({ dataDir: join(folder, 'data'), args });
    return new BackupDaemon(daemon, repository);
  }

  async stop(): Promise<void> {
    await this.#api[Symbol.asyncDispose]();
    await this.daemon.stop();
  }

  async restart(): Promise<void> {
    await this.#api[Symbol.asyncDispose]();
    await this.daemon.restart();
    this.#api = new ApiPool(this.daemon);
  }

  async import(name: string, image: string): Promise<string> {
    await quarryOn(this.daemon, 'volume', 'create', name, '--image', image);
    const { volumes } = await granted(this.#api.ask('GET', `/volumes?name=${name}`));
    return volumes[0].id;
  }

  async volume(name: string, sizeGib: number): Promise<string> {
    const { id } = await this.#api.make('/volumes', { volume: { name, size: sizeGib } });
    await this.#settled(`/volumes/${id}`);
    return id;
  }

  async write(name: string, changes: Iterable<Change>): Promise<void> {
    const client = await NbdClient.connect(this.daemon.uri(name));
    try {
      for (const { offset, data } of changes) await client.write(offset, data);
      await client.flush();
    } finally {
      await client.close();
    }
  }

  async sha256Of(name: string, bytes: number): Promise<string> {
    const client = await NbdClient.connect(this.daemon.uri(name));
    try {
      const hash = createHash('sha256');
      const piece = Buffer.alloc(MIB);
      for (let at = 0; at < bytes; at += MIB) {
        await client.read(at, piece);
        hash.update(piece);
      }
      return hash.digest('hex');
    } finally {
      await client.close();
    }
  }

  backup(volumeId: string, name: string, { incremental }: { incremental: boolean }): Promise<Figure & { id: string }> {
    return this.#timed(async () => {
      const body = { backup: { volume_id: volumeId, name, incremental } };
      const { id } = await this.#api.make('/backups', body);
      await this.#settled(`/backups/${id}`);
      return id;
    });
  }

  restore(backupId: string, name: string): Promise<Figure & { id: string }> {
    return this.#timed(async () => {
      const { volume_id: id } = await this.#api.make(`/backups/${backupId}/restore`, { restore: { name } });
      await this.#settled(`/volumes/${id}`);
      return id;
    });
  }

  async #settled(path: string): Promise<void> {
    for (;;) {
      const { status } = Object.values(await granted(this.#api.ask('GET', path)))[0] as { status: string };
      if (status === 'available') return;
      if (status.startsWith('error'))
        throw new Error(`${path} is in status ${status}\n${this.daemon.log.slice(-2000)}`);
      await pause(ASK_EVERY_MS);
    }
  }

  async #readMib(): Promise<number> {
    const { body } = await this.daemon.request('GET', '/metrics');
    return Number(/^quarry_backup_read_bytes_total (\d+)$/m.exec(String(body))?.[1]) / MIB;
  }

  async #timed(operation: () => Promise<string>): Promise<Figure & { id: string }> {
    const { pid } = this.daemon;
    const [kept, read, cpu] = [await keptIn(this.#repository), await this.#readMib(), cpuSecondsOf(pid)];
    const begin = performance.now();
    const id = await operation();
    const seconds = (performance.now() - begin) / 1000;
    const cpuSeconds = cpuSecondsOf(pid) - cpu;
    const after = await keptIn(this.#repository);
    const [storedMib, objects] = [after.mib - kept.mib, after.objects - kept.objects];
    return { id, seconds, cpuSeconds, readMib: (await this.#readMib()) - read, storedMib, objects };
  }
}

/** The image in a volume, which changes as the image does. */
export function quarrySubject(imageMib: number, changes: readonly Change[]): Subject {
  return {
    name: 'quarry',
    async round({ folder, image, change, verify }: Work) {
      const daemon = await BackupDaemon.start(folder);
      try {
        const volume = await daemon.import('disk', image);
        const full = await daemon.backup(volume, 'first', { incremental: false });
        await change();
        await daemon.write('disk', changes);
        const incremental = await daemon.backup(volume, 'second', { incremental: true });
        const restore = await daemon.restore(incremental.id, 'restored');
        await verify(await daemon.sha256Of('restored', imageMib * MIB));
        return { full, incremental, restore };
      } finally {
        await daemon.stop();
      }
    },
  };
}
