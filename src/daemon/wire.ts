/**
 * Builds the graph, in the order in which the parts need each other, and takes it apart in the reverse order. No rules
 * of any kind.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { buildServer, type Server } from '../api/server.ts';
import type { BackendEvent, VolumeBackend } from '../backend/backend.ts';
import { ChunkPool } from '../backup/chunk-pool.ts';
import { NbdData } from '../backup/data.ts';
import { wrappingKeyFrom } from '../backup/encryption.ts';
import { Repository } from '../backup/repository.ts';
import { realClock } from '../base/clock.ts';
import { Failure } from '../base/errors.ts';
import type { RootLog } from '../base/log.ts';
import { openMetrics } from '../base/metrics.ts';
import { openSqliteCatalog } from '../catalog/sqlite.ts';
import type { OpenRepository } from '../control/backup-store.ts';
import { Control } from '../control/control.ts';
import { nbdUri } from '../control/exports.ts';
import { MESSAGE_SWEEP_MS, removeExpiredMessages } from '../control/messages.ts';
import { SCHEDULE_TICK_MS } from '../control/schedule-runner.ts';
import type { PoolSettings } from '../engine/engine.ts';
import type { ConnectionLimits, TlsOptions } from '../native/plane.ts';
import { FolderObjects } from '../objects/folder.ts';
import type { ObjectStore } from '../objects/objects.ts';
import { PacedObjects } from '../objects/paced.ts';
import { openAccess } from './access.ts';
import type { Config } from './config.ts';
import type { Access } from './config-access.ts';
import type { BackupTarget } from './config-backups.ts';

/** Threads that hash, compress and encrypt; they start when there is work. */
const BACKUP_THREADS_MAX = 4;

export type WiredBackend = VolumeBackend & {
  readonly nbdAddresses: readonly string[];
  /** Where internal exports are found. */
  readonly internalAddress: string;
  readonly nbdRequiresTls?: boolean;
  setTls?(options: TlsOptions): Promise<void>;
};

export type BackendOptions = {
  readonly dataDir: string;
  readonly nbdAddresses: readonly string[];
  readonly nbdTls: TlsOptions | null;
  readonly nbdLimits: ConnectionLimits;
  readonly pool: PoolSettings;
  readonly onEvent: (event: BackendEvent) => void;
  readonly onFatal: (error: Error) => void;
};

export type CreateBackend = (options: BackendOptions) => Promise<WiredBackend>;

export type Wired = {
  readonly control: Control;
  readonly server: Server;
  readonly setTls: (options: TlsOptions) => Promise<void>;
  /** Takes over from a configuration that was read again what can change at once. */
  readonly setAccess: (access: Access) => void;
  /** Everything but the sockets. */
  close(): Promise<void>;
};

export type WireOptions = {
  readonly config: Config;
  readonly log: RootLog;
  readonly version: string;
  readonly createBackend: CreateBackend;
  readonly onFatal: (error: Error) => void;
};

export async function wire({ config, log, version, createBackend, onFatal }: WireOptions): Promise<Wired> {
  createFolder(config.dataDir);
  let control: Control | null = null;
  const pool = new ChunkPool({ threadsMax: Math.max(1, Math.min(BACKUP_THREADS_MAX, availableParallelism())) });
  const early: BackendEvent[] = [];
  const tell = (event: BackendEvent): void => {
    if (control === null) early.push(event);
    else control.backendEvent(event).catch((error: unknown) => log.error({ err: error, event }, 'an event was lost'));
  };
  // The backend first, although the catalog stands below it: it holds the folder's lock, and a second daemon must not
  // touch the first one's catalog.
  const backend = await createBackend({
    dataDir: config.dataDir,
    nbdAddresses: config.nbd,
    nbdTls: config.nbdTls,
    nbdLimits: config.nbdLimits,
    pool: config.pool,
    onEvent: tell,
    onFatal: (error) => {
      control?.abandon();
      onFatal(error);
    },
  });
  try {
    createFolder(dirname(config.catalogPath));
    const catalog = await openSqliteCatalog({ path: config.catalogPath, nowUs: Date.now() * 1000 });
    control = new Control({
      catalog,
      backend,
      log,
      metrics: openMetrics({ processMetrics: true }),
      settings: {
        version,
        auth: config.access.kind,
        availabilityZone: config.availabilityZone,
        host: config.host,
        quotaDefaults: config.quotaDefaults,
        publishAll: config.access.kind === 'none',
        nbdPublicHost: config.nbdPublicHost,
        requireServiceToken: config.requireServiceToken,
      },
      backups: {
        container: containerOf(config),
        data: new NbdData(backend, (name) => nbdUri(backend.internalAddress, name)),
        open: repositoryOf(config, pool),
        fillWaitMs: config.restoreWaitMs,
      },
      newId: randomUUID,
      newSecret: () => randomBytes(16).toString('hex'),
      now: Date.now,
      pause,
    });
    const running = control;
    try {
      await running.start();
      for (const event of early.splice(0)) tell(event);
      const access = openAccess(config.access, log);
      const server = buildServer(running, {
        publicEndpoint: config.publicEndpoint,
        rateLimits: config.rateLimits,
        bodyBytesMax: config.bodyBytesMax,
        openMetrics: config.openMetrics,
        ...(access !== null && { authenticator: access.authenticator }),
      });
      await server.ready();
      const stopSweeping = realClock.every(MESSAGE_SWEEP_MS, () => {
        removeExpiredMessages(running).catch((error: unknown) => log.warn({ err: error }, 'old messages stay for now'));
      });
      running.schedules.wake();
      const stopSchedules = realClock.every(SCHEDULE_TICK_MS, () => running.schedules.wake());
      return {
        control: running,
        server,
        setTls: async (options) => backend.setTls?.(options),
        setAccess: (again) => access?.reload(again),
        async close() {
          stopSweeping();
          stopSchedules();
          await server.close();
          await access?.authenticator.close();
          await running.close();
          await pool.close();
          await backend.close();
          await catalog.close();
        },
      };
    } catch (error) {
      await running.close();
      await catalog.close();
      throw error;
    }
  } catch (error) {
    await backend.close();
    throw error;
  }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => {});
}

/** How to open it; null where there is none. */
function repositoryOf(config: Config, pool: ChunkPool): OpenRepository | null {
  const { backups, backupBytesPerSecond, backupCompression: compression, backupKey, previousBackupKeys } = config;
  if (backups.kind === 'none') return null;
  const previous = previousBackupKeys.map(wrappingKeyFrom);
  const wrappingKey = backupKey === null ? null : { ...wrappingKeyFrom(backupKey), previous };
  return async (signal) => {
    const direct = await openObjects(backups);
    const objects =
      backupBytesPerSecond === null
        ? direct
        : new PacedObjects(direct, {
            bytesPerSecond: backupBytesPerSecond,
            elapsedMs: () => performance.now(),
            pause,
            signal,
          });
    return Repository.open({ objects, pool, wrappingKey, compression, now: Date.now });
  };
}

async function openObjects(target: Exclude<BackupTarget, { kind: 'none' }>): Promise<ObjectStore> {
  if (target.kind === 'folder') return FolderObjects.open(target.path, Date.now());
  // Large, and of use to few: not read at a start without it.
  const { S3Objects } = await import('../objects/s3.ts');
  return new S3Objects(target.options);
}

/** As users see it: no path of this machine for them to guess by, but which bucket. */
function containerOf({ backups }: Config): string {
  if (backups.kind !== 's3') return 'backups';
  const { bucket, prefix } = backups.options;
  return prefix === '' ? bucket : `${bucket}/${prefix}`;
}

function createFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new Failure('io_error', { reason: `the folder ${path} cannot be made: ${(error as Error).message}` });
  }
}
