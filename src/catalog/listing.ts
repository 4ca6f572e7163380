/**
 * One page of a listing: filters, order and a marker, turned into conditions that an index can serve (keyset, no
 * offset scan where a marker is given). It knows columns, not what they mean.
 */
import {
  type ExpressionBuilder,
  type ExpressionWrapper,
  type RawBuilder,
  type Selectable,
  type SqlBool,
  sql,
} from 'kysely';
import type { Reader, Schema } from './schema.ts';

type Value = string | number | null;

export type Compare = '=' | '!=' | '<' | '<=' | '>' | '>=';

export type Filter<Column extends string> =
  | { readonly kind: 'compare'; readonly column: Column; readonly is: Compare; readonly value: Value }
  | { readonly kind: 'contains'; readonly column: Column; readonly text: string }
  | { readonly kind: 'metadata'; readonly scope: 'user' | 'image'; readonly key: string; readonly value: string }
  | { readonly kind: 'nothing' };

export type Order<Column extends string> = { readonly column: Column; readonly descending: boolean };

export type Listing<Column extends string> = {
  /** Null: every project. */
  readonly projectId: string | null;
  readonly filters: readonly Filter<Column>[];
  readonly order: readonly Order<Column>[];
  /** The id after which the page begins. */
  readonly marker: string | null;
  readonly offset: number;
  readonly limit: number;
};

export type ListedTable =
  | 'volumes'
  | 'snapshots'
  | 'messages'
  | 'transfers'
  | 'groups'
  | 'group_snapshots'
  | 'group_types'
  | 'attachments'
  | 'backups';
type Builder = ExpressionBuilder<Schema, ListedTable>;
type Condition = ExpressionWrapper<Schema, ListedTable, SqlBool>;

/** What rows must fulfil, without the page. */
export function matching<Column extends string>(
  table: ListedTable,
  listing: Pick<Listing<Column>, 'projectId' | 'filters'>,
): (builder: Builder) => Condition {
  return (builder) => {
    const conditions = listing.filters.map((filter) => filtered(builder, table, filter));
    if (listing.projectId !== null) conditions.push(builder(sql.ref(`${table}.project_id`), '=', listing.projectId));
    return builder.and(conditions);
  };
}

function filtered<Column extends string>(builder: Builder, table: string, filter: Filter<Column>): Condition {
  switch (filter.kind) {
    case 'nothing':
      return builder.and([sql<SqlBool>`1 = 0`]);
    case 'compare': {
      const column = sql.ref(`${table}.${filter.column}`);
      if (filter.value === null) return builder(column, filter.is === '!=' ? 'is not' : 'is', null);
      return builder(column, filter.is, filter.value);
    }
    case 'contains': {
      const pattern = `%${filter.text.replace(/[\\%_]/g, (sign) => `\\${sign}`)}%`;
      return builder.and([sql<SqlBool>`${sql.ref(`${table}.${filter.column}`)} like ${pattern} escape '\\'`]);
    }
    case 'metadata':
      return builder.exists(
        builder
          .selectFrom('metadata')
          .select(sql.lit(1).as('one'))
          .where('metadata.owner_id', '=', sql.ref<string>(`${table}.id`))
          .where('metadata.scope', '=', filter.scope)
          .where('metadata.key', '=', filter.key)
          .where('metadata.value', '=', filter.value),
      );
  }
}

/** One page of rows; null when the marker is unknown. */
export async function listPage<Table extends ListedTable, Column extends string>(
  reader: Reader,
  table: Table,
  listing: Listing<Column>,
): Promise<Selectable<Schema[Table]>[] | null> {
  // One table stands for all: they share the columns a page is made of, and the conditions name the table themselves.
  const rows = reader.selectFrom(table as 'volumes');
  let query = rows.selectAll().where(matching(table, listing));
  if (listing.marker !== null) {
    const marker = await rows.selectAll().where('id', '=', listing.marker).executeTakeFirst();
    if (!isListed(marker, listing)) return null;
    query = query.where(after(table, listing.order, marker));
  }
  for (const { column, descending } of listing.order)
    query = query.orderBy(column as 'id', descending ? 'desc' : 'asc');
  const found: unknown[] = await query.limit(listing.limit).offset(listing.offset).execute();
  return found as Selectable<Schema[Table]>[];
}

/** Columns without a value in some rows. For the others the conditions stay simple enough for an index. */
const NULLABLE = new Set<string>([
  'name',
  'description',
  'updated_at',
  'snapshot_id',
  'source_volume_id',
  'group_id',
  'instance_id',
  'host_name',
  'attached_at',
  'container',
]);

/** The rows that come after `marker` in this order. Nulls sort lowest. */
export function after<Column extends string>(
  table: ListedTable,
  order: readonly Order<Column>[],
  marker: Readonly<Record<string, Value>>,
): (builder: Builder) => Condition {
  return (builder) => {
    const first = order[0];
    const plain = order.every(({ column, descending }) => descending === first?.descending && !NULLABLE.has(column));
    if (plain) {
      const columns = sql.join(order.map(({ column }) => sql.ref(`${table}.${column}`)));
      const values = sql.join(order.map(({ column }) => marker[column] ?? null));
      return builder.and([sql<SqlBool>`(${columns}) ${sql.raw(first?.descending ? '<' : '>')} (${values})`]);
    }
    const alternatives: Condition[] = [];
    const equal: Condition[] = [];
    for (const { column, descending } of order) {
      const reference = sql.ref<Value>(`${table}.${column}`);
      const value = marker[column] ?? null;
      const beyond = later(builder, reference, { value, descending, nullable: NULLABLE.has(column) });
      if (beyond !== null) alternatives.push(builder.and([...equal, beyond]));
      equal.push(value === null ? builder(reference, 'is', null) : builder(reference, '=', value));
    }
    return builder.or(alternatives);
  };
}

function later(
  builder: Builder,
  reference: RawBuilder<Value>,
  { value, descending, nullable }: { value: Value; descending: boolean; nullable: boolean },
): Condition | null {
  if (value === null) return descending ? null : builder(reference, 'is not', null);
  if (!descending) return builder(reference, '>', value);
  const lower = builder(reference, '<', value);
  return nullable ? builder.or([lower, builder(reference, 'is', null)]) : lower;
}

/** Whether a marker is in the listing's project: another's says nothing, not even that it is there. */
export function isListed<Row extends { readonly project_id: string }>(
  marker: Row | undefined,
  { projectId }: { readonly projectId: string | null },
): marker is Row {
  return marker !== undefined && (projectId === null || marker.project_id === projectId);
}
