/**
 * `quarry check`: the judge of a data folder that no daemon uses, and with `--repair` its surgeon. It holds the folder's lock. Without
 * `--repair` it changes nothing; with it, nothing before the plan was shown and agreed to.
 */
import type { Command } from 'commander';
import { Failure } from '../../base/errors.ts';
import { type Files, realFiles } from '../../base/files.ts';
import type { CheckReport } from '../../engine/check.ts';
import { EXIT, OperationFailed } from '../failure.ts';
import { type Format, Printer } from '../print.ts';
import { startProgress } from '../progress.ts';
import { countOf, printViolations, summaryOf } from './check-report.ts';
import { type RepairFlags, repair } from './repair.ts';

/** Names within the folder, as docs/architecture.md has them. */
const LOCK = 'lock';
const POOL = 'pool/header';

type CheckFlags = RepairFlags & { readonly data: string; readonly repair?: boolean };

async function check(command: Command, flags: CheckFlags): Promise<void> {
  const { data } = flags;
  const global = command.optsWithGlobals<{ output: Format; column?: string[] }>();
  const printer = new Printer({ format: global.output, columns: global.column ?? [] });
  requireRepair(flags);
  const files = realFiles(data);
  if (!files.exists(POOL)) {
    const next = 'Say which folder with --data DIR; `quarry serve` makes a new one.';
    throw new OperationFailed(`${data} holds no pool. ${next}`, EXIT.unusable);
  }
  const release = files.lock(LOCK);
  try {
    if (flags.repair === true) await repair({ files, printer, flags, data });
    else await judge({ files, printer, flags, data });
  } finally {
    release();
  }
}

function requireRepair(flags: CheckFlags): void {
  if (flags.repair === true) return;
  const [alone] = (['discardDamaged', 'fromRoot', 'yes'] as const).filter((name) => flags[name] !== undefined);
  const names = { discardDamaged: '--discard-damaged', fromRoot: '--from-root', yes: '--yes' };
  if (alone !== undefined)
    throw new Failure('bad_request', { reason: `${names[alone]} means something only with --repair.` });
}

async function judge(parts: { files: Files; printer: Printer; flags: CheckFlags; data: string }): Promise<void> {
  const { files, printer, flags, data } = parts;
  const report = await reportOn(files, flags.scrub === true);
  if (report.violations.length === 0) {
    printer.object({ fields: summaryOf(report), raw: report });
    return;
  }
  printViolations(printer, report, report);
  throw new OperationFailed(
    `${data} is damaged: ${countOf(report)} listed on standard output. Keep a copy of the folder before anything else; nothing was changed.`,
    EXIT.unusable,
  );
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

function rootNumber(text: string): number {
  if (!/^[1-9]\d{0,14}$/.test(text))
    throw new Failure('bad_request', { reason: `"${text}" is no root: --from-root takes the number of one.` });
  return Number(text);
}

export function registerCheck(program: Command): void {
  program
    .command('check')
    .description('check every table of a data folder that no daemon uses; changes nothing without --repair')
    .option('--data <dir>', 'the folder', './quarry-data')
    .option('--scrub', 'read every sealed extent too, and compare its bytes with its sum')
    .option('--repair', 'show what can be mended, ask, and mend it; keeps a copy of the tables beside')
    .option('--discard-damaged', 'with --repair: what cannot be known becomes zeros, instead of failing to be read')
    .option(
      '--from-root <number>',
      'with --repair: go back to this root, and lose what the journal no longer has',
      rootNumber,
    )
    .option('--yes', 'with --repair: do not ask')
    .action((flags: CheckFlags, command: Command) => check(command, flags));
}
