/**
 * The catalog's shape, as the steps that lead to it, one file each. A step, once released, is never edited: a change is a
 * new one at the end. Written with the schema builder, so that another SQL database can run the same steps.
 */
import { type Kysely, sql } from 'kysely';
import { volumes } from './migrations/0001-volumes.ts';
import { types } from './migrations/0002-types.ts';
import { attachments } from './migrations/0003-attachments.ts';
import { groups } from './migrations/0004-groups.ts';
import { backups } from './migrations/0005-backups.ts';
import { backupSchedules } from './migrations/0006-backup-schedules.ts';
import { fills } from './migrations/0007-fills.ts';

type Migration = { readonly name: string; readonly up: (db: Kysely<unknown>) => Promise<void> };

export const MIGRATIONS: readonly Migration[] = [
  { name: '0001-volumes', up: volumes },
  { name: '0002-types', up: types },
  { name: '0003-attachments', up: attachments },
  { name: '0004-groups', up: groups },
  { name: '0005-backups', up: backups },
  { name: '0006-backup-schedules', up: backupSchedules },
  { name: '0007-fills', up: fills },
];

/** Brings a catalog to the newest shape; returns what is there that this program does not know. */
export async function migrate(db: Kysely<unknown>, nowUs: number): Promise<readonly string[]> {
  await sql`create table if not exists applied_migrations (name text primary key, applied_at bigint not null)`.execute(
    db,
  );
  const applied = await sql<{ name: string }>`select name from applied_migrations`.execute(db);
  const names = new Set(applied.rows.map((row) => row.name));
  for (const migration of MIGRATIONS) {
    if (names.delete(migration.name)) continue;
    // Each step and its mark are one commit: a crash leaves whole steps.
    await db.transaction().execute(async (tx) => {
      await migration.up(tx);
      await sql`insert into applied_migrations (name, applied_at) values (${migration.name}, ${nowUs})`.execute(tx);
    });
  }
  return [...names];
}
