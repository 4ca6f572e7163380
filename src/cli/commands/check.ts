/** `quarry check`: the judge of a data folder that no daemon uses. It holds the folder's lock and changes nothing. */
import type { Command } from 'commander';
import { realFiles } from '../../base/files.ts';
import { EXIT, OperationFailed } from '../failure.ts';
import { type Format, Printer } from '../print.ts';

/** Names within the folder, as docs/architecture.md has them. */
const LOCK = 'lock';
const POOL = 'pool/header';

async function check(command: Command, data: string): Promise<void> {
  const flags = command.optsWithGlobals<{ output: Format; column?: string[] }>();
  const printer = new Printer({ format: flags.output, columns: flags.column ?? [] });
  const files = realFiles(data);
  if (!files.exists(POOL)) {
    const next = 'Say which folder with --data DIR; `quarry serve` makes a new one.';
    throw new OperationFailed(`${data} holds no pool. ${next}`, EXIT.unusable);
  }
  const release = files.lock(LOCK);
  try {
    // Loaded here, so that client commands start without the engine.
    const { checkPool } = await import('../../engine/check.ts');
    const report = checkPool(files);
    const { objects, pages, extents, violations } = report;
    if (violations.length === 0) {
      printer.object({ fields: { objects, pages, extents, violations: 0 }, raw: report });
      return;
    }
    printer.list({ columns: ['kind', 'path', 'reason'], rows: violations, raw: report });
    const count = `${report.isTruncated ? 'more than ' : ''}${violations.length} violation${violations.length === 1 ? '' : 's'}`;
    throw new OperationFailed(
      `${data} is damaged: ${count} listed on standard output. Keep a copy of the folder before anything else; nothing was changed.`,
      EXIT.unusable,
    );
  } finally {
    release();
  }
}

export function registerCheck(program: Command): void {
  program
    .command('check')
    .description('check every table of a data folder that no daemon uses; changes nothing')
    .option('--data <dir>', 'the folder', './quarry-data')
    .action((flags: { data: string }, command: Command) => check(command, flags.data));
}
