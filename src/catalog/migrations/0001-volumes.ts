/** What the first slice of the API needs: volumes, snapshots, their details, types, quotas, tasks. */
import type { Kysely } from 'kysely';

export async function volumes(db: Kysely<unknown>): Promise<void> {
  await createTypes(db);
  await createVolumes(db);
  await createSnapshots(db);
  await createDetails(db);
  await db.schema
    .createTable('quotas')
    .addColumn('scope', 'text', (column) => column.notNull())
    .addColumn('scope_id', 'text', (column) => column.notNull())
    .addColumn('resource', 'text', (column) => column.notNull())
    .addColumn('hard_limit', 'bigint', (column) => column.notNull())
    .addPrimaryKeyConstraint('quotas_key', ['scope', 'scope_id', 'resource'])
    .execute();
  await db.schema
    .createTable('tasks')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('kind', 'text', (column) => column.notNull())
    .addColumn('args', 'text', (column) => column.notNull())
    .addColumn('cursor', 'text')
    .addColumn('attempts', 'integer', (column) => column.notNull())
    .addColumn('state', 'text', (column) => column.notNull())
    .addColumn('failure', 'text')
    .addColumn('subject', 'text', (column) => column.notNull())
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addColumn('updated_at', 'bigint', (column) => column.notNull())
    .execute();
  await db.schema.createIndex('tasks_state').on('tasks').columns(['state', 'created_at']).execute();
}

async function createTypes(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('types')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('name', 'text', (column) => column.notNull().unique())
    .addColumn('description', 'text')
    .addColumn('is_public', 'integer', (column) => column.notNull())
    .addColumn('extra_specs', 'text', (column) => column.notNull())
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .execute();
}

async function createVolumes(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('volumes')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('project_id', 'text', (column) => column.notNull())
    .addColumn('user_id', 'text', (column) => column.notNull())
    .addColumn('name', 'text')
    .addColumn('description', 'text')
    .addColumn('size_gib', 'bigint', (column) => column.notNull())
    .addColumn('target_size_gib', 'bigint')
    .addColumn('status', 'text', (column) => column.notNull())
    .addColumn('previous_status', 'text')
    .addColumn('failure', 'text')
    .addColumn('availability_zone', 'text', (column) => column.notNull())
    .addColumn('type_id', 'text', (column) => column.notNull().references('types.id'))
    .addColumn('snapshot_id', 'text')
    .addColumn('source_volume_id', 'text')
    .addColumn('bootable', 'integer', (column) => column.notNull())
    .addColumn('read_only', 'integer')
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addColumn('updated_at', 'bigint')
    .execute();
  await db.schema.createIndex('volumes_listing').on('volumes').columns(['project_id', 'created_at', 'id']).execute();
  await db.schema.createIndex('volumes_age').on('volumes').columns(['created_at', 'id']).execute();
  await db.schema.createIndex('volumes_name').on('volumes').column('name').execute();
  // Covers what a quota counts, so that counting reads no row.
  await db.schema
    .createIndex('volumes_usage')
    .on('volumes')
    .columns(['project_id', 'type_id', 'size_gib', 'target_size_gib'])
    .execute();
}

async function createSnapshots(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('snapshots')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('project_id', 'text', (column) => column.notNull())
    .addColumn('user_id', 'text', (column) => column.notNull())
    .addColumn('volume_id', 'text', (column) => column.notNull().references('volumes.id'))
    .addColumn('type_id', 'text', (column) => column.notNull().references('types.id'))
    .addColumn('name', 'text')
    .addColumn('description', 'text')
    .addColumn('size_gib', 'bigint', (column) => column.notNull())
    .addColumn('status', 'text', (column) => column.notNull())
    .addColumn('previous_status', 'text')
    .addColumn('failure', 'text')
    .addColumn('progress', 'text', (column) => column.notNull())
    .addColumn('availability_zone', 'text', (column) => column.notNull())
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addColumn('updated_at', 'bigint')
    .execute();
  await db.schema.createIndex('snapshots_volume').on('snapshots').columns(['volume_id', 'created_at']).execute();
  await db.schema
    .createIndex('snapshots_listing')
    .on('snapshots')
    .columns(['project_id', 'created_at', 'id'])
    .execute();
  await db.schema.createIndex('snapshots_age').on('snapshots').columns(['created_at', 'id']).execute();
  await db.schema
    .createIndex('snapshots_usage')
    .on('snapshots')
    .columns(['project_id', 'type_id', 'size_gib'])
    .execute();
}

async function createDetails(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('metadata')
    .addColumn('owner_id', 'text', (column) => column.notNull())
    .addColumn('scope', 'text', (column) => column.notNull())
    .addColumn('key', 'text', (column) => column.notNull())
    .addColumn('value', 'text', (column) => column.notNull())
    .addPrimaryKeyConstraint('metadata_key', ['owner_id', 'scope', 'key'])
    .execute();
  await db.schema
    .createTable('attachments')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('volume_id', 'text', (column) => column.notNull().references('volumes.id'))
    .addColumn('instance_id', 'text')
    .addColumn('host_name', 'text')
    .addColumn('device', 'text', (column) => column.notNull())
    .addColumn('mode', 'text', (column) => column.notNull())
    .addColumn('attached_at', 'bigint', (column) => column.notNull())
    .execute();
  await db.schema.createIndex('attachments_volume').on('attachments').column('volume_id').execute();
}
