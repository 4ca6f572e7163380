/**
 * Makes a backup of a volume or of one of its snapshots. What is read is always a snapshot; one taken for the backup
 * alone is kept afterwards, so that the next backup knows what changed, and dropped when the next one has its own.
 */
import { Type } from 'typebox';
import type { ByteRange } from '../../backend/backend.ts';
import { createBackup } from '../../backup/create.ts';
import { Failure } from '../../base/errors.ts';
import { findBackup, updateBackup } from '../../catalog/backups.ts';
import { metadataOf } from '../../catalog/details.ts';
import type { BackupRow } from '../../catalog/schema.ts';
import { findType } from '../../catalog/types.ts';
import { findVolume } from '../../catalog/volumes.ts';
import type { ManifestAbout } from '../../format/backup-manifest.ts';
import { type Control, GIB } from '../control.ts';
import { noteFailure } from '../messages.ts';
import { finish } from '../states.ts';
import { taskKind } from './kind.ts';

const IdOrNull = Type.Union([Type.String(), Type.Null()]);

export const CreateBackupArgs = Type.Object({
  backupId: Type.String(),
  volumeId: Type.String(),
  snapshotId: IdOrNull,
  parentId: IdOrNull,
});

export const createBackupTask = taskKind(CreateBackupArgs, {
  isLong: true,
  locks: ({ backupId, volumeId, snapshotId, parentId }) => ({
    writes: [backupId],
    reads: [volumeId, snapshotId, parentId].filter((id) => id !== null),
  }),

  async run(control, { backupId, volumeId, snapshotId }) {
    const { backend, backups, catalog, metrics } = control;
    const row = await findBackup(catalog.reader, backupId);
    if (row === undefined) return;
    const dataId = snapshotId ?? row.base_id;
    if (dataId === null) throw new Error(`backup ${backupId} has neither a snapshot nor a base`);
    const repository = await backups.repository();
    if (snapshotId === null) await backend.createSnapshot({ id: dataId, volumeId });
    const about = await aboutOf(control, row);
    const { manifest, readBytes } = await backups.tracked({ backupId, work: 'create' }, (onProgress) =>
      backups.data.read(dataId, (source) =>
        createBackup(repository, {
          volume: volumeId,
          backup: backupId,
          parent: row.parent_id,
          about,
          createdAt: isoTime(row.created_at),
          dataTimestamp: isoTime(row.data_timestamp),
          sizeBytes: row.size_gib * GIB,
          source,
          changes: () => changesSince(control, { parentId: row.parent_id, dataId }),
          contents: () => backend.map(dataId),
          signal: backups.signal,
          onProgress: ({ doneBytes, totalBytes }) => onProgress(doneBytes, totalBytes),
        }),
      ),
    );
    metrics.backupReadBytes.inc(readBytes);
    metrics.backupStoredBytes.inc(manifest.added_bytes);
    const own = [...manifest.packs, ...manifest.indexes].filter(([, owner]) => owner === backupId);
    await catalog.write((writer) =>
      updateBackup(writer, backupId, {
        // The manifest is one more.
        object_count: own.length + 1,
        added_bytes: manifest.added_bytes,
        stored_bytes: manifest.stored_bytes,
        root: manifest.root,
      }),
    );
  },

  async done(control, writer, args) {
    await end(control, writer, { args, outcome: 'done' });
  },

  async failed(control, writer, args, reason, requestId) {
    await end(control, writer, { args, outcome: 'failed' });
    const row = await updateBackup(writer, args.backupId, { failure: reason });
    if (row === undefined) return;
    await noteFailure(control, writer, {
      projectId: row.project_id,
      resource: 'VOLUME_BACKUP',
      resourceId: row.id,
      action: 'create_backup',
      detail: 'backup_create_failed',
      requestId,
    });
  },

  async after(control, { volumeId }) {
    await control.backups.dropBasesQuietly(volumeId);
    // The next of a queue may begin, and this one may have replaced another.
    control.schedules.wake();
  },
});

async function end(
  control: Control,
  writer: Parameters<typeof finish>[0],
  ending: {
    args: { backupId: string; volumeId: string; snapshotId: string | null };
    outcome: 'done' | 'failed';
  },
): Promise<void> {
  const { args, outcome } = ending;
  const nowUs = control.nowUs();
  await finish(writer, { table: 'backups', id: args.backupId, action: 'create', nowUs, outcome });
  if (args.snapshotId === null)
    await finish(writer, { table: 'volumes', id: args.volumeId, action: 'backup', nowUs, outcome });
  else await finish(writer, { table: 'snapshots', id: args.snapshotId, action: 'backup', nowUs, outcome });
}

/** Null when the snapshot that the parent was made from is gone: then the hashes of the chunks tell. */
async function changesSince(
  { backend, catalog }: Control,
  { parentId, dataId }: { parentId: string | null; dataId: string },
): Promise<ByteRange[] | null> {
  const parent = parentId === null ? undefined : await findBackup(catalog.reader, parentId);
  const fromId = parent?.base_id ?? parent?.snapshot_id ?? null;
  if (fromId === null || (await backend.usage([fromId])).length === 0) return null;
  try {
    return await backend.diff({ fromId, toId: dataId });
  } catch (error) {
    // It may go between the look and the question.
    if (error instanceof Failure && error.code === 'not_found') return null;
    throw error;
  }
}

/** What makes the backup understandable where this catalog is lost. */
async function aboutOf({ catalog: { reader } }: Control, row: BackupRow): Promise<ManifestAbout> {
  const volume = await findVolume(reader, row.volume_id);
  const type = volume === undefined ? undefined : await findType(reader, volume.type_id);
  return {
    name: row.name,
    description: row.description,
    metadata: Object.fromEntries(await metadataOf(reader, row.id, 'user')),
    project_id: row.project_id,
    user_id: row.user_id,
    snapshot_id: row.snapshot_id,
    volume_name: volume?.name ?? null,
    volume_type: type?.name ?? null,
    bootable: volume?.bootable === 1,
    image_metadata: Object.fromEntries(await metadataOf(reader, row.volume_id, 'image')),
  };
}

function isoTime(microseconds: number): string {
  return new Date(Math.floor(microseconds / 1000)).toISOString();
}
