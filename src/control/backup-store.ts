/**
 * The repository of backups as control uses it: opened when first needed and again after a failure, with what is under
 * way in it, and the snapshots that are kept for the next incremental backups. It knows no rule about who may do what.
 */
import { type Collected, collectAll } from '../backup/collect.ts';
import type { DataAccess } from '../backup/data.ts';
import type { Repository } from '../backup/repository.ts';
import { type Rotated, rotateKeys } from '../backup/rotate.ts';
import { Failure } from '../base/errors.ts';
import { backupsWithBase, updateBackup } from '../catalog/backups.ts';
import type { BackupRow } from '../catalog/schema.ts';
import type { Manifest } from '../format/backup-manifest.ts';
import { Background } from './background.ts';
import type { Control } from './control.ts';

/** The signal says when everything stops. */
export type OpenRepository = (signal: AbortSignal) => Promise<Repository>;

export type BackupOptions = {
  /** Where backups go, for people. */
  readonly container: string;
  /** Null: this daemon makes no backups. */
  readonly open: OpenRepository | null;
  readonly data: DataAccess;
  /** How long clients of a volume that is being filled wait for what cannot be had. */
  readonly fillWaitMs: number;
};

export type BackupWork = 'create' | 'restore' | 'verify';
export type Progress = { readonly work: BackupWork; readonly doneBytes: number; readonly totalBytes: number };

export class BackupStore {
  readonly container: string;
  readonly data: DataAccess;
  readonly collection: Background<Collected>;
  readonly rotation: Background<Rotated>;
  readonly #control: Control;
  readonly #open: OpenRepository | null;
  readonly #stop = new AbortController();
  readonly #progress = new Map<string, Progress>();
  #opened: Promise<Repository> | null = null;

  constructor(control: Control, options: BackupOptions) {
    this.#control = control;
    this.container = options.container;
    this.data = options.data;
    this.#open = options.open;
    this.collection = new Background('A collection', () => control.nowUs());
    this.rotation = new Background('A rotation of keys', () => control.nowUs());
  }

  /** Aborted when everything stops. */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  get isConfigured(): boolean {
    return this.#open !== null;
  }

  /** Before work is accepted that could only fail. */
  requireConfigured(): void {
    this.#opener();
  }

  #opener(): OpenRepository {
    if (this.#open !== null) return this.#open;
    const reason = 'This daemon has no place for backups: start it with --backups file:DIR or s3://BUCKET/PREFIX.';
    throw new Failure('objects_unavailable', { reason });
  }

  async repository(): Promise<Repository> {
    const open = this.#opener();
    this.#opened ??= open(this.signal).catch((error: unknown) => {
      this.#opened = null;
      throw error;
    });
    return this.#opened;
  }

  /** Fails with `corrupt` where it is not. */
  async manifest({ volumeId, backupId }: { volumeId: string; backupId: string }): Promise<Manifest> {
    const manifest = await (await this.repository()).manifest(volumeId, backupId);
    if (manifest !== null) return manifest;
    const reason = `it has no manifest in ${this.container}`;
    throw new Failure('corrupt', { path: `backup ${backupId}`, reason });
  }

  /** What is under way for a backup. */
  progressOf(backupId: string): Progress | null {
    return this.#progress.get(backupId) ?? null;
  }

  allProgress(): ReadonlyMap<string, Progress> {
    return this.#progress;
  }

  async tracked<T>(
    { backupId, work }: { backupId: string; work: BackupWork },
    run: (onProgress: (doneBytes: number, totalBytes: number) => void) => Promise<T>,
  ): Promise<T> {
    this.#progress.set(backupId, { work, doneBytes: 0, totalBytes: 0 });
    try {
      return await run((doneBytes, totalBytes) => this.#progress.set(backupId, { work, doneBytes, totalBytes }));
    } finally {
      this.#progress.delete(backupId);
    }
  }

  /** Snapshots that no next backup will ask for: all but that of a volume's newest backup, and none of a failed one. */
  async dropBases(volumeId: string | null): Promise<void> {
    const { backend, catalog, exports } = this.#control;
    const kept = new Set<string>();
    for (const row of await backupsWithBase(catalog.reader, volumeId)) {
      if (row.base_id === null || isNeeded(row, kept)) continue;
      await exports.withdraw(row.base_id);
      await backend.delete(row.base_id);
      await catalog.write((writer) => updateBackup(writer, row.id, { base_id: null }));
    }
  }

  /** All of a volume, before it goes itself: while one is left, so is the volume it belongs to. */
  async removeBases(volumeId: string): Promise<void> {
    const { backend, catalog, exports } = this.#control;
    for (const { base_id: id } of await backupsWithBase(catalog.reader, volumeId)) {
      if (id === null) continue;
      await exports.withdraw(id);
      await backend.delete(id);
    }
  }

  /** The same as dropping, for what is repeated later anyway. */
  async dropBasesQuietly(volumeId: string | null): Promise<void> {
    try {
      await this.dropBases(volumeId);
    } catch (error) {
      this.#control.log.warn({ volumeId, err: error }, 'a snapshot kept for backups could not be dropped yet');
    }
  }

  /** Begins to collect what no backup needs. */
  collect(): void {
    this.#requireRunning();
    this.collection.begin(async () => collectAll(await this.repository(), this.signal), {
      onDone: (collected) => this.#control.log.info({ ...collected }, 'backups: garbage collected'),
      onFailed: (error) => this.#control.log.error({ err: error }, 'backups: the collection of garbage failed'),
    });
  }

  /** Begins to wrap all data keys under the present key. */
  rotateKeys(): void {
    this.#requireRunning();
    this.rotation.begin(async () => rotateKeys(await this.repository(), this.signal), {
      onDone: (rotated) => this.#control.log.info({ ...rotated }, 'backups: keys rotated'),
      onFailed: (error) => this.#control.log.error({ err: error }, 'backups: the rotation of keys failed'),
    });
  }

  #requireRunning(): void {
    this.requireConfigured();
    if (this.signal.aborted) throw new Failure('shutting_down');
  }

  stop(): void {
    this.#stop.abort();
  }

  async close(): Promise<void> {
    this.stop();
    await Promise.all([this.collection.idle(), this.rotation.idle()]);
  }
}

function isNeeded({ status, volume_id: volumeId }: BackupRow, kept: Set<string>): boolean {
  // Its task still reads from it.
  if (status === 'creating') return true;
  if (status !== 'available' && status !== 'restoring') return false;
  if (kept.has(volumeId)) return false;
  kept.add(volumeId);
  return true;
}
