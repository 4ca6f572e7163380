/** Schedules of backups, and which backups a schedule has made. */
import type { Kysely } from 'kysely';

export async function backupSchedules(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('backup_schedules')
    .addColumn('id', 'text', (column) => column.primaryKey())
    .addColumn('project_id', 'text', (column) => column.notNull())
    .addColumn('user_id', 'text', (column) => column.notNull())
    .addColumn('name', 'text', (column) => column.notNull())
    .addColumn('volume_id', 'text')
    .addColumn('type_id', 'text')
    .addColumn('is_enabled', 'integer', (column) => column.notNull())
    .addColumn('frequency', 'text', (column) => column.notNull())
    .addColumn('minute', 'integer', (column) => column.notNull())
    .addColumn('hour', 'integer', (column) => column.notNull())
    .addColumn('weekday', 'integer', (column) => column.notNull())
    .addColumn('month_day', 'integer', (column) => column.notNull())
    .addColumn('full_every', 'integer', (column) => column.notNull())
    .addColumn('keep_last', 'integer', (column) => column.notNull())
    .addColumn('keep_hourly', 'integer', (column) => column.notNull())
    .addColumn('keep_daily', 'integer', (column) => column.notNull())
    .addColumn('keep_weekly', 'integer', (column) => column.notNull())
    .addColumn('keep_monthly', 'integer', (column) => column.notNull())
    .addColumn('next_at', 'bigint', (column) => column.notNull())
    .addColumn('last_at', 'bigint')
    .addColumn('last_failure', 'text')
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addColumn('updated_at', 'bigint')
    .execute();
  await db.schema
    .createIndex('backup_schedules_project')
    .on('backup_schedules')
    .columns(['project_id', 'created_at'])
    .execute();
  await db.schema
    .createIndex('backup_schedules_due')
    .on('backup_schedules')
    .columns(['is_enabled', 'next_at'])
    .execute();
  await db.schema.alterTable('backups').addColumn('schedule_id', 'text').execute();
  await db.schema
    .createIndex('backups_schedule')
    .on('backups')
    .columns(['schedule_id', 'volume_id', 'data_timestamp'])
    .execute();
}
