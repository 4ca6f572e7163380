/** `quarry backup …`. */
import { readFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { Failure } from '../../base/errors.ts';
import { type Context, withContext } from '../context.ts';
import { type Json, maybeText, member, members, number, object, text } from '../decode.ts';
import { OperationFailed } from '../failure.ts';
import { find, listAll, pathOf, pause, waitFor } from '../objects.ts';
import type { Row } from '../print.ts';
import { startProgress } from '../progress.ts';
import { formatBytes } from '../sizes.ts';
import { registerBackupSchedule } from './backup-schedule.ts';

const LIST_COLUMNS = ['id', 'name', 'volume', 'status', 'size', 'kind', 'created'];
/** Between two looks at what has no status of its own. */
const LOOK_EVERY_MS = 300;

function listRow(backup: Json): Row {
  return {
    id: text(backup, 'id'),
    name: maybeText(backup, 'name'),
    volume: text(backup, 'volume_id'),
    status: text(backup, 'status'),
    size: `${number(backup, 'size')} GiB`,
    kind: backup['is_incremental'] === true ? 'incremental' : 'full',
    created: text(backup, 'created_at').slice(0, 19),
    description: maybeText(backup, 'description'),
    failure: maybeText(backup, 'fail_reason'),
  };
}

const detailOf = async ({ client }: Context, id: string): Promise<Json> =>
  member(await client.get(`/quarry${pathOf('backup', id)}`), 'backup');

async function printBackup(context: Context, reference: string): Promise<void> {
  const { client, printer } = context;
  const backup = await find(client, 'backup', reference);
  const detail = await detailOf(context, text(backup, 'id'));
  const verified = detail['verified'];
  const fields = {
    ...listRow(backup),
    parent: maybeText(detail, 'parent_id'),
    added: formatBytes(number(detail, 'added_bytes')),
    stored: formatBytes(number(detail, 'stored_bytes')),
    root: maybeText(detail, 'root'),
    verified: verified === null ? null : verdictOf(object(verified, 'verified')),
  };
  printer.object({ fields, raw: { ...backup, detail } });
}

function verdictOf(report: Json): string {
  const outcome = text(report, 'outcome');
  const problems = number(report, 'problem_count');
  const count = problems === 0 ? '' : `, ${problems} problem${problems === 1 ? '' : 's'}`;
  return `${outcome} (${text(report, 'depth')}${count}, ${text(report, 'ended_at').slice(0, 19)})`;
}

/** Shows a bar of what the daemon says while something else waits for the end. */
async function withProgress<T>(
  context: Context,
  { id, title }: { id: string; title: string },
  work: (onLook: () => Promise<void>) => Promise<T>,
): Promise<T> {
  const bar = await startProgress(title);
  try {
    return await work(async () => {
      // The object may be gone by now; whoever waits for it says so.
      const detail = await detailOf(context, id).catch(() => null);
      const progress = detail?.['progress'] ?? null;
      if (progress === null) return;
      const shown = object(progress, 'progress');
      bar.update(number(shown, 'done_bytes'), number(shown, 'total_bytes'));
    });
  } finally {
    bar.stop();
  }
}

type CreateFlags = { incremental?: boolean; snapshot?: string; force?: boolean; description?: string };

async function create(context: Context, reference: string, name: string | undefined, flags: CreateFlags) {
  const { client, signal } = context;
  const volumeId = text(await find(client, 'volume', reference), 'id');
  const snapshot = flags.snapshot === undefined ? null : await find(client, 'snapshot', flags.snapshot);
  const backup = {
    volume_id: volumeId,
    incremental: flags.incremental === true,
    force: flags.force === true,
    ...(name === undefined ? {} : { name }),
    ...(flags.description === undefined ? {} : { description: flags.description }),
    ...(snapshot === null ? {} : { snapshot_id: text(snapshot, 'id') }),
  };
  const id = text(member(await client.request('POST', '/backups', { backup }), 'backup'), 'id');
  if (context.shouldWait) {
    const what = `Backing up ${reference}`;
    await withProgress(context, { id, title: what }, (onLook) =>
      waitFor({ client, kind: 'backup', id, what, until: 'settled', signal, onLook }),
    );
  }
  await printBackup(context, id);
}

async function list(context: Context, reference: string | undefined): Promise<void> {
  const { client, printer } = context;
  const volume = reference === undefined ? null : await find(client, 'volume', reference);
  const backups = await listAll(client, 'backup', volume === null ? {} : { volume_id: text(volume, 'id') });
  printer.list({ columns: LIST_COLUMNS, rows: backups.map(listRow), raw: backups });
}

type RestoreFlags = { into?: string; instant?: boolean };

async function restore(context: Context, reference: string, name: string | undefined, flags: RestoreFlags) {
  const { client, printer, signal } = context;
  if (flags.into !== undefined && name !== undefined)
    throw new Failure('bad_request', { reason: 'A name is for a new volume: give either a name or --into.' });
  const id = text(await find(client, 'backup', reference), 'id');
  const into = flags.into === undefined ? null : text(await find(client, 'volume', flags.into), 'id');
  const isInstant = flags.instant === true;
  if (isInstant && into !== null)
    throw new Failure('bad_request', {
      reason: 'An instant restore makes a new volume: give either --instant or --into.',
    });
  const body = {
    restore: {
      ...(into === null ? {} : { volume_id: into }),
      ...(name === undefined ? {} : { name }),
      ...(isInstant ? { instant: true } : {}),
    },
  };
  const path = `${isInstant ? '/quarry' : ''}${pathOf('backup', id)}/restore`;
  const answer = member(await client.request('POST', path, body), 'restore');
  const volumeId = text(answer, 'volume_id');
  if (context.shouldWait) {
    const what = `Restoring ${reference}`;
    await withProgress(context, { id, title: what }, (onLook) =>
      waitFor({ client, kind: 'volume', id: volumeId, what, until: 'settled', signal, onLook }),
    );
  }
  const fields = { backup: id, volume: volumeId, name: maybeText(answer, 'volume_name') };
  printer.object({ fields, raw: answer });
}

async function verify(context: Context, reference: string, depth: string): Promise<void> {
  const { client, printer, signal } = context;
  const id = text(await find(client, 'backup', reference), 'id');
  await client.request('POST', `/quarry${pathOf('backup', id)}/verify`, { depth });
  if (!context.shouldWait) return;
  const report = await withProgress(context, { id, title: `Verifying ${reference}` }, async (onLook) => {
    for (;;) {
      const found = (await detailOf(context, id))['verified'] ?? null;
      if (found !== null) return object(found, 'verified');
      await onLook();
      await pause(LOOK_EVERY_MS, signal);
    }
  });
  const problems = members(report, 'problems');
  printer.list({
    columns: ['kind', 'key', 'reason'],
    rows: problems.map((item) => ({ kind: text(item, 'kind'), key: text(item, 'key'), reason: text(item, 'reason') })),
    raw: [report],
  });
  const verdict = `Backup ${id}: ${verdictOf(report)}, ${formatBytes(number(report, 'read_bytes'))} read.`;
  if (text(report, 'outcome') !== 'good') throw new OperationFailed(verdict);
  process.stderr.write(`${verdict}\n`);
}

async function collect({ client, printer, shouldWait, signal }: Context): Promise<void> {
  await client.request('POST', '/quarry/backups/collect', {});
  while (shouldWait) {
    const collection = member(await client.get('/quarry/backups/collect'), 'collection');
    const state = text(collection, 'state');
    if (state === 'failed') throw new OperationFailed(`Collecting failed: ${text(collection, 'reason')}`);
    if (state === 'done') {
      const fields = {
        objects: number(collection, 'objects'),
        freed: formatBytes(number(collection, 'bytes')),
        unfinished: number(collection, 'unfinished'),
        dead: formatBytes(number(collection, 'dead_bytes')),
      };
      printer.object({ fields, raw: collection });
      return;
    }
    await pause(LOOK_EVERY_MS, signal);
  }
}

async function rotateKeys({ client, printer, shouldWait, signal }: Context): Promise<void> {
  await client.request('POST', '/quarry/backups/rekey', {});
  while (shouldWait) {
    const rotation = member(await client.get('/quarry/backups/rekey'), 'rotation');
    const state = text(rotation, 'state');
    if (state === 'failed') throw new OperationFailed(`Changing the key failed: ${text(rotation, 'reason')}`);
    if (state === 'done') {
      const foreign = number(rotation, 'foreign_count');
      const fields = {
        wrapped: number(rotation, 'wrapped'),
        kept: number(rotation, 'kept'),
        removed: number(rotation, 'removed'),
        foreign,
      };
      printer.object({ fields, raw: rotation });
      if (foreign === 0) return;
      throw new OperationFailed(
        `${foreign} data keys are wrapped by keys that are not configured: add those as backup_previous_key_files and try again.`,
      );
    }
    await pause(LOOK_EVERY_MS, signal);
  }
}

async function rescan({ client, printer }: Context): Promise<void> {
  const answer = object(await client.request('POST', '/quarry/backups/rescan', {}), 'the answer');
  const listed = (key: string): string[] => {
    const items = answer[key];
    return Array.isArray(items) ? items.map(String) : [];
  };
  const fields = {
    imported: listed('imported').length,
    known: number(answer, 'known'),
    unreadable: listed('unreadable').join(' ') || null,
  };
  printer.object({ fields, raw: answer });
}

/** The record as `backup export -o json` prints it, from a file or standard input. */
async function importRecord(context: Context, path: string): Promise<void> {
  const { client } = context;
  let record: unknown;
  try {
    record = JSON.parse(await readFile(path === '-' ? '/dev/stdin' : path, 'utf8'));
  } catch (error) {
    throw new Failure('bad_request', { reason: `${path} is no record of a backup: ${(error as Error).message}` });
  }
  const body = { 'backup-record': object(record, `${path}`) };
  const answer = await client.request('POST', '/backups/import_record', body);
  await printBackup(context, text(member(answer, 'backup'), 'id'));
}

async function exportRecord({ client, printer }: Context, reference: string): Promise<void> {
  const id = text(await find(client, 'backup', reference), 'id');
  const record = member(await client.get(`${pathOf('backup', id)}/export_record`), 'backup-record');
  const fields = { backup_service: text(record, 'backup_service'), backup_url: text(record, 'backup_url') };
  printer.object({ fields, raw: record });
}

export function registerBackup(program: Command): void {
  const backup = program.command('backup').description('back up volumes, restore, verify and collect');
  backup
    .command('create')
    .description('back up a volume or one of its snapshots')
    .argument('<volume>', 'id or name')
    .argument('[name]')
    .option('--incremental', 'only what changed since the newest backup of the volume')
    .option('--snapshot <snapshot>', 'what this snapshot holds')
    .option('--force', 'also while the volume is attached')
    .option('--description <text>')
    .action((reference: string, name: string | undefined, flags: CreateFlags, command: Command) =>
      withContext(command, (context) => create(context, reference, name, flags)),
    );
  backup
    .command('list')
    .description('list backups, of one volume or all')
    .argument('[volume]', 'id or name')
    .action((reference: string | undefined, _, command: Command) =>
      withContext(command, (context) => list(context, reference)),
    );
  backup
    .command('show')
    .description('show one backup')
    .argument('<backup>', 'id or name')
    .action((reference: string, _, command: Command) =>
      withContext(command, (context) => printBackup(context, reference)),
    );
  backup
    .command('restore')
    .description('write a backup into a new volume, or over an existing one')
    .argument('<backup>', 'id or name')
    .argument('[name]', 'of the new volume')
    .option('--into <volume>', 'replace the data of this volume')
    .option('--instant', 'serve the volume at once and fill it meanwhile')
    .action((reference: string, name: string | undefined, flags: RestoreFlags, command: Command) =>
      withContext(command, (context) => restore(context, reference, name, flags)),
    );
  backup
    .command('verify')
    .description('say whether a backup can be trusted; exit code 1 if not')
    .argument('<backup>', 'id or name')
    .option(
      '--depth <depth>',
      'manifest: all is there; stored: the stored bytes are right; full: every chunk is',
      'full',
    )
    .action((reference: string, flags: { depth: string }, command: Command) =>
      withContext(command, (context) => verify(context, reference, flags.depth)),
    );
  backup
    .command('delete')
    .description('delete backups; the others stay whole')
    .argument('<backup...>', 'ids or names')
    .action((references: string[], _, command: Command) =>
      withContext(command, async ({ client, shouldWait, signal }) => {
        for (const reference of references) {
          const id = text(await find(client, 'backup', reference), 'id');
          await client.request('DELETE', pathOf('backup', id));
          if (shouldWait) await waitFor({ client, kind: 'backup', id, what: 'Deleting', until: 'gone', signal });
        }
      }),
    );
  registerRepositoryCommands(backup);
  registerBackupSchedule(backup);
}

function registerRepositoryCommands(backup: Command): void {
  backup
    .command('gc')
    .description('remove from the object store what no backup needs')
    .action((_, command: Command) => withContext(command, collect));
  backup
    .command('rekey')
    .description(
      "wrap all data keys under the configured backup key, so that the ones before it aren't needed any more",
    )
    .action((_, command: Command) => withContext(command, rotateKeys));
  backup
    .command('rescan')
    .description('list backups that the object store has and the daemon does not know')
    .action((_, command: Command) => withContext(command, rescan));
  backup
    .command('import')
    .description('know a backup by its record')
    .argument('<record>', "a file made by `backup export -o json`, or '-'")
    .action((path: string, _, command: Command) => withContext(command, (context) => importRecord(context, path)));
  backup
    .command('export')
    .description('print the record by which another daemon on the same object store knows a backup')
    .argument('<backup>', 'id or name')
    .action((reference: string, _, command: Command) =>
      withContext(command, (context) => exportRecord(context, reference)),
    );
}
