/**
 * Metadata of volumes and snapshots. Read for a whole page at once, so that a listing costs the same number of queries
 * however long it is.
 */
import { manyByIds } from './many.ts';
import type { Reader, Writer } from './schema.ts';

export type MetadataScope = 'user' | 'image';
export type Metadata = ReadonlyMap<string, string>;

/** In the order of the primary key: nothing is left to be sorted. */
const metadataRows = manyByIds((reader, ids) =>
  reader
    .selectFrom('metadata')
    .selectAll()
    .where('owner_id', 'in', ids)
    .orderBy('owner_id')
    .orderBy('scope')
    .orderBy('key'),
);

export async function metadataOf(reader: Reader, ownerId: string, scope: MetadataScope): Promise<Map<string, string>> {
  const rows = await reader
    .selectFrom('metadata')
    .select(['key', 'value'])
    .where('owner_id', '=', ownerId)
    .where('scope', '=', scope)
    .orderBy('key')
    .execute();
  return new Map(rows.map((row) => [row.key, row.value]));
}

export type MetadataByOwner = { readonly user: Map<string, Metadata>; readonly image: Map<string, Metadata> };

export async function metadataOfAll(reader: Reader, ownerIds: readonly string[]): Promise<MetadataByOwner> {
  const found = { user: new Map<string, Map<string, string>>(), image: new Map<string, Map<string, string>>() };
  for (const row of await metadataRows(reader, ownerIds)) {
    const owners = found[row.scope];
    const known = owners.get(row.owner_id) ?? new Map<string, string>();
    owners.set(row.owner_id, known.set(row.key, row.value));
  }
  return found;
}

export async function mergeMetadata(
  writer: Writer,
  owner: { id: string; scope: MetadataScope },
  entries: Iterable<readonly [string, string]>,
): Promise<void> {
  const values = [...entries].map(([key, value]) => ({ owner_id: owner.id, scope: owner.scope, key, value }));
  if (values.length === 0) return;
  await writer
    .insertInto('metadata')
    .values(values)
    .onConflict((conflict) =>
      conflict.columns(['owner_id', 'scope', 'key']).doUpdateSet((row) => ({ value: row.ref('excluded.value') })),
    )
    .execute();
}

export async function replaceMetadata(
  writer: Writer,
  owner: { id: string; scope: MetadataScope },
  entries: Iterable<readonly [string, string]>,
): Promise<void> {
  await writer.deleteFrom('metadata').where('owner_id', '=', owner.id).where('scope', '=', owner.scope).execute();
  await mergeMetadata(writer, owner, entries);
}

/** False when there was no such key. */
export async function removeMetadata(
  writer: Writer,
  owner: { id: string; scope: MetadataScope; key: string },
): Promise<boolean> {
  const removed = await writer
    .deleteFrom('metadata')
    .where('owner_id', '=', owner.id)
    .where('scope', '=', owner.scope)
    .where('key', '=', owner.key)
    .executeTakeFirst();
  return removed.numDeletedRows > 0n;
}
