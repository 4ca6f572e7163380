/**
 * Rows of snapshots: found, listed, counted, written. What may be done with one is not known here.
 */
import { sql } from 'kysely';
import { type Listing, listPage, matching } from './listing.ts';
import type { NewSnapshotRow, Reader, SnapshotRow, Writer } from './schema.ts';
import type { Totals } from './volumes.ts';

export type SnapshotColumn =
  | 'id'
  | 'name'
  | 'description'
  | 'status'
  | 'volume_id'
  | 'size_gib'
  | 'availability_zone'
  | 'project_id'
  | 'user_id'
  | 'progress'
  | 'created_at'
  | 'updated_at'
  | 'group_snapshot_id';

export async function findSnapshot(reader: Reader, id: string): Promise<SnapshotRow | undefined> {
  return reader.selectFrom('snapshots').selectAll().where('id', '=', id).executeTakeFirst();
}

export async function insertSnapshot(writer: Writer, row: NewSnapshotRow): Promise<SnapshotRow> {
  return writer.insertInto('snapshots').values(row).returningAll().executeTakeFirstOrThrow();
}

export type SnapshotChanges = Partial<
  Pick<SnapshotRow, 'name' | 'description' | 'progress' | 'failure' | 'updated_at'>
>;

export async function updateSnapshot(
  writer: Writer,
  id: string,
  changes: SnapshotChanges,
): Promise<SnapshotRow | undefined> {
  return writer.updateTable('snapshots').set(changes).where('id', '=', id).returningAll().executeTakeFirst();
}

export async function removeSnapshot(writer: Writer, id: string): Promise<void> {
  await writer.deleteFrom('metadata').where('owner_id', '=', id).execute();
  await writer.deleteFrom('snapshots').where('id', '=', id).execute();
}

/** Null when the marker is unknown. */
export async function listSnapshots(reader: Reader, listing: Listing<SnapshotColumn>): Promise<SnapshotRow[] | null> {
  return listPage(reader, 'snapshots', listing);
}

export async function totalSnapshots(
  reader: Reader,
  listing: Pick<Listing<SnapshotColumn>, 'projectId' | 'filters'>,
): Promise<Totals> {
  const row = await reader
    .selectFrom('snapshots')
    .select([sql<number>`count(*)`.as('count'), sql<number>`coalesce(sum(snapshots.size_gib), 0)`.as('size')])
    .where(matching('snapshots', listing))
    .executeTakeFirstOrThrow();
  return { count: Number(row.count), sizeGib: Number(row.size) };
}

/** Newest first. */
export async function snapshotsOf(reader: Reader, volumeId: string): Promise<SnapshotRow[]> {
  return reader
    .selectFrom('snapshots')
    .selectAll()
    .where('volume_id', '=', volumeId)
    .orderBy('created_at', 'desc')
    .execute();
}

export async function snapshotsInStatus(reader: Reader, statuses: readonly string[]): Promise<SnapshotRow[]> {
  return reader.selectFrom('snapshots').selectAll().where('status', 'in', statuses).orderBy('created_at').execute();
}

export type NamedSnapshot = Pick<SnapshotRow, 'id' | 'name' | 'status'>;

/** As `namedVolumes`. */
export async function namedSnapshots(reader: Reader): Promise<NamedSnapshot[]> {
  return reader.selectFrom('snapshots').select(['id', 'name', 'status']).execute();
}
