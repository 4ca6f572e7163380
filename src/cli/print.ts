/**
 * How results look: tables for people, JSON and bare values for programs. Data go to standard output, everything else
 * (progress, notes, errors) to standard error, so that a pipe gets data alone.
 */
import Table from 'cli-table3';
import { Failure } from '../base/errors.ts';

export type Format = 'table' | 'json' | 'value';
export type Cell = string | number | boolean | null;
export type Row = Readonly<Record<string, Cell>>;

/** Without lines: what a person reads, grep and awk can take too. */
const PLAIN = {
  ...{ top: '', 'top-mid': '', 'top-left': '', 'top-right': '', bottom: '', 'bottom-mid': '', 'bottom-left': '' },
  ...{ 'bottom-right': '', left: '', 'left-mid': '', mid: '', 'mid-mid': '', right: '', 'right-mid': '', middle: '  ' },
};

/** NO_COLOR counts when it is set to anything but nothing (no-color.org). */
export function hasColour(stream: { isTTY?: boolean }): boolean {
  return stream.isTTY === true && !process.env['NO_COLOR'] && process.env['TERM'] !== 'dumb';
}

/**
 * Names come from other people: an escape sequence in one must not reach a terminal, nor a line break end a row.
 */
function shown(cell: Cell): string {
  if (cell === null) return '-';
  return String(cell).replace(/[\p{Cc}\p{Bidi_Control}]/gu, (character) => {
    const code = character.codePointAt(0) ?? 0;
    return `\\u${code.toString(16).padStart(4, '0')}`;
  });
}

function heading(name: string): string {
  return hasColour(process.stdout) ? `\x1b[1m${name}\x1b[22m` : name;
}

export class Printer {
  readonly format: Format;
  readonly #columns: readonly string[];

  constructor(options: { format: Format; columns: readonly string[] }) {
    this.format = options.format;
    this.#columns = options.columns;
  }

  /** Whether only some columns were asked for. */
  get isSelective(): boolean {
    return this.#columns.length > 0;
  }

  /** `raw` is what JSON shows: the API's own objects, with nothing rounded or renamed. */
  list(options: { columns: readonly string[]; rows: readonly Row[]; raw: unknown }): void {
    if (this.format === 'json') {
      this.json(options.raw);
      return;
    }
    const columns = this.#selected(options.columns);
    if (this.format === 'value') {
      for (const row of options.rows) this.line(columns.map((column) => shown(row[column] ?? null)).join('\t'));
      return;
    }
    const table = new Table({ chars: PLAIN, style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 } });
    table.push(columns.map((column) => heading(column.toUpperCase().replaceAll('_', ' '))));
    for (const row of options.rows) table.push(columns.map((column) => shown(row[column] ?? null)));
    this.#table(table);
  }

  object(options: { fields: Row; raw: unknown }): void {
    if (this.format === 'json') {
      this.json(options.raw);
      return;
    }
    const names = this.#selected(Object.keys(options.fields));
    if (this.format === 'value') {
      for (const name of names) this.line(shown(options.fields[name] ?? null));
      return;
    }
    const table = new Table({ chars: PLAIN, style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 } });
    for (const name of names) table.push([heading(name.replaceAll('_', ' ')), shown(options.fields[name] ?? null)]);
    this.#table(table);
  }

  json(value: unknown): void {
    this.line(JSON.stringify(value, null, 2));
  }

  line(text: string): void {
    process.stdout.write(`${text}\n`);
  }

  /** For people; never on standard output. */
  note(text: string): void {
    process.stderr.write(`${text}\n`);
  }

  #table(table: Table.Table): void {
    for (const line of table.toString().split('\n')) this.line(line.trimEnd());
  }

  #selected(known: readonly string[]): readonly string[] {
    if (this.#columns.length === 0) return known;
    for (const column of this.#columns) {
      if (!known.includes(column)) {
        throw new Failure('bad_request', { reason: `There is no column "${column}". There are: ${known.join(', ')}.` });
      }
    }
    return this.#columns;
  }
}
