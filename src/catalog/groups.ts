/**
 * Rows of groups and of their snapshots: found, listed, counted, written. Which volume may be in which group is not
 * known here.
 */
import { sql } from 'kysely';
import { type Listing, listPage } from './listing.ts';
import type { GroupRow, GroupSnapshotRow, Reader, SnapshotRow, VolumeRow, Writer } from './schema.ts';

export type GroupColumn =
  | 'id'
  | 'name'
  | 'description'
  | 'status'
  | 'group_type_id'
  | 'group_snapshot_id'
  | 'source_group_id'
  | 'availability_zone'
  | 'project_id'
  | 'user_id'
  | 'created_at'
  | 'updated_at';

export type GroupSnapshotColumn =
  | 'id'
  | 'name'
  | 'description'
  | 'status'
  | 'group_id'
  | 'group_type_id'
  | 'project_id'
  | 'user_id'
  | 'created_at'
  | 'updated_at';

/** Null when the marker is unknown. */
export async function listGroups(reader: Reader, listing: Listing<GroupColumn>): Promise<GroupRow[] | null> {
  return listPage(reader, 'groups', listing);
}

export async function listGroupSnapshots(
  reader: Reader,
  listing: Listing<GroupSnapshotColumn>,
): Promise<GroupSnapshotRow[] | null> {
  return listPage(reader, 'group_snapshots', listing);
}

export async function findGroup(reader: Reader, id: string): Promise<GroupRow | undefined> {
  return reader.selectFrom('groups').selectAll().where('id', '=', id).executeTakeFirst();
}

export async function findGroupSnapshot(reader: Reader, id: string): Promise<GroupSnapshotRow | undefined> {
  return reader.selectFrom('group_snapshots').selectAll().where('id', '=', id).executeTakeFirst();
}

export async function insertGroup(writer: Writer, row: GroupRow, typeIds: readonly string[]): Promise<void> {
  await writer.insertInto('groups').values(row).execute();
  const values = typeIds.map((typeId) => ({ group_id: row.id, type_id: typeId }));
  if (values.length > 0) await writer.insertInto('group_volume_types').values(values).execute();
}

export async function insertGroupSnapshot(writer: Writer, row: GroupSnapshotRow): Promise<void> {
  await writer.insertInto('group_snapshots').values(row).execute();
}

export async function updateGroup(
  writer: Writer,
  id: string,
  changes: Partial<Pick<GroupRow, 'name' | 'description' | 'failure' | 'updated_at'>>,
): Promise<GroupRow | undefined> {
  return writer.updateTable('groups').set(changes).where('id', '=', id).returningAll().executeTakeFirst();
}

export async function updateGroupSnapshot(
  writer: Writer,
  id: string,
  changes: Partial<Pick<GroupSnapshotRow, 'failure' | 'updated_at'>>,
): Promise<GroupSnapshotRow | undefined> {
  return writer.updateTable('group_snapshots').set(changes).where('id', '=', id).returningAll().executeTakeFirst();
}

/** The caller has seen to it that it has neither volumes nor snapshots. */
export async function removeGroup(writer: Writer, id: string): Promise<void> {
  await writer.deleteFrom('group_volume_types').where('group_id', '=', id).execute();
  await writer.deleteFrom('groups').where('id', '=', id).execute();
}

export async function removeGroupSnapshot(writer: Writer, id: string): Promise<void> {
  await writer.deleteFrom('group_snapshots').where('id', '=', id).execute();
}

/** Which volume types each of these groups takes. */
export async function volumeTypesOfGroups(
  reader: Reader,
  groupIds: readonly string[],
): Promise<ReadonlyMap<string, readonly string[]>> {
  const found = new Map<string, string[]>(groupIds.map((id) => [id, []]));
  if (groupIds.length === 0) return found;
  const rows = await reader
    .selectFrom('group_volume_types')
    .selectAll()
    .where('group_id', 'in', groupIds)
    .orderBy('type_id')
    .execute();
  for (const row of rows) found.get(row.group_id)?.push(row.type_id);
  return found;
}

/** The ids of the volumes of each of these groups. */
export async function volumeIdsOfGroups(
  reader: Reader,
  groupIds: readonly string[],
): Promise<ReadonlyMap<string, readonly string[]>> {
  const found = new Map<string, string[]>(groupIds.map((id) => [id, []]));
  if (groupIds.length === 0) return found;
  const rows = await reader
    .selectFrom('volumes')
    .select(['id', 'group_id'])
    .where('group_id', 'in', groupIds)
    .orderBy('created_at')
    .execute();
  for (const { id, group_id } of rows) if (group_id !== null) found.get(group_id)?.push(id);
  return found;
}

export async function volumesOfGroup(reader: Reader, groupId: string): Promise<VolumeRow[]> {
  return reader.selectFrom('volumes').selectAll().where('group_id', '=', groupId).orderBy('created_at').execute();
}

export async function snapshotsOfGroupSnapshot(reader: Reader, id: string): Promise<SnapshotRow[]> {
  return reader.selectFrom('snapshots').selectAll().where('group_snapshot_id', '=', id).orderBy('created_at').execute();
}

export async function groupSnapshotsOf(reader: Reader, groupId: string): Promise<GroupSnapshotRow[]> {
  return reader.selectFrom('group_snapshots').selectAll().where('group_id', '=', groupId).execute();
}

/** Groups that are being made from this one or this snapshot. */
export async function groupsBeingMadeFrom(
  reader: Reader,
  source: { column: 'source_group_id' | 'group_snapshot_id'; id: string },
): Promise<GroupRow[]> {
  return reader
    .selectFrom('groups')
    .selectAll()
    .where(source.column, '=', source.id)
    .where('status', '=', 'creating')
    .execute();
}

export async function setGroupOf(
  writer: Writer,
  volumeId: string,
  change: { groupId: string | null; nowUs: number },
): Promise<void> {
  await writer
    .updateTable('volumes')
    .set({ group_id: change.groupId, updated_at: change.nowUs })
    .where('id', '=', volumeId)
    .execute();
}

export async function countGroups(reader: Reader, projectId: string): Promise<number> {
  const row = await reader
    .selectFrom('groups')
    .select(sql<number>`count(*)`.as('count'))
    .where('project_id', '=', projectId)
    .executeTakeFirstOrThrow();
  return Number(row.count);
}

export async function groupsInStatus(reader: Reader, statuses: readonly string[]): Promise<GroupRow[]> {
  return reader.selectFrom('groups').selectAll().where('status', 'in', statuses).orderBy('created_at').execute();
}

export async function groupSnapshotsInStatus(reader: Reader, statuses: readonly string[]): Promise<GroupSnapshotRow[]> {
  return reader
    .selectFrom('group_snapshots')
    .selectAll()
    .where('status', 'in', statuses)
    .orderBy('created_at')
    .execute();
}
