/**
 * Rows of specs of quality of service, their values, and which types they are associated with. What a key means is not
 * known here.
 */
import type { QosSpecRow, Reader, TypeRow, VolumeRow, Writer } from './schema.ts';

export async function listQosSpecs(reader: Reader): Promise<QosSpecRow[]> {
  return reader.selectFrom('qos_specs').selectAll().orderBy('created_at', 'desc').orderBy('id', 'desc').execute();
}

export async function findQosSpec(reader: Reader, id: string): Promise<QosSpecRow | undefined> {
  return reader.selectFrom('qos_specs').selectAll().where('id', '=', id).executeTakeFirst();
}

export async function findQosSpecNamed(reader: Reader, name: string): Promise<QosSpecRow | undefined> {
  return reader.selectFrom('qos_specs').selectAll().where('name', '=', name).executeTakeFirst();
}

export async function insertQosSpec(writer: Writer, row: QosSpecRow): Promise<void> {
  await writer.insertInto('qos_specs').values(row).execute();
}

export async function updateQosSpec(
  writer: Writer,
  id: string,
  changes: Partial<Pick<QosSpecRow, 'consumer' | 'updated_at'>>,
): Promise<void> {
  await writer.updateTable('qos_specs').set(changes).where('id', '=', id).execute();
}

/** With its values; no type is associated with it any more. */
export async function removeQosSpec(writer: Writer, id: string): Promise<void> {
  await writer.updateTable('types').set({ qos_spec_id: null }).where('qos_spec_id', '=', id).execute();
  await writer.deleteFrom('qos_spec_values').where('spec_id', '=', id).execute();
  await writer.deleteFrom('qos_specs').where('id', '=', id).execute();
}

type QosValue = { readonly spec_id: string; readonly key: string; readonly value: string };

/** Of one spec, or of all. */
export async function qosValuesOf(reader: Reader, specId: string | null): Promise<QosValue[]> {
  let query = reader.selectFrom('qos_spec_values').selectAll().orderBy('key');
  if (specId !== null) query = query.where('spec_id', '=', specId);
  return query.execute();
}

export async function mergeQosValues(
  writer: Writer,
  specId: string,
  entries: Iterable<readonly [string, string]>,
): Promise<void> {
  const values = [...entries].map(([key, value]) => ({ spec_id: specId, key, value }));
  if (values.length === 0) return;
  await writer
    .insertInto('qos_spec_values')
    .values(values)
    .onConflict((conflict) =>
      conflict.columns(['spec_id', 'key']).doUpdateSet((row) => ({ value: row.ref('excluded.value') })),
    )
    .execute();
}

export async function removeQosValues(writer: Writer, specId: string, keys: readonly string[]): Promise<void> {
  if (keys.length === 0) return;
  await writer.deleteFrom('qos_spec_values').where('spec_id', '=', specId).where('key', 'in', keys).execute();
}

export async function typesOfQosSpec(reader: Reader, specId: string): Promise<TypeRow[]> {
  return reader.selectFrom('types').selectAll().where('qos_spec_id', '=', specId).orderBy('created_at').execute();
}

export async function volumeIdsOfTypes(reader: Reader, typeIds: readonly string[]): Promise<string[]> {
  if (typeIds.length === 0) return [];
  const rows = await reader.selectFrom('volumes').select('id').where('type_id', 'in', typeIds).execute();
  return rows.map((row) => row.id);
}

/** Volumes whose type has a spec of quality of service, whatever it says. */
export async function volumesWithQos(reader: Reader): Promise<VolumeRow[]> {
  return reader
    .selectFrom('volumes')
    .innerJoin('types', 'types.id', 'volumes.type_id')
    .selectAll('volumes')
    .where('types.qos_spec_id', 'is not', null)
    .execute();
}
