/**
 * The catalog in a SQLite file: WAL, synced at each commit, one connection that writes and one that reads. It knows the
 * driver and nothing about rows.
 */
import Database from 'better-sqlite3';
import { Kysely, SqliteDialect } from 'kysely';
import { Failure } from '../base/errors.ts';
import { type Catalog, SharedCommitCatalog } from './catalog.ts';
import { migrate } from './migrations.ts';
import type { Schema } from './schema.ts';

/** Prepared statements kept per connection. Texts vary with the filters of a listing, so there must be a bound. */
const STATEMENTS_MAX = 500;
/** Another process (a person with a SQLite shell) may hold the file for a moment. */
const BUSY_TIMEOUT_MS = 5000;

export async function openSqliteCatalog(options: { path: string; nowUs: number }): Promise<Catalog> {
  const { path, nowUs } = options;
  const database = openFile(path, { readOnly: false });
  const writer = new Kysely<Schema>({ dialect: new SqliteDialect({ database: new PreparedDatabase(database) }) });
  try {
    await refuseUnknown(writer, path, nowUs);
    const reading = new PreparedDatabase(openFile(path, { readOnly: true }));
    return new SharedCommitCatalog({
      writer,
      reader: new Kysely<Schema>({ dialect: new SqliteDialect({ database: reading }) }),
    });
  } catch (error) {
    await writer.destroy();
    throw error;
  }
}

async function refuseUnknown(writer: Kysely<Schema>, path: string, nowUs: number): Promise<void> {
  const unknown = await migrate(writer as Kysely<unknown>, nowUs);
  const found = [...unknown].sort().at(-1);
  if (found !== undefined)
    throw new Failure('newer_format', { path, found, supported: 'those of this program’s release' });
}

function openFile(path: string, options: { readOnly: boolean }): Database.Database {
  let database: Database.Database | undefined;
  try {
    database = new Database(path, { readonly: options.readOnly, timeout: BUSY_TIMEOUT_MS });
    if (!options.readOnly) database.pragma('journal_mode = WAL');
    database.pragma('synchronous = FULL');
    database.pragma('foreign_keys = ON');
    return database;
  } catch (error) {
    database?.close();
    if (!(error instanceof Database.SqliteError)) throw error;
    if (error.code === 'SQLITE_NOTADB' || error.code.startsWith('SQLITE_CORRUPT'))
      throw new Failure('corrupt', { path, reason: error.message });
    throw new Failure('io_error', { reason: `${path}: ${error.message}` });
  }
}

/** Kysely's driver prepares each statement anew; this remembers them. */
class PreparedDatabase {
  readonly #database: Database.Database;
  readonly #statements = new Map<string, Database.Statement>();

  constructor(database: Database.Database) {
    this.#database = database;
  }

  prepare(text: string): Database.Statement {
    const known = this.#statements.get(text);
    if (known !== undefined) return known;
    if (this.#statements.size >= STATEMENTS_MAX) this.#statements.clear();
    const statement = this.#database.prepare(text);
    this.#statements.set(text, statement);
    return statement;
  }

  close(): void {
    this.#statements.clear();
    this.#database.close();
  }
}
