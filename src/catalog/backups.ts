/**
 * Rows of backups: found, listed, counted, written. What a backup consists of is not known here.
 */
import { sql } from 'kysely';
import { after, type Listing, matching } from './listing.ts';
import type { BackupRow, NewBackupRow, Reader, Writer } from './schema.ts';
import type { Totals } from './volumes.ts';

export type BackupColumn =
  | 'id'
  | 'name'
  | 'description'
  | 'status'
  | 'volume_id'
  | 'snapshot_id'
  | 'size_gib'
  | 'container'
  | 'availability_zone'
  | 'project_id'
  | 'user_id'
  | 'data_timestamp'
  | 'created_at'
  | 'updated_at';

export async function findBackup(reader: Reader, id: string): Promise<BackupRow | undefined> {
  return reader.selectFrom('backups').selectAll().where('id', '=', id).executeTakeFirst();
}

export async function insertBackup(writer: Writer, row: NewBackupRow): Promise<BackupRow> {
  return writer.insertInto('backups').values(row).returningAll().executeTakeFirstOrThrow();
}

export type BackupChanges = Partial<
  Pick<
    BackupRow,
    | 'name'
    | 'description'
    | 'failure'
    | 'object_count'
    | 'added_bytes'
    | 'stored_bytes'
    | 'root'
    | 'base_id'
    | 'verified'
    | 'updated_at'
  >
>;

export async function updateBackup(writer: Writer, id: string, changes: BackupChanges): Promise<BackupRow | undefined> {
  return writer.updateTable('backups').set(changes).where('id', '=', id).returningAll().executeTakeFirst();
}

export async function removeBackup(writer: Writer, id: string): Promise<void> {
  await writer.deleteFrom('metadata').where('owner_id', '=', id).execute();
  await writer.deleteFrom('backups').where('id', '=', id).execute();
}

/** Null when the marker is unknown. */
export async function listBackups(reader: Reader, listing: Listing<BackupColumn>): Promise<BackupRow[] | null> {
  let query = reader.selectFrom('backups').selectAll('backups').where(matching('backups', listing));
  if (listing.marker !== null) {
    const marker = await findBackup(reader, listing.marker);
    if (marker === undefined) return null;
    query = query.where(after('backups', listing.order, marker));
  }
  for (const { column, descending } of listing.order) query = query.orderBy(column, descending ? 'desc' : 'asc');
  return query.limit(listing.limit).offset(listing.offset).execute();
}

export async function totalBackups(
  reader: Reader,
  listing: Pick<Listing<BackupColumn>, 'projectId' | 'filters'>,
): Promise<Totals> {
  const row = await reader
    .selectFrom('backups')
    .select([sql<number>`count(*)`.as('count'), sql<number>`coalesce(sum(backups.size_gib), 0)`.as('size')])
    .where(matching('backups', listing))
    .executeTakeFirstOrThrow();
  return { count: Number(row.count), sizeGib: Number(row.size) };
}

/** The newest available backup of a volume whose data are older than that. */
export async function newestBackup(
  reader: Reader,
  about: { projectId: string; volumeId: string; beforeUs: number },
): Promise<BackupRow | undefined> {
  return reader
    .selectFrom('backups')
    .selectAll()
    .where('project_id', '=', about.projectId)
    .where('volume_id', '=', about.volumeId)
    .where('status', '=', 'available')
    .where('data_timestamp', '<', about.beforeUs)
    .orderBy('data_timestamp', 'desc')
    .orderBy('id')
    .limit(1)
    .executeTakeFirst();
}

/** Newest data first. */
export async function availableBackupsOf(reader: Reader, volumeId: string): Promise<BackupRow[]> {
  const query = reader.selectFrom('backups').selectAll().where('volume_id', '=', volumeId);
  return query.where('status', '=', 'available').orderBy('data_timestamp', 'desc').orderBy('id').execute();
}

/** Those that keep a snapshot of their own, newest data first. */
export async function backupsWithBase(reader: Reader, volumeId: string | null): Promise<BackupRow[]> {
  const query = reader.selectFrom('backups').selectAll().where('base_id', 'is not', null);
  const narrowed = volumeId === null ? query : query.where('volume_id', '=', volumeId);
  return narrowed.orderBy('data_timestamp', 'desc').orderBy('id').execute();
}

/** After the volume's snapshots are gone. */
export async function forgetBases(writer: Writer, volumeId: string): Promise<void> {
  await writer.updateTable('backups').set({ base_id: null }).where('volume_id', '=', volumeId).execute();
}

export async function backupsInStatus(reader: Reader, statuses: readonly string[]): Promise<BackupRow[]> {
  return reader.selectFrom('backups').selectAll().where('status', 'in', statuses).orderBy('created_at').execute();
}

export async function allBackups(reader: Reader): Promise<BackupRow[]> {
  return reader.selectFrom('backups').selectAll().orderBy('created_at').execute();
}

/** What counts against a project's quota. */
export async function backupUseOf(reader: Reader, projectId: string): Promise<{ count: number; gib: number }> {
  const row = await reader
    .selectFrom('backups')
    .select([sql<number>`count(*)`.as('count'), sql<number>`coalesce(sum(size_gib), 0)`.as('size')])
    .where('project_id', '=', projectId)
    .executeTakeFirstOrThrow();
  return { count: Number(row.count), gib: Number(row.size) };
}
