/**
 * The verbs of backups, made like those of volumes. What a repository holds is not known here, only that the tasks will
 * see to it.
 */
import type { Depth } from '../backup/verify.ts';
import { Failure } from '../base/errors.ts';
import {
  type BackupColumn,
  insertBackup,
  listBackups as listRows,
  newestBackup,
  totalBackups,
  updateBackup as updateRow,
} from '../catalog/backups.ts';
import { type Metadata, mergeMetadata, metadataOfAll, replaceMetadata } from '../catalog/details.ts';
import type { Listing } from '../catalog/listing.ts';
import type { BackupRow, VolumeRow, Writer } from '../catalog/schema.ts';
import { findType } from '../catalog/types.ts';
import { findVolume, type Totals } from '../catalog/volumes.ts';
import type { Progress } from './backup-store.ts';
import { refuseWhileConnectable } from './connections.ts';
import { type Control, refuseWhileConnected } from './control.ts';
import { refuseWhileFilledFrom, refuseWhileFilling } from './fills.ts';
import { addVolume } from './new-rows.ts';
import type { Caller } from './policy.ts';
import { chargeBackup } from './quotas.ts';
import { requireBackupService } from './services.ts';
import {
  begin,
  initialStatus,
  resetStatus,
  type VolumeStatus,
  visibleBackup,
  visibleSnapshot,
  visibleVolume,
} from './states.ts';
import type { Task } from './tasks.ts';
import { defaultType } from './types.ts';

export type Backup = { readonly row: BackupRow; readonly metadata: Metadata };

export type NewBackup = {
  readonly volumeId: string;
  readonly snapshotId: string | null;
  readonly name: string | null;
  readonly description: string | null;
  readonly container: string | null;
  readonly isIncremental: boolean;
  /** Also of a volume in use. */
  readonly force: boolean;
  readonly metadata: Metadata;
  readonly availabilityZone: string | null;
  /** The schedule that has it made. */
  readonly scheduleId?: string;
};

export async function createBackup(control: Control, caller: Caller, wanted: NewBackup): Promise<Backup> {
  const { volumeId, snapshotId } = wanted;
  await requireBackupService(control);
  const { row, task } = await control.catalog.write(async (writer) => {
    const volume = await visibleVolume(writer, caller, volumeId);
    requireZone(control, wanted.availabilityZone);
    if (snapshotId === null) await refuseWhileFilling(control, writer, volumeId);
    const nowUs = control.nowUs();
    const source = await sourceOf(writer, caller, { volume, snapshotId, nowUs });
    const parent = wanted.isIncremental
      ? await newestBackup(writer, { projectId: caller.projectId, volumeId, beforeUs: source.dataTimestamp })
      : undefined;
    if (wanted.isIncremental && parent === undefined)
      throw new Failure('wrong_state', { reason: 'Invalid backup: No backups available to do an incremental backup.' });
    await chargeBackup(control, writer, { projectId: caller.projectId, gib: source.sizeGib });
    await beginSource(writer, { volume, snapshotId, force: wanted.force, nowUs });
    const inserted = await insertBackup(writer, {
      id: control.newId(),
      project_id: caller.projectId,
      user_id: caller.userId,
      volume_id: volumeId,
      snapshot_id: snapshotId,
      parent_id: parent?.id ?? null,
      name: wanted.name,
      description: wanted.description,
      size_gib: source.sizeGib,
      status: initialStatus('backups'),
      previous_status: null,
      failure: null,
      container: wanted.container ?? control.backups.container,
      availability_zone: control.settings.availabilityZone,
      object_count: 0,
      added_bytes: 0,
      stored_bytes: 0,
      root: null,
      base_id: snapshotId === null ? control.newId() : null,
      verified: null,
      data_timestamp: source.dataTimestamp,
      created_at: nowUs,
      updated_at: null,
      schedule_id: wanted.scheduleId ?? null,
    });
    await mergeMetadata(writer, { id: inserted.id, scope: 'user' }, wanted.metadata);
    const args = { backupId: inserted.id, volumeId, snapshotId, parentId: parent?.id ?? null };
    return {
      row: inserted,
      task: await control.tasks.accept(writer, { kind: 'create-backup', subject: inserted.id, args, caller }),
    };
  });
  control.tasks.start(task);
  return { row, metadata: wanted.metadata };
}

function requireZone(control: Control, zone: string | null): void {
  if (zone === null || zone === control.settings.availabilityZone) return;
  throw new Failure('bad_request', { reason: `Invalid input received: Availability zone '${zone}' is invalid.` });
}

async function sourceOf(
  writer: Writer,
  caller: Caller,
  { volume, snapshotId, nowUs }: { volume: VolumeRow; snapshotId: string | null; nowUs: number },
): Promise<{ sizeGib: number; dataTimestamp: number }> {
  if (snapshotId === null) return { sizeGib: volume.size_gib, dataTimestamp: nowUs };
  const snapshot = await visibleSnapshot(writer, caller, snapshotId);
  if (snapshot.volume_id !== volume.id) {
    const reason = `Invalid snapshot: Snapshot ${snapshotId} is not a snapshot of volume ${volume.id}.`;
    throw new Failure('bad_request', { reason });
  }
  return { sizeGib: snapshot.size_gib, dataTimestamp: snapshot.created_at };
}

/** The volume, or the snapshot it is made from, is `backing-up` meanwhile. */
async function beginSource(
  writer: Writer,
  { volume, snapshotId, force, nowUs }: { volume: VolumeRow; snapshotId: string | null; force: boolean; nowUs: number },
): Promise<void> {
  if (snapshotId !== null) {
    await begin(writer, { table: 'snapshots', id: snapshotId, action: 'backup', nowUs });
    return;
  }
  if (volume.status === 'in-use' && !force) {
    const reason = 'Invalid volume: Backing up an in-use volume must use the force flag.';
    throw new Failure('wrong_state', { reason });
  }
  await begin(writer, { table: 'volumes', id: volume.id, action: force ? 'backup-in-use' : 'backup', nowUs });
}

export async function getBackup(control: Control, caller: Caller, id: string): Promise<Backup> {
  const row = await visibleBackup(control.catalog.reader, caller, id);
  const [backup] = await withMetadata(control, [row]);
  if (backup === undefined) throw new Failure('not_found', { kind: 'Backup', id });
  return backup;
}

export async function listBackups(control: Control, listing: Listing<BackupColumn>): Promise<Backup[]> {
  const rows = await listRows(control.catalog.reader, listing);
  if (rows === null) throw new Failure('not_found', { kind: 'Backup', id: listing.marker });
  return withMetadata(control, rows);
}

export async function countBackups(
  control: Control,
  listing: Pick<Listing<BackupColumn>, 'projectId' | 'filters'>,
): Promise<Totals> {
  return totalBackups(control.catalog.reader, listing);
}

async function withMetadata(control: Control, rows: readonly BackupRow[]): Promise<Backup[]> {
  const ids = rows.map((row) => row.id);
  const metadata = await metadataOfAll(control.catalog.reader, ids);
  return rows.map((row) => ({ row, metadata: metadata.user.get(row.id) ?? new Map<string, string>() }));
}

export type BackupUpdate = {
  readonly name?: string | null;
  readonly description?: string | null;
  readonly metadata?: Metadata;
};

export async function updateBackup(
  control: Control,
  caller: Caller,
  { id, update }: { id: string; update: BackupUpdate },
): Promise<Backup> {
  await control.catalog.write(async (writer) => {
    await visibleBackup(writer, caller, id);
    await updateRow(writer, id, {
      ...(update.name !== undefined && { name: update.name }),
      ...(update.description !== undefined && { description: update.description }),
      updated_at: control.nowUs(),
    });
    if (update.metadata !== undefined) await replaceMetadata(writer, { id, scope: 'user' }, update.metadata);
  });
  return getBackup(control, caller, id);
}

export async function deleteBackup(
  control: Control,
  caller: Caller,
  { id, force }: { id: string; force: boolean },
): Promise<void> {
  control.backups.requireConfigured();
  const task = await control.catalog.write(async (writer) => {
    const row = await visibleBackup(writer, caller, id);
    await refuseWhileFilledFrom(writer, id);
    await begin(writer, { table: 'backups', id, action: force ? 'force-delete' : 'delete', nowUs: control.nowUs() });
    const args = { backupId: id, volumeId: row.volume_id };
    return control.tasks.accept(writer, { kind: 'delete-backup', subject: id, args, caller });
  });
  control.tasks.start(task);
}

export async function resetBackup(
  control: Control,
  caller: Caller,
  { id, status }: { id: string; status: string },
): Promise<void> {
  await control.catalog.write(async (writer) => {
    await visibleBackup(writer, caller, id);
    await resetStatus(writer, { table: 'backups', id, status, nowUs: control.nowUs() });
  });
}

export type Restored = { readonly backupId: string; readonly volumeId: string; readonly volumeName: string | null };

export async function restoreBackup(
  control: Control,
  caller: Caller,
  wanted: { id: string; volumeId: string | null; name: string | null },
): Promise<Restored> {
  const { id, volumeId } = wanted;
  await requireBackupService(control);
  if (volumeId !== null) {
    await visibleBackup(control.catalog.reader, caller, id);
    await visibleVolume(control.catalog.reader, caller, volumeId);
    // A client that has the volume mounted would see it change under its feet.
    await refuseWhileConnected(control, { kind: 'volume', id: volumeId, ids: [volumeId], code: 'wrong_state' });
  }
  const { volume, task } = await control.catalog.write(async (writer) => {
    const row = await visibleBackup(writer, caller, id);
    const nowUs = control.nowUs();
    const target =
      volumeId === null
        ? await newVolume(control, writer, {
            caller,
            row,
            name: wanted.name ?? `restore_backup_${id}`,
            status: 'restoring-backup',
          })
        : await existingVolume(control, writer, { caller, row, volumeId, nowUs });
    if (volumeId !== null) await refuseWhileConnectable(writer, { id: volumeId, code: 'wrong_state' });
    await begin(writer, { table: 'backups', id, action: 'restore', nowUs });
    const args = {
      backupId: id,
      volumeId: target.id,
      sizeGib: target.size_gib,
      isNew: volumeId === null,
      action: 'restore' as const,
    };
    return {
      volume: target,
      task: await control.tasks.accept(writer, { kind: 'restore-backup', subject: target.id, args, caller }),
    };
  });
  control.tasks.start(task);
  if (volumeId === null) await control.exports.refreshName(volume.name);
  return { backupId: id, volumeId: volume.id, volumeName: volume.name };
}

type Target = { readonly caller: Caller; readonly row: BackupRow; readonly nowUs: number };

export async function newVolume(
  control: Control,
  writer: Writer,
  { caller, row, name, status }: Pick<Target, 'caller' | 'row'> & { name: string; status: VolumeStatus },
): Promise<VolumeRow> {
  const source = await findVolume(writer, row.volume_id);
  const type = (source && (await findType(writer, source.type_id))) ?? (await defaultType(writer));
  return addVolume(control, writer, caller, {
    type,
    sizeGib: row.size_gib,
    name,
    description: 'auto-created_from_restore_from_backup',
    bootable: 0,
    snapshotId: null,
    sourceVolumeId: null,
    groupId: null,
    status,
  });
}

async function existingVolume(
  control: Control,
  writer: Writer,
  { caller, row, volumeId, nowUs }: Target & { volumeId: string },
): Promise<VolumeRow> {
  const volume = await visibleVolume(writer, caller, volumeId);
  if (volume.size_gib < row.size_gib) {
    const reason = `Invalid volume: volume size ${volume.size_gib} is too small to restore backup of size ${row.size_gib}.`;
    throw new Failure('bad_request', { reason });
  }
  await refuseWhileFilling(control, writer, volumeId);
  return begin(writer, { table: 'volumes', id: volumeId, action: 'restore', nowUs });
}

/** For a volume that is made from a backup: the backup turns `restoring`, the task fills the volume. */
export async function acceptRestore(
  control: Control,
  writer: Writer,
  { backupId, volume, caller }: { backupId: string; volume: VolumeRow; caller: Caller },
): Promise<Task> {
  control.backups.requireConfigured();
  await begin(writer, { table: 'backups', id: backupId, action: 'restore', nowUs: control.nowUs() });
  const args = { backupId, volumeId: volume.id, sizeGib: volume.size_gib, isNew: true, action: 'create' as const };
  return control.tasks.accept(writer, { kind: 'restore-backup', subject: volume.id, args, caller });
}

export async function verifyBackup(
  control: Control,
  caller: Caller,
  { id, depth }: { id: string; depth: Depth },
): Promise<void> {
  control.backups.requireConfigured();
  const task = await control.catalog.write(async (writer) => {
    const row = await visibleBackup(writer, caller, id);
    if (row.status !== 'available') {
      const reason = `Invalid backup: Backup ${id} status must be available, but current status is: ${row.status}.`;
      throw new Failure('wrong_state', { reason });
    }
    await updateRow(writer, id, { verified: null });
    const args = { backupId: id, volumeId: row.volume_id, depth };
    return control.tasks.accept(writer, { kind: 'verify-backup', subject: id, args, caller });
  });
  control.tasks.start(task);
}

export async function backupDetail(
  control: Control,
  caller: Caller,
  id: string,
): Promise<{ row: BackupRow; progress: Progress | null }> {
  const row = await visibleBackup(control.catalog.reader, caller, id);
  return { row, progress: control.backups.progressOf(id) };
}
