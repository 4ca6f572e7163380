/**
 * Rows of group types. What a spec means is not known here.
 */
import { type Listing, listPage } from './listing.ts';
import type { GroupTypeRow, Reader, Writer } from './schema.ts';

export type GroupTypeColumn = 'id' | 'name' | 'is_public' | 'created_at' | 'updated_at';

/** Null when the marker is unknown. */
export async function listGroupTypes(
  reader: Reader,
  listing: Listing<GroupTypeColumn>,
): Promise<GroupTypeRow[] | null> {
  return listPage(reader, 'group_types', listing);
}

export async function findGroupType(reader: Reader, id: string): Promise<GroupTypeRow | undefined> {
  return reader.selectFrom('group_types').selectAll().where('id', '=', id).executeTakeFirst();
}

export async function findGroupTypeNamed(reader: Reader, name: string): Promise<GroupTypeRow | undefined> {
  return reader.selectFrom('group_types').selectAll().where('name', '=', name).executeTakeFirst();
}

export async function insertGroupType(writer: Writer, row: GroupTypeRow): Promise<void> {
  await writer.insertInto('group_types').values(row).execute();
}

export async function updateGroupType(
  writer: Writer,
  id: string,
  changes: Partial<Pick<GroupTypeRow, 'name' | 'description' | 'is_public' | 'group_specs' | 'updated_at'>>,
): Promise<void> {
  await writer.updateTable('group_types').set(changes).where('id', '=', id).execute();
}

export async function removeGroupType(writer: Writer, id: string): Promise<void> {
  await writer.deleteFrom('group_types').where('id', '=', id).execute();
}

export async function isGroupTypeUsed(reader: Reader, id: string): Promise<boolean> {
  const group = await reader.selectFrom('groups').select('id').where('group_type_id', '=', id).executeTakeFirst();
  if (group !== undefined) return true;
  const snapshot = await reader
    .selectFrom('group_snapshots')
    .select('id')
    .where('group_type_id', '=', id)
    .executeTakeFirst();
  return snapshot !== undefined;
}
