/** Messages about what failed, offers of volumes to other projects, and volumes in groups with snapshots of whole groups. */
import type { Kysely } from 'kysely';

export async function groups(db: Kysely<unknown>): Promise<void> {
  await createMessages(db);
  await createTransfers(db);
  await createGroups(db);
  await createGroupSnapshots(db);
}

async function createMessages(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('messages')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('project_id', 'text', (column) => column.notNull())
    .addColumn('request_id', 'text')
    .addColumn('event_id', 'text', (column) => column.notNull())
    .addColumn('user_message', 'text', (column) => column.notNull())
    .addColumn('message_level', 'text', (column) => column.notNull())
    .addColumn('resource_type', 'text', (column) => column.notNull())
    .addColumn('resource_uuid', 'text', (column) => column.notNull())
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addColumn('expires_at', 'bigint', (column) => column.notNull())
    .execute();
  await db.schema.createIndex('messages_listing').on('messages').columns(['project_id', 'created_at', 'id']).execute();
  await db.schema.createIndex('messages_resource').on('messages').column('resource_uuid').execute();
  await db.schema.createIndex('messages_expiry').on('messages').column('expires_at').execute();
  await db.schema.alterTable('tasks').addColumn('request_id', 'text').execute();
}

async function createTransfers(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('transfers')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('project_id', 'text', (column) => column.notNull())
    .addColumn('volume_id', 'text', (column) => column.notNull().references('volumes.id'))
    .addColumn('name', 'text')
    .addColumn('salt', 'text', (column) => column.notNull())
    .addColumn('key_hash', 'text', (column) => column.notNull())
    .addColumn('no_snapshots', 'integer', (column) => column.notNull())
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .execute();
  await db.schema
    .createIndex('transfers_listing')
    .on('transfers')
    .columns(['project_id', 'created_at', 'id'])
    .execute();
  await db.schema.createIndex('transfers_volume').on('transfers').column('volume_id').execute();
}

async function createGroups(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('group_types')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('name', 'text', (column) => column.notNull().unique())
    .addColumn('description', 'text')
    .addColumn('is_public', 'integer', (column) => column.notNull())
    .addColumn('group_specs', 'text', (column) => column.notNull())
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addColumn('updated_at', 'bigint')
    .execute();
  await db.schema
    .createTable('groups')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('project_id', 'text', (column) => column.notNull())
    .addColumn('user_id', 'text', (column) => column.notNull())
    .addColumn('name', 'text')
    .addColumn('description', 'text')
    .addColumn('status', 'text', (column) => column.notNull())
    .addColumn('previous_status', 'text')
    .addColumn('failure', 'text')
    .addColumn('availability_zone', 'text', (column) => column.notNull())
    .addColumn('group_type_id', 'text', (column) => column.notNull().references('group_types.id'))
    .addColumn('group_snapshot_id', 'text')
    .addColumn('source_group_id', 'text')
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addColumn('updated_at', 'bigint')
    .execute();
  await db.schema.createIndex('groups_listing').on('groups').columns(['project_id', 'created_at', 'id']).execute();
  await db.schema
    .createTable('group_volume_types')
    .addColumn('group_id', 'text', (column) => column.notNull().references('groups.id'))
    .addColumn('type_id', 'text', (column) => column.notNull().references('types.id'))
    .addPrimaryKeyConstraint('group_volume_types_key', ['group_id', 'type_id'])
    .execute();
  await db.schema.alterTable('volumes').addColumn('group_id', 'text').execute();
  await db.schema.createIndex('volumes_group').on('volumes').column('group_id').execute();
}

async function createGroupSnapshots(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('group_snapshots')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('project_id', 'text', (column) => column.notNull())
    .addColumn('user_id', 'text', (column) => column.notNull())
    .addColumn('group_id', 'text', (column) => column.notNull().references('groups.id'))
    .addColumn('group_type_id', 'text', (column) => column.notNull().references('group_types.id'))
    .addColumn('name', 'text')
    .addColumn('description', 'text')
    .addColumn('status', 'text', (column) => column.notNull())
    .addColumn('previous_status', 'text')
    .addColumn('failure', 'text')
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addColumn('updated_at', 'bigint')
    .execute();
  await db.schema
    .createIndex('group_snapshots_listing')
    .on('group_snapshots')
    .columns(['project_id', 'created_at', 'id'])
    .execute();
  await db.schema.createIndex('group_snapshots_group').on('group_snapshots').column('group_id').execute();
  await db.schema.alterTable('snapshots').addColumn('group_snapshot_id', 'text').execute();
  await db.schema.createIndex('snapshots_group_snapshot').on('snapshots').column('group_snapshot_id').execute();
}
