/** How a report of `quarry check` looks, with and without a repair. */
import type { CheckReport, Violation } from '../../engine/check.ts';
import type { Printer, Row } from '../print.ts';

/** In a table; JSON has all of them. */
const PLACES_SHOWN = 3;

export function summaryOf(report: CheckReport): Row {
  const { objects, pages, extents, damagedExtents, verifiedExtents } = report;
  return {
    ...{ objects, pages, extents },
    ...(damagedExtents === 0 ? {} : { damaged_extents: damagedExtents }),
    ...(verifiedExtents === null ? {} : { verified_extents: verifiedExtents }),
    violations: 0,
  };
}

export function countOf({ violations, isTruncated }: CheckReport): string {
  return `${isTruncated ? 'more than ' : ''}${violations.length} violation${violations.length === 1 ? '' : 's'}`;
}

export function printViolations(printer: Printer, report: CheckReport, raw: unknown): void {
  const rows = report.violations.map(({ kind, path, reason, places }) => ({
    ...{ kind, path, reason },
    concerns: shownPlaces(places),
  }));
  printer.list({ columns: ['kind', 'path', 'reason', 'concerns'], rows, raw });
}

function shownPlaces(places: Violation['places']): string | null {
  if (places.length === 0) return null;
  const shown = places
    .slice(0, PLACES_SHOWN)
    .map(({ kind, id, offset, length }) => `${kind} ${id} from ${offset}, ${length} bytes`);
  const more = places.length - shown.length;
  return `${shown.join('; ')}${more > 0 ? `; and ${more} more` : ''}`;
}
