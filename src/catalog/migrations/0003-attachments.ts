/**
 * Attachments get a status and need not be attached yet; connections are the exports that were made for them; a volume
 * knows whether it may be attached more than once.
 */
import { type Kysely, sql } from 'kysely';

export async function attachments(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .alterTable('volumes')
    .addColumn('multiattach', 'integer', (column) => column.notNull().defaultTo(0))
    .execute();
  await renewAttachments(db);
  await db.schema
    .createTable('connections')
    .addColumn('name', 'text', (column) => column.primaryKey())
    .addColumn('volume_id', 'text', (column) => column.notNull().references('volumes.id'))
    .addColumn('attachment_id', 'text', (column) => column.unique().references('attachments.id'))
    .addColumn('host', 'text', (column) => column.notNull())
    .addColumn('connector', 'text', (column) => column.notNull())
    .addColumn('read_only', 'integer', (column) => column.notNull())
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .execute();
  await db.schema.createIndex('connections_volume').on('connections').column('volume_id').execute();
}

/** Not every database can take back that a column must have a value, so the rows move into a table that never said so. */
async function renewAttachments(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('attachments_renewed')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('volume_id', 'text', (column) => column.notNull().references('volumes.id'))
    .addColumn('project_id', 'text', (column) => column.notNull())
    .addColumn('instance_id', 'text')
    .addColumn('host_name', 'text')
    .addColumn('device', 'text')
    .addColumn('mode', 'text', (column) => column.notNull())
    .addColumn('status', 'text', (column) => column.notNull())
    .addColumn('attached_at', 'bigint')
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addColumn('updated_at', 'bigint')
    .execute();
  await sql`
    insert into attachments_renewed
      (id, volume_id, project_id, instance_id, host_name, device, mode, status, attached_at, created_at)
    select attachments.id, attachments.volume_id, volumes.project_id, attachments.instance_id, attachments.host_name,
      attachments.device, attachments.mode, 'attached', attachments.attached_at, attachments.attached_at
    from attachments inner join volumes on volumes.id = attachments.volume_id
  `.execute(db);
  await db.schema.dropTable('attachments').execute();
  await db.schema.alterTable('attachments_renewed').renameTo('attachments').execute();
  await db.schema.createIndex('attachments_volume').on('attachments').column('volume_id').execute();
  await db.schema
    .createIndex('attachments_listing')
    .on('attachments')
    .columns(['project_id', 'created_at', 'id'])
    .execute();
}
