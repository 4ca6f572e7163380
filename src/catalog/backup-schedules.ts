/**
 * Rows of schedules of backups, and the backups that a schedule has made. When one is due is not known here.
 */
import type { BackupRow, BackupScheduleRow, Reader, VolumeRow, Writer } from './schema.ts';

export async function findSchedule(reader: Reader, id: string): Promise<BackupScheduleRow | undefined> {
  return reader.selectFrom('backup_schedules').selectAll().where('id', '=', id).executeTakeFirst();
}

export async function insertSchedule(writer: Writer, row: BackupScheduleRow): Promise<void> {
  await writer.insertInto('backup_schedules').values(row).execute();
}

export type ScheduleChanges = Partial<Omit<BackupScheduleRow, 'id' | 'project_id' | 'user_id' | 'created_at'>>;

export async function updateSchedule(writer: Writer, id: string, changes: ScheduleChanges): Promise<void> {
  await writer.updateTable('backup_schedules').set(changes).where('id', '=', id).execute();
}

/** Unless somebody has given it another time meanwhile. */
export async function endScheduleRun(
  writer: Writer,
  { id, dueUs }: { id: string; dueUs: number },
  changes: ScheduleChanges,
): Promise<void> {
  await writer.updateTable('backup_schedules').set(changes).where('id', '=', id).where('next_at', '=', dueUs).execute();
}

/** What it has made stays, and belongs to no schedule any more. */
export async function removeSchedule(writer: Writer, id: string): Promise<void> {
  await writer.updateTable('backups').set({ schedule_id: null }).where('schedule_id', '=', id).execute();
  await writer.deleteFrom('backup_schedules').where('id', '=', id).execute();
}

/** Oldest first. Null: of all projects. */
export async function listSchedules(
  reader: Reader,
  { projectId, name }: { projectId: string | null; name: string | null },
): Promise<BackupScheduleRow[]> {
  let query = reader.selectFrom('backup_schedules').selectAll().orderBy('created_at').orderBy('id');
  if (projectId !== null) query = query.where('project_id', '=', projectId);
  if (name !== null) query = query.where('name', '=', name);
  return query.execute();
}

/** The next to be due first. */
export async function enabledSchedules(reader: Reader): Promise<BackupScheduleRow[]> {
  return reader
    .selectFrom('backup_schedules')
    .selectAll()
    .where('is_enabled', '=', 1)
    .orderBy('next_at')
    .orderBy('id')
    .execute();
}

/** All that a schedule has made, of one volume or of every one, newest data first. */
export async function backupsOfSchedule(
  reader: Reader,
  { scheduleId, volumeId }: { scheduleId: string; volumeId: string | null },
): Promise<BackupRow[]> {
  const query = reader.selectFrom('backups').selectAll().where('schedule_id', '=', scheduleId);
  const narrowed = volumeId === null ? query : query.where('volume_id', '=', volumeId);
  return narrowed.orderBy('data_timestamp', 'desc').orderBy('id').execute();
}

export async function volumesOfType(
  reader: Reader,
  { projectId, typeId }: { projectId: string; typeId: string },
): Promise<VolumeRow[]> {
  return reader
    .selectFrom('volumes')
    .selectAll()
    .where('project_id', '=', projectId)
    .where('type_id', '=', typeId)
    .orderBy('created_at')
    .orderBy('id')
    .execute();
}
