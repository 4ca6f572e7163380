/**
 * One query for what belongs to many objects. A query by a thousand ids costs more to put into words than to run, so the
 * words are kept: one text for each of a few lengths, the ids being filled up with the last one.
 */
import type { Compilable, CompiledQuery } from 'kysely';
import type { Reader } from './schema.ts';

/** The longest is below what any SQL database takes as parameters. */
const LENGTHS = [1, 10, 100, 1000] as const;
const IDS_PER_QUERY = 1000;

/** As many ids as one query takes, in turns. */
export function* parts(ids: readonly string[]): Generator<readonly string[]> {
  for (let first = 0; first < ids.length; first += IDS_PER_QUERY) yield ids.slice(first, first + IDS_PER_QUERY);
}

export type Many<Row> = (reader: Reader, ids: readonly string[]) => Promise<Row[]>;

/** The query must name the ids as its only parameters, in their order; repeated ids must not repeat rows (`in`). */
export function manyByIds<Row>(query: (reader: Reader, ids: readonly string[]) => Compilable<Row>): Many<Row> {
  // By reader, for each belongs to one SQL dialect.
  const known = new WeakMap<Reader, Map<number, CompiledQuery<Row>>>();
  const compiled = (reader: Reader, ids: readonly string[]): CompiledQuery<Row> => {
    const texts = known.get(reader) ?? new Map<number, CompiledQuery<Row>>();
    known.set(reader, texts);
    const found = texts.get(ids.length) ?? query(reader, ids).compile();
    texts.set(ids.length, found);
    return found;
  };
  return async (reader, ids) => {
    const rows: Row[] = [];
    for (const part of parts(ids)) {
      const some = filled(part);
      const answer = await reader.executeQuery<Row>({ ...compiled(reader, some), parameters: some });
      for (const row of answer.rows) rows.push(row);
    }
    return rows;
  };
}

function filled(ids: readonly string[]): readonly string[] {
  const length = LENGTHS.find((candidate) => candidate >= ids.length) ?? IDS_PER_QUERY;
  const last = ids.at(-1) ?? '';
  return [...ids, ...Array.from({ length: length - ids.length }, () => last)];
}
