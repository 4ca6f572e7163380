/** Volumes that are served while they are filled from a backup; a row ends with the fill, or with the volume. */
import type { Kysely } from 'kysely';

export async function fills(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('fills')
    .addColumn('volume_id', 'text', (column) => column.primaryKey())
    .addColumn('backup_id', 'text', (column) => column.notNull())
    .addColumn('source_volume_id', 'text', (column) => column.notNull())
    .addColumn('ranges', 'text')
    .addColumn('total_bytes', 'bigint', (column) => column.notNull())
    .addColumn('failure', 'text')
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .execute();
  await db.schema.createIndex('fills_backup').on('fills').columns(['backup_id']).execute();
}
