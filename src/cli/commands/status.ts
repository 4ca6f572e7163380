/** `quarry status`: what the daemon holds and does, in one screen. */
import type { Command } from 'commander';
import { type Context, withContext } from '../context.ts';
import { type Json, member, members, number, object, text } from '../decode.ts';
import type { Row } from '../print.ts';
import { formatBytes } from '../sizes.ts';

const WATCH_EVERY_MS = 1_000;

const WARNINGS: Readonly<Record<string, string>> = {
  low: 'the pool is filling up',
  critical: 'the pool is nearly full: add space, or delete or trim something',
  full: 'the pool is full: writes that need space fail',
};

function counts(of: Json): string {
  const states = Object.entries(object(of['by_status'], 'by_status')).map(([status, count]) => `${count} ${status}`);
  const size = formatBytes(number(of, 'size_bytes'));
  return `${number(of, 'count')} of ${size} in all${states.length === 0 ? '' : ` (${states.join(', ')})`}`;
}

function fieldsOf(status: Json): Row {
  const pool = member(status, 'pool');
  const addresses = Array.isArray(status['nbd']) ? status['nbd'].join(', ') : '';
  const bytes = (key: string) => formatBytes(number(pool, key));
  return {
    version: text(status, 'version'),
    since: text(status, 'started_at').slice(0, 19),
    authentication: text(status, 'auth'),
    space: `${bytes('free_bytes')} free of ${bytes('capacity_bytes')}, ${bytes('reserved_bytes')} kept in reserve`,
    ...(text(pool, 'level') === 'ok' ? {} : { warning: WARNINGS[text(pool, 'level')] ?? text(pool, 'level') }),
    provisioned: `${bytes('provisioned_bytes')}; at most ${number(pool, 'max_over_subscription_ratio')} times the capacity`,
    data: `${bytes('mapped_bytes')} mapped (${bytes('shared_bytes')} of it shared), ${bytes('reclaim_bytes')} freed and not yet given back`,
    tables: bytes('metadata_bytes'),
    volumes: counts(member(status, 'volumes')),
    snapshots: counts(member(status, 'snapshots')),
    connections: `${number(status, 'connections')} at ${addresses}`,
    tasks: members(status, 'tasks').length,
  };
}

async function printStatus({ client, printer }: Context): Promise<void> {
  const status = await client.get('/quarry/status');
  printer.object({ fields: fieldsOf(status), raw: status });
  const tasks = members(status, 'tasks');
  if (tasks.length === 0 || printer.format !== 'table' || printer.isSelective) return;
  const rows = tasks.map((task) => ({
    task: text(task, 'kind'),
    subject: text(task, 'subject'),
    attempts: number(task, 'attempts'),
    since: text(task, 'created_at').slice(0, 19),
  }));
  printer.line('');
  printer.list({ columns: ['task', 'subject', 'attempts', 'since'], rows, raw: tasks });
}

/** Until Ctrl-C, which is how one ends it and no failure. */
async function watch(context: Context): Promise<void> {
  const { setTimeout: pause } = await import('node:timers/promises');
  while (!context.signal.aborted) {
    if (process.stdout.isTTY === true) context.printer.line('\x1b[H\x1b[2J\x1b[3J');
    await printStatus(context);
    await pause(WATCH_EVERY_MS, undefined, { signal: context.signal }).catch(() => {});
  }
}

export function registerStatus(program: Command): void {
  program
    .command('status')
    .description('show pool space, volumes, connections and tasks under way')
    .option('--watch', 'again each second, until Ctrl-C')
    .action((flags: { watch?: true }, command: Command) =>
      withContext(command, (context) => (flags.watch ? watch(context) : printStatus(context))),
    );
}
