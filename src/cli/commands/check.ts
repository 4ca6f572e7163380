/** `quarry check`: the judge of a data folder that no daemon uses. It holds the folder's lock and changes nothing. */
import type { Command } from 'commander';
import { type Files, realFiles } from '../../base/files.ts';
import type { CheckReport, Violation } from '../../engine/check.ts';
import { EXIT, OperationFailed } from '../failure.ts';
import { type Format, Printer, type Row } from '../print.ts';
import { startProgress } from '../progress.ts';

/** Names within the folder, as docs/architecture.md has them. */
const LOCK = 'lock';
const POOL = 'pool/header';
/** In a table; JSON has all of them. */
const PLACES_SHOWN = 3;

type CheckFlags = { readonly data: string; readonly scrub?: boolean };

async function check(command: Command, flags: CheckFlags): Promise<void> {
  const { data } = flags;
  const global = command.optsWithGlobals<{ output: Format; column?: string[] }>();
  const printer = new Printer({ format: global.output, columns: global.column ?? [] });
  const files = realFiles(data);
  if (!files.exists(POOL)) {
    const next = 'Say which folder with --data DIR; `quarry serve` makes a new one.';
    throw new OperationFailed(`${data} holds no pool. ${next}`, EXIT.unusable);
  }
  const release = files.lock(LOCK);
  try {
    const report = await reportOn(files, flags.scrub === true);
    if (report.violations.length === 0) {
      printer.object({ fields: summaryOf(report), raw: report });
      return;
    }
    printViolations(printer, report);
    const count = `${report.isTruncated ? 'more than ' : ''}${report.violations.length} violation${report.violations.length === 1 ? '' : 's'}`;
    throw new OperationFailed(
      `${data} is damaged: ${count} listed on standard output. Keep a copy of the folder before anything else; nothing was changed.`,
      EXIT.unusable,
    );
  } finally {
    release();
  }
}

async function reportOn(files: Files, isScrub: boolean): Promise<CheckReport> {
  // Loaded here, so that client commands start without the engine.
  const { checkPool, checkPoolAndData } = await import('../../engine/check.ts');
  if (!isScrub) return checkPool(files);
  const progress = await startProgress('reading sealed extents');
  try {
    return checkPoolAndData(files, progress.update);
  } finally {
    progress.stop();
  }
}

function summaryOf(report: CheckReport): Row {
  const { objects, pages, extents, damagedExtents, verifiedExtents } = report;
  return {
    ...{ objects, pages, extents },
    ...(damagedExtents === 0 ? {} : { damaged_extents: damagedExtents }),
    ...(verifiedExtents === null ? {} : { verified_extents: verifiedExtents }),
    violations: 0,
  };
}

function printViolations(printer: Printer, report: CheckReport): void {
  const rows = report.violations.map(({ kind, path, reason, places }) => ({
    ...{ kind, path, reason },
    concerns: shownPlaces(places),
  }));
  printer.list({ columns: ['kind', 'path', 'reason', 'concerns'], rows, raw: report });
}

function shownPlaces(places: Violation['places']): string | null {
  if (places.length === 0) return null;
  const shown = places
    .slice(0, PLACES_SHOWN)
    .map(({ kind, id, offset, length }) => `${kind} ${id} from ${offset}, ${length} bytes`);
  const more = places.length - shown.length;
  return `${shown.join('; ')}${more > 0 ? `; and ${more} more` : ''}`;
}

export function registerCheck(program: Command): void {
  program
    .command('check')
    .description('check every table of a data folder that no daemon uses; changes nothing')
    .option('--data <dir>', 'the folder', './quarry-data')
    .option('--scrub', 'read every sealed extent too, and compare its bytes with its sum')
    .action((flags: CheckFlags, command: Command) => check(command, flags));
}
