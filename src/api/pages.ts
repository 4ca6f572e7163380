/**
 * Pages of lists that are short enough to be read whole: the same words for filters, order and markers as lists that the
 * catalog pages, worked out here.
 */
import { Failure } from '../base/errors.ts';
import type { Compare, Filter, Listing } from '../catalog/listing.ts';

type Value = string | number | null;

/** An item with what it can be filtered and sorted by. */
export type Line<Column extends string, Item> = {
  readonly item: Item;
  readonly columns: Readonly<Record<Column | 'id', Value>>;
  /** What a filter by a dictionary looks into. */
  readonly entries: Readonly<Record<string, string>>;
};

export function pageOfLines<Column extends string, Item>(
  lines: readonly Line<Column, Item>[],
  page: Omit<Listing<Column>, 'projectId'>,
  kind: string,
): Item[] {
  const found = lines.filter((line) => page.filters.every((filter) => isMatch(line, filter)));
  const ordered = [...found].sort((a, b) => {
    for (const { column, descending } of page.order) {
      const order = compared(a.columns[column], b.columns[column]);
      if (order !== 0) return descending ? -order : order;
    }
    return 0;
  });
  const first = page.marker === null ? 0 : ordered.findIndex(({ columns }) => columns.id === page.marker) + 1;
  if (page.marker !== null && first === 0) throw new Failure('not_found', { kind, id: page.marker });
  return ordered.slice(first + page.offset, first + page.offset + page.limit).map(({ item }) => item);
}

function isMatch<Column extends string, Item>(line: Line<Column, Item>, filter: Filter<Column>): boolean {
  switch (filter.kind) {
    case 'nothing':
      return false;
    case 'compare':
      return holds(filter.is, compared(line.columns[filter.column], filter.value));
    case 'contains':
      return String(line.columns[filter.column] ?? '').includes(filter.text);
    case 'metadata':
      return Object.hasOwn(line.entries, filter.key) && line.entries[filter.key] === filter.value;
  }
}

function holds(is: Compare, order: number): boolean {
  switch (is) {
    case '=':
      return order === 0;
    case '!=':
      return order !== 0;
    case '<':
      return order < 0;
    case '<=':
      return order <= 0;
    case '>':
      return order > 0;
    case '>=':
      return order >= 0;
  }
}

/** Nulls are lowest, as in the catalog. */
function compared(a: Value, b: Value): number {
  if (a === b) return 0;
  if (a === null) return -1;
  if (b === null) return 1;
  return a < b ? -1 : 1;
}
