/**
 * The query of a listing: page, order and filters, from the words clients use to the columns of the catalog. It knows
 * which words a resource has from the table it is given.
 */
import type { Compare, Filter, Listing, Order } from '../catalog/listing.ts';
import type { Asked } from './asked.ts';
import { badRequest } from './faults.ts';
import { ALSO_ACCEPTED, type FilteredResource, RESOURCE_FILTERS } from './resource-filters.ts';
import { booleanOf, INTEGER_MAX } from './schemas.ts';

/** Items per page at most, also where none is asked for. */
export const PAGE_MAX = 1000;

export type Query = Readonly<Record<string, string | readonly string[] | undefined>>;

/** What a word in the query filters by. */
export type FilterWord<Column extends string> =
  | { readonly kind: 'text' | 'number' | 'truth' | 'time'; readonly column: Column }
  | { readonly kind: 'metadata'; readonly scope: 'user' | 'image' }
  /** The same for every object: all match or none does. */
  | { readonly kind: 'constant'; readonly value: string | null }
  /** One value too, but what a filter says need not equal it. */
  | { readonly kind: 'matched'; matches(text: string): boolean };

export type Words<Column extends string> = {
  readonly filters: Readonly<Record<string, FilterWord<Column>>>;
  /** Null: sorting by it changes nothing, it is the same for all. */
  readonly sort: Readonly<Record<string, Column | null>>;
  /** Whose filters a member may use; without it, all of `filters`. */
  readonly resource?: FilteredResource;
  /** Of the order where none is asked for; newest first where nothing is said. */
  readonly defaultDirection?: 'asc' | 'desc';
};

export type Page<Column extends string> = Listing<Column> & { readonly withCount: boolean };

const NOT_FILTERS: ReadonlySet<string> = new Set([
  'limit',
  'marker',
  'offset',
  'sort',
  'sort_key',
  'sort_dir',
  'all_tenants',
  'with_count',
  'detail',
  'usage',
  'list_volume',
]);

export function pageOf<Column extends string>(query: Query, asked: Asked, words: Words<Column>): Page<Column> {
  const limit = wholeNumber(query, 'limit', Number.MAX_SAFE_INTEGER);
  const count = one(query, 'with_count');
  const withCount = count === undefined ? false : booleanOf(count);
  if (withCount === null) throw badRequest(`Invalid input received: Invalid value '${count}' for with_count.`);
  return {
    ...selectionOf(query, asked, words),
    order: orderOf(query, words),
    marker: one(query, 'marker') ?? null,
    offset: wholeNumber(query, 'offset', INTEGER_MAX) ?? 0,
    limit: Math.min(limit ?? PAGE_MAX, PAGE_MAX),
    withCount: withCount && asked.minor >= 45,
  };
}

/** Filters and projects, for what is not paged. */
export function selectionOf<Column extends string>(
  query: Query,
  asked: Asked,
  words: Words<Column>,
): Pick<Listing<Column>, 'projectId' | 'filters'> {
  const everywhere = asked.caller.isAdmin && flag(query, 'all_tenants');
  const filters: Filter<Column>[] = [];
  const names = Object.keys(query).filter((name) => !NOT_FILTERS.has(name));
  for (const name of acceptedNames(names, asked, words)) {
    const text = one(query, name);
    if (text !== undefined) filters.push(...filtersOf({ name, text }, asked, words));
  }
  return { projectId: everywhere ? null : asked.caller.projectId, filters };
}

/** Of other projects and their people only administrators may ask. */
const ADMIN_FILTERS: ReadonlySet<string> = new Set(['project_id', 'tenant_id', 'user_id']);

/** From 3.31 a member's unknown filter is refused, before it was ignored. */
function acceptedNames<Column extends string>(names: readonly string[], asked: Asked, words: Words<Column>): string[] {
  const isStrict = asked.minor >= 31;
  if (isStrict && names.some((name) => /[^\x20-\x7e]/.test(name)))
    throw badRequest('Filter keys can only contain ASCII characters.');
  if (asked.caller.isAdmin) return [...names];
  const { resource } = words;
  const known: ReadonlySet<string> = new Set(
    resource === undefined
      ? Object.keys(words.filters).filter((name) => !ADMIN_FILTERS.has(name))
      : [...RESOURCE_FILTERS[resource], ...(ALSO_ACCEPTED[resource] ?? [])],
  );
  const isKnown = (name: string): boolean =>
    known.has(asked.minor >= 34 && name.endsWith('~') ? name.slice(0, -1) : name);
  const unknown = names.filter((name) => !isKnown(name));
  if (isStrict && unknown.length > 0)
    throw badRequest(`Invalid filters ${unknown.join(',')} are found in query options.`);
  return names.filter(isKnown);
}

export function one(query: Query, name: string): string | undefined {
  const value = query[name];
  return typeof value === 'string' ? value : value?.[0];
}

export function flag(query: Query, name: string): boolean {
  const text = one(query, name);
  if (text === undefined) return false;
  const value = booleanOf(text);
  if (value === null) throw badRequest(`Invalid input received: Invalid value '${text}' for ${name}.`);
  return value;
}

function wholeNumber(query: Query, name: string, max: number): number | null {
  const text = one(query, name);
  if (text === undefined) return null;
  const value = Number(text);
  if (!/^-?\d+$/.test(text)) throw badRequest(`${name} param must be an integer: '${text}'`);
  if (value < 0) throw badRequest(`${name} param must be positive: '${text}'`);
  if (value > max) throw badRequest(`${name} param must be at most ${max}: '${text}'`);
  return value;
}

function orderOf<Column extends string>(query: Query, words: Words<Column>): Order<Column>[] {
  const order: Order<Column>[] = [];
  for (const [name, direction] of sortPairs(query, words.defaultDirection ?? 'desc')) {
    if (direction !== 'asc' && direction !== 'desc')
      throw badRequest(`Invalid input received: Unknown sort direction '${direction}', must be 'desc' or 'asc'.`);
    const column = Object.hasOwn(words.sort, name) ? words.sort[name] : undefined;
    if (column === undefined) throw badRequest(`Invalid input received: Invalid sort key '${name}'.`);
    if (column !== null && !order.some((known) => known.column === column))
      order.push({ column, descending: direction === 'desc' });
  }
  // Equals come by age, and the id makes the order total, so that a marker is one place in it.
  const descending = order[0]?.descending ?? true;
  for (const column of [words.sort['created_at'], words.sort['id']])
    if (column && !order.some((known) => known.column === column)) order.push({ column, descending });
  return order;
}

function sortPairs(query: Query, defaultDirection: string): [string, string][] {
  const sort = one(query, 'sort');
  const keys = one(query, 'sort_key');
  const directions = one(query, 'sort_dir');
  if (sort !== undefined && (keys !== undefined || directions !== undefined))
    throw badRequest(
      "Invalid input received: The 'sort_key' and 'sort_dir' parameters are deprecated and cannot be used with the 'sort' parameter.",
    );
  const fallback: [string, string] = ['created_at', defaultDirection];
  if (sort === undefined) {
    if (keys === undefined && directions === undefined) return [fallback];
    return [[keys?.trim() || 'created_at', directions?.trim() || 'desc']];
  }
  const pairs = sort
    .split(',')
    .filter((item) => item.trim() !== '')
    .map((item): [string, string] => {
      const [key, direction] = item.split(':');
      return [(key ?? '').trim(), direction?.trim() || 'desc'];
    });
  return pairs.length === 0 ? [fallback] : pairs;
}

function filtersOf<Column extends string>(
  { name, text }: { name: string; text: string },
  asked: Asked,
  words: Words<Column>,
): Filter<Column>[] {
  if (name.endsWith('~') && asked.minor >= 34) {
    const word = own(words.filters, name.slice(0, -1));
    return word?.kind === 'text' ? [{ kind: 'contains', column: word.column, text }] : [{ kind: 'nothing' }];
  }
  const word = own(words.filters, name);
  if (word === undefined) return [{ kind: 'nothing' }];
  switch (word.kind) {
    case 'text':
      return [equal(word.column, text)];
    case 'number':
      return [/^\d{1,15}$/.test(text) ? equal(word.column, Number(text)) : { kind: 'nothing' }];
    case 'truth':
      return [equal(word.column, truthOf(name, text, asked.minor) ? 1 : 0)];
    case 'constant':
      return isSame(word.value, text) ? [] : [{ kind: 'nothing' }];
    case 'matched':
      return word.matches(text) ? [] : [{ kind: 'nothing' }];
    case 'metadata':
      return dictionaryOf(name, text).map(([key, value]) => ({ kind: 'metadata', scope: word.scope, key, value }));
    case 'time':
      return asked.minor >= 60 ? timesOf(name, text, word.column) : plainTime(text, word.column);
  }
}

function own<Value>(table: Readonly<Record<string, Value>>, name: string): Value | undefined {
  return Object.hasOwn(table, name) ? table[name] : undefined;
}

function equal<Column extends string>(column: Column, value: string | number): Filter<Column> {
  return { kind: 'compare', column, is: '=', value };
}

function isSame(value: string | null, text: string): boolean {
  if (value === null) return text.toLowerCase() === 'none';
  const truth = booleanOf(value);
  return truth === null ? value === text : booleanOf(text) === truth;
}

function truthOf(name: string, text: string, minor: number): boolean {
  if (minor < 2) return text !== 'false' && text !== 'False';
  const word = text.trim().toLowerCase();
  if (['t', 'true', '1'].includes(word)) return true;
  if (['f', 'false', '0'].includes(word)) return false;
  throw badRequest(`Invalid input received: '${name} = ${text}'`);
}

const OPERATORS: Readonly<Record<string, Compare>> = { gt: '>', gte: '>=', eq: '=', neq: '!=', lt: '<', lte: '<=' };

function timesOf<Column extends string>(name: string, text: string, column: Column): Filter<Column>[] {
  return text.split(',').map((item) => {
    const colon = item.indexOf(':');
    const operator = item.slice(0, colon).trim();
    const is = own(OPERATORS, operator);
    if (colon < 0 || is === undefined)
      throw badRequest(`Invalid input received: Invalid ${name} operator '${operator}'.`);
    const value = microsecondsOf(item.slice(colon + 1).trim());
    if (value === null) throw badRequest(`Invalid input received: Invalid ${name} value '${item.slice(colon + 1)}'.`);
    return { kind: 'compare', column, is, value };
  });
}

function plainTime<Column extends string>(text: string, column: Column): Filter<Column>[] {
  const value = microsecondsOf(text);
  return [value === null ? { kind: 'nothing' } : equal(column, value)];
}

/** UTC where no zone is named. */
export function microsecondsOf(text: string): number | null {
  const match = /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d:?\d\d)?$/.exec(text);
  if (match === null) return null;
  const [, date, time, fraction, zone] = match;
  const milliseconds = Date.parse(`${date}T${time ?? '00:00'}${zone ?? 'Z'}`);
  if (Number.isNaN(milliseconds)) return null;
  return milliseconds * 1000 + Number((fraction ?? '').padEnd(6, '0').slice(0, 6));
}

/** `{'k': 'v'}`, as Python prints a dictionary, or JSON. */
export function dictionaryOf(name: string, text: string): [string, string][] {
  const complaint = badRequest(
    `Invalid input received: Invalid filter value for ${name}: '${text}' is not a dictionary.`,
  );
  const inner = /^\s*\{(.*)\}\s*$/s.exec(text)?.[1];
  if (inner === undefined) throw complaint;
  const pair =
    /\s*u?(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\s*:\s*u?(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\s*(,|$)/sy;
  const found: [string, string][] = [];
  let end = 0;
  while (inner.slice(end).trim() !== '') {
    pair.lastIndex = end;
    const match = pair.exec(inner);
    if (match === null) throw complaint;
    found.push([unescaped(match[1] ?? match[2] ?? ''), unescaped(match[3] ?? match[4] ?? '')]);
    end = pair.lastIndex;
  }
  return found;
}

function unescaped(text: string): string {
  return text.replace(/\\u([0-9a-fA-F]{4})|\\(.)/gs, (_, hex: string | undefined, sign: string | undefined) => {
    if (hex !== undefined) return String.fromCharCode(Number.parseInt(hex, 16));
    if (sign === 'n') return '\n';
    return sign === 't' ? '\t' : (sign ?? '');
  });
}
