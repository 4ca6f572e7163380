/** Backups. They outlive their volumes, so nothing refers to those. */
import type { Kysely } from 'kysely';

export async function backups(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('backups')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('project_id', 'text', (column) => column.notNull())
    .addColumn('user_id', 'text', (column) => column.notNull())
    .addColumn('volume_id', 'text', (column) => column.notNull())
    .addColumn('snapshot_id', 'text')
    .addColumn('parent_id', 'text')
    .addColumn('name', 'text')
    .addColumn('description', 'text')
    .addColumn('size_gib', 'bigint', (column) => column.notNull())
    .addColumn('status', 'text', (column) => column.notNull())
    .addColumn('previous_status', 'text')
    .addColumn('failure', 'text')
    .addColumn('container', 'text')
    .addColumn('availability_zone', 'text', (column) => column.notNull())
    .addColumn('object_count', 'bigint', (column) => column.notNull())
    .addColumn('added_bytes', 'bigint', (column) => column.notNull())
    .addColumn('stored_bytes', 'bigint', (column) => column.notNull())
    .addColumn('root', 'text')
    .addColumn('base_id', 'text')
    .addColumn('verified', 'text')
    .addColumn('data_timestamp', 'bigint', (column) => column.notNull())
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addColumn('updated_at', 'bigint')
    .execute();
  await db.schema.createIndex('backups_listing').on('backups').columns(['project_id', 'created_at', 'id']).execute();
  await db.schema.createIndex('backups_age').on('backups').columns(['created_at', 'id']).execute();
  await db.schema.createIndex('backups_volume').on('backups').columns(['volume_id', 'data_timestamp']).execute();
}
