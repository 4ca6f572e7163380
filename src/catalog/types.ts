/**
 * Rows of volume types and what hangs on them: extra specs, access of projects, encryption records, defaults. Which type
 * is the default of all is not known here.
 */
import type { DefaultTypeRow, Reader, TypeEncryptionRow, TypeRow, Writer } from './schema.ts';

export async function listTypes(reader: Reader): Promise<TypeRow[]> {
  return reader.selectFrom('types').selectAll().orderBy('created_at', 'desc').orderBy('id', 'desc').execute();
}

export async function findType(reader: Reader, id: string): Promise<TypeRow | undefined> {
  return reader.selectFrom('types').selectAll().where('id', '=', id).executeTakeFirst();
}

export async function findTypeNamed(reader: Reader, name: string): Promise<TypeRow | undefined> {
  return reader.selectFrom('types').selectAll().where('name', '=', name).executeTakeFirst();
}

export async function insertType(writer: Writer, row: TypeRow): Promise<void> {
  await writer.insertInto('types').values(row).execute();
}

export type TypeChanges = Partial<Omit<TypeRow, 'id' | 'created_at'>>;

export async function updateType(writer: Writer, id: string, changes: TypeChanges): Promise<void> {
  await writer.updateTable('types').set(changes).where('id', '=', id).execute();
}

/** With all that hangs on it; the caller has seen to it that nothing is of this type. */
export async function removeType(writer: Writer, id: string): Promise<void> {
  await writer.deleteFrom('type_extra_specs').where('type_id', '=', id).execute();
  await writer.deleteFrom('type_access').where('type_id', '=', id).execute();
  await writer.deleteFrom('type_encryption').where('type_id', '=', id).execute();
  await writer.deleteFrom('types').where('id', '=', id).execute();
}

/** Volumes, or snapshots made while their volume was of this type. */
export async function isTypeInUse(reader: Reader, id: string, table: 'volumes' | 'snapshots'): Promise<boolean> {
  const one = await reader
    .selectFrom(table as 'volumes')
    .select('id')
    .where('type_id', '=', id)
    .limit(1)
    .executeTakeFirst();
  return one !== undefined;
}

type ExtraSpec = { readonly type_id: string; readonly key: string; readonly value: string };

/** Of one type, or of all. */
export async function extraSpecsOf(reader: Reader, typeId: string | null): Promise<ExtraSpec[]> {
  let query = reader.selectFrom('type_extra_specs').selectAll().orderBy('key');
  if (typeId !== null) query = query.where('type_id', '=', typeId);
  return query.execute();
}

export async function mergeExtraSpecs(
  writer: Writer,
  typeId: string,
  specs: Iterable<readonly [string, string]>,
): Promise<void> {
  const values = [...specs].map(([key, value]) => ({ type_id: typeId, key, value }));
  if (values.length === 0) return;
  await writer
    .insertInto('type_extra_specs')
    .values(values)
    .onConflict((conflict) =>
      conflict.columns(['type_id', 'key']).doUpdateSet((row) => ({ value: row.ref('excluded.value') })),
    )
    .execute();
}

/** False when there was no such key. */
export async function removeExtraSpec(writer: Writer, typeId: string, key: string): Promise<boolean> {
  const removed = await writer
    .deleteFrom('type_extra_specs')
    .where('type_id', '=', typeId)
    .where('key', '=', key)
    .executeTakeFirst();
  return removed.numDeletedRows > 0n;
}

export async function projectsWithAccess(reader: Reader, typeId: string): Promise<string[]> {
  const rows = await reader
    .selectFrom('type_access')
    .select('project_id')
    .where('type_id', '=', typeId)
    .orderBy('project_id')
    .execute();
  return rows.map((row) => row.project_id);
}

export async function typesSharedWith(reader: Reader, projectId: string): Promise<ReadonlySet<string>> {
  const rows = await reader.selectFrom('type_access').select('type_id').where('project_id', '=', projectId).execute();
  return new Set(rows.map((row) => row.type_id));
}

export async function hasAccess(reader: Reader, access: { typeId: string; projectId: string }): Promise<boolean> {
  const row = await reader
    .selectFrom('type_access')
    .select('type_id')
    .where('type_id', '=', access.typeId)
    .where('project_id', '=', access.projectId)
    .executeTakeFirst();
  return row !== undefined;
}

export async function insertAccess(writer: Writer, access: { typeId: string; projectId: string }): Promise<void> {
  await writer.insertInto('type_access').values({ type_id: access.typeId, project_id: access.projectId }).execute();
}

export async function removeAccess(writer: Writer, access: { typeId: string; projectId: string }): Promise<void> {
  await writer
    .deleteFrom('type_access')
    .where('type_id', '=', access.typeId)
    .where('project_id', '=', access.projectId)
    .execute();
}

export async function findEncryption(reader: Reader, typeId: string): Promise<TypeEncryptionRow | undefined> {
  return reader.selectFrom('type_encryption').selectAll().where('type_id', '=', typeId).executeTakeFirst();
}

export async function insertEncryption(writer: Writer, row: TypeEncryptionRow): Promise<void> {
  await writer.insertInto('type_encryption').values(row).execute();
}

export type EncryptionChanges = Partial<
  Pick<TypeEncryptionRow, 'provider' | 'control_location' | 'cipher' | 'key_size' | 'updated_at'>
>;

export async function updateEncryption(writer: Writer, typeId: string, changes: EncryptionChanges): Promise<void> {
  await writer.updateTable('type_encryption').set(changes).where('type_id', '=', typeId).execute();
}

export async function removeEncryption(writer: Writer, typeId: string): Promise<void> {
  await writer.deleteFrom('type_encryption').where('type_id', '=', typeId).execute();
}

export async function listDefaultTypes(reader: Reader): Promise<DefaultTypeRow[]> {
  return reader.selectFrom('default_types').selectAll().orderBy('project_id').execute();
}

export async function findDefaultType(reader: Reader, projectId: string): Promise<DefaultTypeRow | undefined> {
  return reader.selectFrom('default_types').selectAll().where('project_id', '=', projectId).executeTakeFirst();
}

export async function setDefaultType(writer: Writer, row: DefaultTypeRow): Promise<void> {
  await writer
    .insertInto('default_types')
    .values(row)
    .onConflict((conflict) =>
      conflict.column('project_id').doUpdateSet((excluded) => ({ type_id: excluded.ref('excluded.type_id') })),
    )
    .execute();
}

export async function removeDefaultType(writer: Writer, projectId: string): Promise<void> {
  await writer.deleteFrom('default_types').where('project_id', '=', projectId).execute();
}

export async function isDefaultOfProjects(reader: Reader, typeId: string): Promise<boolean> {
  const one = await reader
    .selectFrom('default_types')
    .select('project_id')
    .where('type_id', '=', typeId)
    .limit(1)
    .executeTakeFirst();
  return one !== undefined;
}
