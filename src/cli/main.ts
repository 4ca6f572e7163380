#!/usr/bin/env node
/**
 * The program `quarry`: which commands there are, and how any error becomes one line on standard error and an exit code.
 * `serve` and `check` work on a data folder; every other command is a client of the API.
 */
import { Command, CommanderError, Option } from 'commander';
import { registerBackup } from './commands/backup.ts';
import { registerCheck } from './commands/check.ts';
import { registerGroup } from './commands/group.ts';
import { registerMessage } from './commands/message.ts';
import { registerQos } from './commands/qos.ts';
import { registerQuota } from './commands/quota.ts';
import { registerScrub } from './commands/scrub.ts';
import { registerServe } from './commands/serve.ts';
import { registerSnapshot } from './commands/snapshot.ts';
import { registerStatus } from './commands/status.ts';
import { registerTransfer } from './commands/transfer.ts';
import { registerType } from './commands/type.ts';
import { registerVolume } from './commands/volume.ts';
import { DEFAULT_URL } from './connection.ts';
import { collect } from './context.ts';
import { EXIT, reportError } from './failure.ts';
import { readVersion } from './version.ts';

const EXIT_CODES = `
Exit codes: 0 done, 1 the operation failed, 2 the command line was wrong, 3 not found,
4 refused (quota, state, permission), 5 the daemon or the data folder can't be used.`;

function buildProgram(): Command {
  const program = new Command('quarry')
    .description('Userspace block storage: thin copy-on-write volumes over NBD.')
    .version(readVersion())
    .exitOverride()
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'quarry: ')) })
    .addHelpText('after', EXIT_CODES)
    .option('--url <url>', `the daemon: http(s)://HOST:PORT or unix:PATH (QUARRY_URL; default ${DEFAULT_URL})`)
    .option('--token <token>', 'for daemons that ask for one (QUARRY_TOKEN, or the OS_* variables)')
    .option('--cacert <file>', 'authority to trust instead of those of the system, PEM (OS_CACERT)')
    .addOption(
      new Option('-o, --output <format>', 'how results look').choices(['table', 'json', 'value']).default('table'),
    )
    .option('-c, --column <name>', 'only this column; repeatable', collect)
    .option('--no-wait', 'return at once, while the daemon still works');
  registerServe(program);
  registerVolume(program);
  registerSnapshot(program);
  registerType(program);
  registerQos(program);
  registerQuota(program);
  registerTransfer(program);
  registerGroup(program);
  registerMessage(program);
  registerBackup(program);
  registerStatus(program);
  registerCheck(program);
  registerScrub(program);
  return program;
}

async function main(): Promise<number> {
  // `quarry volume list | head` ends when the reader has enough.
  process.stdout.on('error', (error: NodeJS.ErrnoException) =>
    process.exit(error.code === 'EPIPE' ? EXIT.done : EXIT.failed),
  );
  try {
    await buildProgram().parseAsync();
    return EXIT.done;
  } catch (error) {
    // Commander has printed its own.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage;
    return reportError(error);
  }
}

// Not by running dry: a part of the daemon that did not stop must not keep the process alive. Pipes are written synchronously here.
process.exit(await main());
