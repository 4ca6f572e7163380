/**
 * Rows of volumes that are served while they are filled from a backup. What a fill does is not known here.
 */
import type { FillRow, Reader, Writer } from './schema.ts';

export async function insertFill(writer: Writer, row: FillRow): Promise<void> {
  await writer.insertInto('fills').values(row).execute();
}

export async function findFill(reader: Reader, volumeId: string): Promise<FillRow | undefined> {
  return reader.selectFrom('fills').selectAll().where('volume_id', '=', volumeId).executeTakeFirst();
}

export async function allFills(reader: Reader): Promise<FillRow[]> {
  return reader.selectFrom('fills').selectAll().orderBy('created_at').execute();
}

export async function fillsFrom(reader: Reader, backupId: string): Promise<FillRow[]> {
  return reader.selectFrom('fills').selectAll().where('backup_id', '=', backupId).orderBy('created_at').execute();
}

/** Undefined: it has ended. */
export async function updateFill(
  writer: Writer,
  volumeId: string,
  changes: Partial<Pick<FillRow, 'ranges' | 'total_bytes' | 'failure'>>,
): Promise<FillRow | undefined> {
  return writer.updateTable('fills').set(changes).where('volume_id', '=', volumeId).returningAll().executeTakeFirst();
}

export async function removeFill(writer: Writer, volumeId: string): Promise<void> {
  await writer.deleteFrom('fills').where('volume_id', '=', volumeId).execute();
}
