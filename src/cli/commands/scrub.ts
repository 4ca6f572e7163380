/** `quarry scrub`: has a running daemon read what nobody reads, and prints what the disk has changed. */
import type { Command } from 'commander';
import { type Context, withContext } from '../context.ts';
import { type Json, maybeText, member, members, number, text } from '../decode.ts';
import { EXIT, OperationFailed } from '../failure.ts';
import { pause } from '../objects.ts';
import type { Row } from '../print.ts';
import { formatBytes } from '../sizes.ts';

const LOOK_EVERY_MS = 500;

function fieldsOf(scrub: Json): Row {
  const bytes = (key: string) => formatBytes(number(scrub, key));
  return {
    state: text(scrub, 'state'),
    since: maybeText(scrub, 'started_at')?.slice(0, 19) ?? null,
    ended: maybeText(scrub, 'ended_at')?.slice(0, 19) ?? null,
    read: bytes('read_bytes'),
    'pages of tables': number(scrub, 'pages'),
    'sealed now': bytes('sealed_bytes'),
    compared: bytes('compared_bytes'),
    damaged: bytes('damaged_bytes'),
  };
}

/** A line for each volume and snapshot that shows it, or one without. */
function rowsOf(finding: Json): Row[] {
  const about = { path: text(finding, 'path'), reason: text(finding, 'reason') };
  const shown = members(finding, 'shown').map((one) => ({
    ...about,
    'shown by': `${text(one, 'kind')} ${text(one, 'id')}`,
    offset: number(one, 'offset'),
    length: number(one, 'length'),
  }));
  return shown.length > 0 ? shown : [{ ...about, 'shown by': null, offset: null, length: null }];
}

function print({ printer }: Context, scrub: Json): void {
  const findings = members(scrub, 'findings');
  printer.object({ fields: fieldsOf(scrub), raw: scrub });
  if (findings.length === 0 || printer.format !== 'table' || printer.isSelective) return;
  printer.line('');
  const columns = ['path', 'reason', 'shown by', 'offset', 'length'];
  printer.list({ columns, rows: findings.flatMap(rowsOf), raw: findings });
}

async function scrub(context: Context, isOnlyAsked: boolean): Promise<void> {
  const { client, shouldWait, signal } = context;
  if (!isOnlyAsked) await client.request('POST', '/quarry/scrub', {});
  let found = member(await client.get('/quarry/scrub'), 'scrub');
  while (!isOnlyAsked && shouldWait && text(found, 'state') === 'running') {
    await pause(LOOK_EVERY_MS, signal);
    found = member(await client.get('/quarry/scrub'), 'scrub');
  }
  print(context, found);
  const count = members(found, 'findings').length;
  if (count > 0)
    throw new OperationFailed(
      `The disk has changed what it held: ${count} place${count === 1 ? '' : 's'}, listed on standard output. Reading them fails; nothing else does.`,
      EXIT.failed,
    );
}

export function registerScrub(program: Command): void {
  program
    .command('scrub')
    .description('have the daemon compare what snapshots keep with its checksums')
    .option('--status', 'only show the pass that runs, or the last one')
    .action((flags: { status?: true }, command: Command) =>
      withContext(command, (context) => scrub(context, flags.status === true)),
    );
}
