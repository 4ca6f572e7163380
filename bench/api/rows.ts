/** Many rows in a short time: put straight into the catalog of a daemon while it is stopped. */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import type { Daemon } from '../../test/support/daemon.ts';

/** Copies of the one volume there is, each with a name and an entry of metadata, until there are `count`. */
function fill(dataDir: string, count: number): void {
  const database = new Database(join(dataDir, 'catalog.db'));
  try {
    const template = database.prepare('select * from volumes limit 1').get() as Record<string, unknown>;
    const { present } = database.prepare('select count(*) as present from volumes').get() as { present: number };
    const columns = Object.keys(template);
    const insert = database.prepare(
      `insert into volumes (${columns.join(', ')}) values (${columns.map((column) => `@${column}`).join(', ')})`,
    );
    const describe = database.prepare(
      "insert into metadata (owner_id, scope, key, value) values (?, 'user', 'k', 'v')",
    );
    database.transaction(() => {
      for (let index = present; index < count; index += 1) {
        const id = randomUUID();
        insert.run({ ...template, id, name: `volume-${index}`, created_at: Number(template['created_at']) + index });
        describe.run(id);
      }
    })();
  } finally {
    database.close();
  }
}

export async function refill(daemon: Daemon, count: number): Promise<void> {
  await daemon.kill('SIGTERM');
  fill(daemon.dataDir, count);
  await daemon.start();
}
