import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { Kysely, SqliteDialect, sql } from 'kysely';
import { expect, test } from 'vitest';
import { attachmentsOf } from '../../src/catalog/attachments.ts';
import { mergeMetadata, metadataOfAll } from '../../src/catalog/details.ts';
import { volumes } from '../../src/catalog/migrations/0001-volumes.ts';
import { limitsOf, setLimits } from '../../src/catalog/quotas.ts';
import type { Schema } from '../../src/catalog/schema.ts';
import { openSqliteCatalog } from '../../src/catalog/sqlite.ts';
import { findVolume } from '../../src/catalog/volumes.ts';
import { World } from './world.ts';

const scope = { scope: 'project', id: 'p' } as const;

async function withFolder(work: (path: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'quarry-catalog-'));
  try {
    await work(join(folder, 'catalog.db'));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test('a write that throws undoes itself and not those that share its commit', async () => {
  await withFolder(async (path) => {
    const catalog = await openSqliteCatalog({ path, nowUs: 1 });
    const set = (resource: string, error: Error | null) =>
      catalog.write(async (writer) => {
        await setLimits(writer, scope, new Map([[resource, 1]]));
        if (error !== null) throw error;
        return resource;
      });
    const results = await Promise.allSettled([set('a', null), set('b', new Error('no')), set('c', null)]);
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    expect([...(await limitsOf(catalog.reader, scope)).keys()].sort()).toEqual(['a', 'c']);
    await catalog.close();
  });
});

test('what was written is there after the file is opened again', async () => {
  await withFolder(async (path) => {
    const first = await openSqliteCatalog({ path, nowUs: 1 });
    await first.write((writer) => setLimits(writer, scope, new Map([['a', 5]])));
    await first.close();
    const second = await openSqliteCatalog({ path, nowUs: 2 });
    expect(await limitsOf(second.reader, scope)).toEqual(new Map([['a', 5]]));
    await second.close();
  });
});

test('commits are synced, in a write-ahead log', async () => {
  await withFolder(async (path) => {
    const catalog = await openSqliteCatalog({ path, nowUs: 1 });
    const file = new Database(path, { readonly: true });
    expect(file.pragma('journal_mode', { simple: true })).toBe('wal');
    file.close();
    await catalog.close();
  });
});

test('a catalog of a newer release is refused, not changed', async () => {
  await withFolder(async (path) => {
    await (await openSqliteCatalog({ path, nowUs: 1 })).close();
    const file = new Database(path);
    file.exec("insert into applied_migrations values ('9999-from-the-future', 1)");
    file.close();
    await expect(openSqliteCatalog({ path, nowUs: 2 })).rejects.toMatchObject({
      code: 'newer_format',
      fields: { found: '9999-from-the-future' },
    });
  });
});

test('details of any number of objects are found, each once', async () => {
  await using world = await World.open();
  const { catalog } = world.control;
  const ids = Array.from({ length: 1002 }, (_, index) => `owner-${index}`);
  await catalog.write(async (writer) => {
    for (const [index, id] of ids.entries())
      await mergeMetadata(writer, { id, scope: index % 2 === 0 ? 'user' : 'image' }, [
        ['n', String(index)],
        ['m', id],
      ]);
  });
  for (const length of [0, 1, 2, 10, 11, 101, 1000, 1001]) {
    const found = await metadataOfAll(catalog.reader, ids.slice(0, length));
    expect(found.user.size + found.image.size, String(length)).toBe(length);
    for (const [index, id] of ids.slice(0, length).entries())
      expect((index % 2 === 0 ? found.user : found.image).get(id)).toEqual(
        new Map([
          ['m', id],
          ['n', String(index)],
        ]),
      );
  }
});

test('attachments of a catalog from before they had a status are attached', async () => {
  await withFolder(async (path) => {
    const old = new Kysely<Schema>({ dialect: new SqliteDialect({ database: new Database(path) }) });
    await volumes(old as Kysely<unknown>);
    await sql`create table applied_migrations (name text primary key, applied_at bigint not null)`.execute(old);
    await sql`insert into applied_migrations values ('0001-volumes', 1)`.execute(old);
    await sql`insert into types (id, name, is_public, extra_specs, created_at) values ('t', 't', 1, '{}', 1)`.execute(
      old,
    );
    await sql`
      insert into volumes (id, project_id, user_id, size_gib, status, availability_zone, type_id, bootable, created_at)
      values ('v', 'p', 'u', 1, 'in-use', 'nova', 't', 0, 1)
    `.execute(old);
    await sql`
      insert into attachments (id, volume_id, instance_id, device, mode, attached_at)
      values ('a', 'v', 'i', '/dev/vdb', 'rw', 7)
    `.execute(old);
    await old.destroy();
    const catalog = await openSqliteCatalog({ path, nowUs: 9 });
    expect(await attachmentsOf(catalog.reader, 'v')).toEqual([
      {
        ...{
          id: 'a',
          volume_id: 'v',
          project_id: 'p',
          instance_id: 'i',
          host_name: null,
          device: '/dev/vdb',
          mode: 'rw',
        },
        ...{ status: 'attached', attached_at: 7, created_at: 7, updated_at: null },
      },
    ]);
    expect((await findVolume(catalog.reader, 'v'))?.multiattach).toBe(0);
    // Its references hold: a volume with an attachment cannot vanish.
    await expect(catalog.write((writer) => writer.deleteFrom('volumes').execute())).rejects.toThrow(/FOREIGN KEY/);
    await catalog.close();
  });
});
