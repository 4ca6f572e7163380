/**
 * Rows of volume types. Which of them is the default is not known here.
 */
import type { Reader, TypeRow, Writer } from './schema.ts';

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
