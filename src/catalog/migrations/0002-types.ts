/**
 * What volume types decide: extra specs as rows (filters look into them), who may use a private type, encryption
 * records, defaults of projects, specs of quality of service, and what an administrator said of the services.
 */
import { type Kysely, sql } from 'kysely';

export async function types(db: Kysely<unknown>): Promise<void> {
  await createQosSpecs(db);
  await changeTypes(db);
  await db.schema
    .createTable('type_access')
    .addColumn('type_id', 'text', (column) => column.notNull().references('types.id'))
    .addColumn('project_id', 'text', (column) => column.notNull())
    .addPrimaryKeyConstraint('type_access_key', ['type_id', 'project_id'])
    .execute();
  await db.schema
    .createTable('type_encryption')
    .addColumn('type_id', 'text', (column) => column.primaryKey().references('types.id'))
    .addColumn('encryption_id', 'text', (column) => column.notNull())
    .addColumn('provider', 'text', (column) => column.notNull())
    .addColumn('control_location', 'text', (column) => column.notNull())
    .addColumn('cipher', 'text')
    .addColumn('key_size', 'bigint')
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addColumn('updated_at', 'bigint')
    .execute();
  await db.schema
    .createTable('default_types')
    .addColumn('project_id', 'text', (column) => column.primaryKey())
    .addColumn('type_id', 'text', (column) => column.notNull().references('types.id'))
    .execute();
  await db.schema
    .createTable('services')
    .addColumn('binary', 'text', (column) => column.notNull())
    .addColumn('host', 'text', (column) => column.notNull())
    .addColumn('disabled', 'integer', (column) => column.notNull())
    .addColumn('disabled_reason', 'text')
    .addColumn('frozen', 'integer', (column) => column.notNull())
    .addColumn('updated_at', 'bigint', (column) => column.notNull())
    .addPrimaryKeyConstraint('services_key', ['binary', 'host'])
    .execute();
}

async function createQosSpecs(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('qos_specs')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('name', 'text', (column) => column.notNull().unique())
    .addColumn('consumer', 'text', (column) => column.notNull())
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addColumn('updated_at', 'bigint')
    .execute();
  await db.schema
    .createTable('qos_spec_values')
    .addColumn('spec_id', 'text', (column) => column.notNull().references('qos_specs.id'))
    .addColumn('key', 'text', (column) => column.notNull())
    .addColumn('value', 'text', (column) => column.notNull())
    .addPrimaryKeyConstraint('qos_spec_values_key', ['spec_id', 'key'])
    .execute();
}

async function changeTypes(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('type_extra_specs')
    .addColumn('type_id', 'text', (column) => column.notNull().references('types.id'))
    .addColumn('key', 'text', (column) => column.notNull())
    .addColumn('value', 'text', (column) => column.notNull())
    .addPrimaryKeyConstraint('type_extra_specs_key', ['type_id', 'key'])
    .execute();
  const known = await sql<{ id: string; extra_specs: string }>`select id, extra_specs from types`.execute(db);
  for (const { id, extra_specs } of known.rows)
    for (const [key, value] of Object.entries(JSON.parse(extra_specs) as Record<string, string>))
      await sql`insert into type_extra_specs (type_id, key, value) values (${id}, ${key}, ${value})`.execute(db);
  await db.schema.alterTable('types').dropColumn('extra_specs').execute();
  // Not a foreign key: SQLite adds none to a table that exists. Deleting specs clears it in the same write.
  await db.schema.alterTable('types').addColumn('qos_spec_id', 'text').execute();
  await db.schema.alterTable('types').addColumn('updated_at', 'bigint').execute();
  await db.schema.createIndex('types_qos_spec').on('types').column('qos_spec_id').execute();
  await db.schema.createIndex('volumes_type').on('volumes').column('type_id').execute();
  await db.schema.createIndex('snapshots_type').on('snapshots').column('type_id').execute();
}
