/** Prints maps and diffs. */
import { type Json, members, number, text } from '../decode.ts';
import type { Printer } from '../print.ts';

export function printRanges(printer: Printer, answer: Json): void {
  const ranges = members(answer, 'ranges');
  const rows = ranges.map((range) => ({
    offset: number(range, 'offset'),
    length: number(range, 'length'),
    kind: text(range, 'kind'),
  }));
  printer.list({ columns: ['offset', 'length', 'kind'], rows, raw: ranges });
}
