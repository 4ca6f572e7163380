/**
 * Rows of volumes: found, listed, counted, written. Every change of a status is conditional on the status before, so of
 * two racing requests one finds no row. Which changes are allowed is not known here.
 */
import { sql } from 'kysely';
import { type Listing, listPage, matching } from './listing.ts';
import { manyByIds } from './many.ts';
import type { NewVolumeRow, Reader, VolumeRow, Writer } from './schema.ts';

export type VolumeColumn =
  | 'id'
  | 'name'
  | 'description'
  | 'status'
  | 'size_gib'
  | 'availability_zone'
  | 'bootable'
  | 'multiattach'
  | 'type_id'
  | 'snapshot_id'
  | 'source_volume_id'
  | 'project_id'
  | 'user_id'
  | 'created_at'
  | 'updated_at'
  | 'group_id';

export async function findVolume(reader: Reader, id: string): Promise<VolumeRow | undefined> {
  return reader.selectFrom('volumes').selectAll().where('id', '=', id).executeTakeFirst();
}

export const findVolumes = manyByIds<VolumeRow>((reader, ids) =>
  reader.selectFrom('volumes').selectAll().where('id', 'in', ids),
);

export async function insertVolume(writer: Writer, row: NewVolumeRow): Promise<VolumeRow> {
  return writer.insertInto('volumes').values(row).returningAll().executeTakeFirstOrThrow();
}

export type VolumeChanges = Partial<
  Pick<
    VolumeRow,
    | 'name'
    | 'description'
    | 'size_gib'
    | 'target_size_gib'
    | 'bootable'
    | 'read_only'
    | 'multiattach'
    | 'failure'
    | 'type_id'
    | 'updated_at'
  >
>;

export async function updateVolume(writer: Writer, id: string, changes: VolumeChanges): Promise<VolumeRow | undefined> {
  return writer.updateTable('volumes').set(changes).where('id', '=', id).returningAll().executeTakeFirst();
}

/** The row with its own details; the caller has seen to it that nothing refers to it. */
export async function removeVolume(writer: Writer, id: string): Promise<void> {
  await writer.deleteFrom('metadata').where('owner_id', '=', id).execute();
  await writer.deleteFrom('connections').where('volume_id', '=', id).execute();
  await writer.deleteFrom('attachments').where('volume_id', '=', id).execute();
  await writer.deleteFrom('transfers').where('volume_id', '=', id).execute();
  await writer.deleteFrom('fills').where('volume_id', '=', id).execute();
  await writer.deleteFrom('volumes').where('id', '=', id).execute();
}

/** Null when the marker is unknown. */
export async function listVolumes(reader: Reader, listing: Listing<VolumeColumn>): Promise<VolumeRow[] | null> {
  return listPage(reader, 'volumes', listing);
}

export type Totals = { readonly count: number; readonly sizeGib: number };

export async function totalVolumes(
  reader: Reader,
  listing: Pick<Listing<VolumeColumn>, 'projectId' | 'filters'>,
): Promise<Totals> {
  const row = await reader
    .selectFrom('volumes')
    .select([sql<number>`count(*)`.as('count'), sql<number>`coalesce(sum(volumes.size_gib), 0)`.as('size')])
    .where(matching('volumes', listing))
    .executeTakeFirstOrThrow();
  return { count: Number(row.count), sizeGib: Number(row.size) };
}

/** The distinct metadata of the matching volumes. */
export async function metadataOfVolumes(
  reader: Reader,
  listing: Pick<Listing<VolumeColumn>, 'projectId' | 'filters'>,
): Promise<readonly { key: string; value: string }[]> {
  return reader
    .selectFrom('volumes')
    .innerJoin('metadata', 'metadata.owner_id', 'volumes.id')
    .select(['metadata.key', 'metadata.value'])
    .distinct()
    .where('metadata.scope', '=', 'user')
    .where((builder) => matching('volumes', listing)(builder as never))
    .orderBy('metadata.key')
    .orderBy('metadata.value')
    .execute();
}

/** Those that bear a name, two at most: one is what can be published, a second is why not. */
export async function volumesNamed(reader: Reader, name: string): Promise<VolumeRow[]> {
  return reader.selectFrom('volumes').selectAll().where('name', '=', name).limit(2).execute();
}

export async function volumesInStatus(reader: Reader, statuses: readonly string[]): Promise<VolumeRow[]> {
  return reader.selectFrom('volumes').selectAll().where('status', 'in', statuses).orderBy('created_at').execute();
}

export type NamedVolume = Pick<VolumeRow, 'id' | 'name' | 'status' | 'read_only'>;

/** Every volume, and of each no more than its publication needs: whole rows of many volumes are much memory. */
export async function namedVolumes(reader: Reader): Promise<NamedVolume[]> {
  return reader.selectFrom('volumes').select(['id', 'name', 'status', 'read_only']).execute();
}

export type StatusCount = { readonly status: string; readonly count: number; readonly sizeGib: number };

export async function countByStatus(
  reader: Reader,
  table: 'volumes' | 'snapshots' | 'backups',
): Promise<StatusCount[]> {
  const rows = await reader
    .selectFrom(table)
    .select(['status', sql<number>`count(*)`.as('count'), sql<number>`sum(size_gib)`.as('size')])
    .groupBy('status')
    .orderBy('status')
    .execute();
  return rows.map((row) => ({ status: row.status, count: Number(row.count), sizeGib: Number(row.size) }));
}
