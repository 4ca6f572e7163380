/**
 * Rows of limits, and what counts against them. Use is never stored: it is counted from the rows, in the write that
 * adds one, so it cannot drift.
 */
import { sql } from 'kysely';
import type { Reader, Writer } from './schema.ts';

export type Scope = { readonly scope: 'project' | 'class'; readonly id: string };

export async function limitsOf(reader: Reader, scope: Scope): Promise<Map<string, number>> {
  const rows = await reader
    .selectFrom('quotas')
    .select(['resource', 'hard_limit'])
    .where('scope', '=', scope.scope)
    .where('scope_id', '=', scope.id)
    .execute();
  return new Map(rows.map((row) => [row.resource, Number(row.hard_limit)]));
}

export async function setLimits(writer: Writer, scope: Scope, limits: ReadonlyMap<string, number>): Promise<void> {
  const values = [...limits].map(([resource, limit]) => ({
    scope: scope.scope,
    scope_id: scope.id,
    resource,
    hard_limit: limit,
  }));
  if (values.length === 0) return;
  await writer
    .insertInto('quotas')
    .values(values)
    .onConflict((conflict) =>
      conflict
        .columns(['scope', 'scope_id', 'resource'])
        .doUpdateSet((row) => ({ hard_limit: row.ref('excluded.hard_limit') })),
    )
    .execute();
}

export async function removeLimits(writer: Writer, scope: Scope): Promise<void> {
  await writer.deleteFrom('quotas').where('scope', '=', scope.scope).where('scope_id', '=', scope.id).execute();
}

export type Use = {
  readonly typeId: string;
  readonly volumes: number;
  readonly volumeGib: number;
  /** What extensions under way will add. */
  readonly growingGib: number;
  readonly snapshots: number;
  readonly snapshotGib: number;
};

/** One line per volume type that a project uses. */
export async function usesOf(reader: Reader, projectId: string): Promise<Use[]> {
  const volumes = await reader
    .selectFrom('volumes')
    .select([
      'type_id',
      sql<number>`count(*)`.as('count'),
      sql<number>`sum(size_gib)`.as('size'),
      sql<number>`sum(coalesce(target_size_gib - size_gib, 0))`.as('growing'),
    ])
    .where('project_id', '=', projectId)
    .groupBy('type_id')
    .execute();
  const snapshots = await reader
    .selectFrom('snapshots')
    .select(['type_id', sql<number>`count(*)`.as('count'), sql<number>`sum(size_gib)`.as('size')])
    .where('project_id', '=', projectId)
    .groupBy('type_id')
    .execute();
  const typeIds = new Set([...volumes, ...snapshots].map((row) => row.type_id));
  return [...typeIds].map((typeId) => {
    const volume = volumes.find((row) => row.type_id === typeId);
    const snapshot = snapshots.find((row) => row.type_id === typeId);
    return {
      typeId,
      volumes: Number(volume?.count ?? 0),
      volumeGib: Number(volume?.size ?? 0),
      growingGib: Number(volume?.growing ?? 0),
      snapshots: Number(snapshot?.count ?? 0),
      snapshotGib: Number(snapshot?.size ?? 0),
    };
  });
}

/** Limits of resources, whoever they are for, now bear another name. */
export async function renameLimits(writer: Writer, from: string, to: string): Promise<void> {
  await writer.deleteFrom('quotas').where('resource', '=', to).execute();
  await writer.updateTable('quotas').set({ resource: to }).where('resource', '=', from).execute();
}

export async function forgetLimits(writer: Writer, resources: readonly string[]): Promise<void> {
  await writer.deleteFrom('quotas').where('resource', 'in', resources).execute();
}
