/**
 * A control plane on a real catalog file and the memory backend, and the same again after a "restart" on both. Waits
 * for tasks to end; never for time to pass.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { VolumeBackend } from '../../src/backend/backend.ts';
import { MemoryBackend } from '../../src/backend/memory.ts';
import { ChunkPool } from '../../src/backup/chunk-pool.ts';
import { Repository } from '../../src/backup/repository.ts';
import { type RootLog, SILENT_LOG } from '../../src/base/log.ts';
import { openMetrics } from '../../src/base/metrics.ts';
import type { Catalog } from '../../src/catalog/catalog.ts';
import { openSqliteCatalog } from '../../src/catalog/sqlite.ts';
import { createBackup, type NewBackup } from '../../src/control/backups.ts';
import { Control, type QuotaDefaults, type Settings } from '../../src/control/control.ts';
import { createSnapshot, type NewSnapshot } from '../../src/control/snapshots.ts';
import { createVolume, type NewVolume } from '../../src/control/volumes.ts';
import { FolderObjects } from '../../src/objects/folder.ts';
import type { ObjectStore } from '../../src/objects/objects.ts';
import { MemoryData } from './memory-data.ts';

export const CALLER = { projectId: 'p1', userId: 'u1', role: 'admin', isAdmin: true, isService: false } as const;

export const UNLIMITED: QuotaDefaults = {
  volumes: -1,
  snapshots: -1,
  gigabytes: -1,
  backups: -1,
  backup_gigabytes: -1,
  per_volume_gigabytes: -1,
  groups: -1,
};

export type WorldOptions = {
  readonly quotaDefaults?: Partial<QuotaDefaults>;
  readonly settings?: Partial<Settings>;
  /** What stands between control and the backend or the catalog; identity where absent. */
  readonly aroundBackend?: (backend: MemoryBackend) => VolumeBackend & { nbdAddresses: readonly string[] };
  readonly aroundCatalog?: (catalog: Catalog) => Catalog;
  readonly log?: RootLog;
  /** Milliseconds since 1970; the real ones where absent. */
  readonly now?: () => number;
  /** Called before each read or write of a volume's data. */
  readonly aroundData?: (what: 'read' | 'write') => Promise<void>;
  /** What stands between backups and their folder. */
  readonly aroundObjects?: ((objects: ObjectStore) => ObjectStore) | undefined;
  readonly fillWaitMs?: number;
  readonly pause?: (ms: number, signal: AbortSignal) => Promise<void>;
  /** Without a place for backups. */
  readonly hasNoBackups?: boolean;
  /** Not started: as found on disk. */
  readonly isStarted?: boolean;
};

/** Threads start when there is work, and idle ones keep no process alive. */
const POOL = new ChunkPool({ threadsMax: 2 });

export class World {
  readonly folder: string;
  readonly backend = new MemoryBackend();
  #catalog: Catalog | null = null;
  #control: Control | null = null;

  private constructor(folder: string) {
    this.folder = folder;
  }

  static async open(options: WorldOptions = {}): Promise<World> {
    const world = new World(mkdtempSync(join(tmpdir(), 'quarry-control-')));
    await world.start(options);
    return world;
  }

  get control(): Control {
    if (this.#control === null) throw new Error('the world is stopped');
    return this.#control;
  }

  /** A daemon starts on the same catalog and backend. */
  async start(options: WorldOptions = {}): Promise<void> {
    const opened = await openSqliteCatalog({ path: join(this.folder, 'catalog.db'), nowUs: Date.now() * 1000 });
    this.#catalog = opened;
    const control = new Control({
      catalog: options.aroundCatalog?.(opened) ?? opened,
      backend: options.aroundBackend?.(this.backend) ?? this.backend,
      log: options.log ?? SILENT_LOG,
      metrics: openMetrics({ processMetrics: false }),
      settings: {
        version: '0.0.0',
        auth: 'none',
        availabilityZone: 'nova',
        host: 'here',
        quotaDefaults: { ...UNLIMITED, ...options.quotaDefaults },
        publishAll: true,
        nbdPublicHost: null,
        requireServiceToken: false,
        ...options.settings,
      },
      backups: {
        container: 'backups',
        data: new MemoryData(this.backend, options.aroundData),
        open: options.hasNoBackups === true ? null : () => this.#openRepository(options.aroundObjects),
        fillWaitMs: options.fillWaitMs ?? 0,
      },
      newId: randomUUID,
      newSecret: () => randomBytes(16).toString('hex'),
      now: options.now ?? Date.now,
      pause: options.pause ?? (async () => {}),
    });
    this.backend.onEvent((event) => void control.backendEvent(event));
    this.#control = control;
    if (options.isStarted !== false) await control.start();
  }

  async #openRepository(around: WorldOptions['aroundObjects']): Promise<Repository> {
    const folder = await FolderObjects.open(join(this.folder, 'backups'), Date.now());
    const objects = around?.(folder) ?? folder;
    return Repository.open({ objects, pool: POOL, wrappingKey: null, now: Date.now });
  }

  /** The process dies: nothing of it runs on, what it published is gone. */
  async crash(): Promise<void> {
    this.#control?.abandon();
    await this.#catalog?.close();
    this.#control = null;
    this.backend.restart();
  }

  async stop(): Promise<void> {
    await this.#control?.close();
    await this.#catalog?.close();
    this.#control = null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }

  async volume(wanted: Partial<NewVolume> = {}): Promise<string> {
    const { row } = await createVolume(this.control, CALLER, { ...NEW_VOLUME, ...wanted });
    await this.control.tasks.idle();
    return row.id;
  }

  async backup(volumeId: string, wanted: Partial<NewBackup> = {}): Promise<string> {
    const { row } = await createBackup(this.control, CALLER, { ...NEW_BACKUP, ...wanted, volumeId });
    await this.control.tasks.idle();
    return row.id;
  }

  async snapshot(volumeId: string, wanted: Partial<NewSnapshot> = {}): Promise<string> {
    const { row } = await createSnapshot(this.control, CALLER, { ...NEW_SNAPSHOT, ...wanted, volumeId });
    await this.control.tasks.idle();
    return row.id;
  }
}

export const NEW_VOLUME: NewVolume = {
  name: null,
  description: null,
  sizeGib: 1,
  type: null,
  availabilityZone: null,
  metadata: new Map(),
  source: null,
};

export const NEW_BACKUP: Omit<NewBackup, 'volumeId'> = {
  snapshotId: null,
  name: null,
  description: null,
  container: null,
  isIncremental: false,
  force: false,
  metadata: new Map(),
  availabilityZone: null,
};

export const NEW_SNAPSHOT: Omit<NewSnapshot, 'volumeId'> = {
  name: null,
  description: null,
  metadata: new Map(),
  alsoInUse: false,
};
