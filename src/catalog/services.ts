/**
 * What administrators said of services. A service of which nothing was said has no row.
 */
import type { Reader, ServiceRow, Writer } from './schema.ts';

export async function listServices(reader: Reader): Promise<ServiceRow[]> {
  return reader.selectFrom('services').selectAll().execute();
}

export async function setService(writer: Writer, row: ServiceRow): Promise<void> {
  const { binary: _binary, host: _host, ...said } = row;
  await writer
    .insertInto('services')
    .values(row)
    .onConflict((conflict) => conflict.columns(['binary', 'host']).doUpdateSet(said))
    .execute();
}

export type ProjectTotal = { readonly projectId: string; readonly count: number; readonly sizeGib: number };

/** Volumes or snapshots per project. */
export async function totalsByProject(reader: Reader, table: 'volumes' | 'snapshots'): Promise<ProjectTotal[]> {
  const rows = await reader
    .selectFrom(table as 'volumes')
    .select(({ fn }) => ['project_id', fn.countAll<number>().as('count'), fn.sum<number>('size_gib').as('size')])
    .groupBy('project_id')
    .orderBy('project_id')
    .execute();
  return rows.map((row) => ({
    projectId: row.project_id,
    count: Number(row.count),
    sizeGib: Number(row.size),
  }));
}
