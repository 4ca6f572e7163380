/** `quarry snapshot …`. */
import type { Command } from 'commander';
import { type Context, withContext } from '../context.ts';
import { type Json, maybeText, member, number, text } from '../decode.ts';
import { find, listAll, pathOf, waitFor } from '../objects.ts';
import type { Row } from '../print.ts';
import { printRanges } from './ranges.ts';
import { spaceFields } from './space.ts';
import { exportsOf, printUris } from './volume.ts';

const LIST_COLUMNS = ['id', 'name', 'volume', 'status', 'size', 'created'];

function listRow(snapshot: Json): Row {
  return {
    id: text(snapshot, 'id'),
    name: maybeText(snapshot, 'name'),
    volume: text(snapshot, 'volume_id'),
    status: text(snapshot, 'status'),
    size: `${number(snapshot, 'size')} GiB`,
    created: text(snapshot, 'created_at').slice(0, 19),
    description: maybeText(snapshot, 'description'),
  };
}

async function printSnapshot(context: Context, reference: string): Promise<void> {
  const { client, printer } = context;
  const snapshot = await find(client, 'snapshot', reference);
  const id = text(snapshot, 'id');
  const usage = member(await client.get(`/quarry${pathOf('snapshot', id)}/usage`), 'usage');
  const exports = await exportsOf(context, 'snapshot', id);
  const fields = {
    ...listRow(snapshot),
    ...spaceFields(usage),
    connections: number(usage, 'connections'),
    uri: exports.map((item) => text(item, 'uri')).join(' ') || null,
  };
  printer.object({ fields, raw: { ...snapshot, usage, exports } });
}

async function create(
  context: Context,
  reference: string,
  name: string | undefined,
  description?: string,
): Promise<void> {
  const { client, signal } = context;
  const volumeId = text(await find(client, 'volume', reference), 'id');
  const snapshot = {
    volume_id: volumeId,
    ...(name === undefined ? {} : { name }),
    ...(description === undefined ? {} : { description }),
  };
  const id = text(member(await client.request('POST', '/snapshots', { snapshot }), 'snapshot'), 'id');
  if (context.shouldWait) {
    await waitFor({
      client,
      kind: 'snapshot',
      id,
      what: `Creating a snapshot of ${reference}`,
      until: 'settled',
      signal,
    });
  }
  await printSnapshot(context, id);
}

async function list(context: Context, reference: string | undefined): Promise<void> {
  const { client, printer } = context;
  const volume = reference === undefined ? null : await find(client, 'volume', reference);
  const snapshots = await listAll(client, 'snapshot', volume === null ? {} : { volume_id: text(volume, 'id') });
  printer.list({ columns: LIST_COLUMNS, rows: snapshots.map(listRow), raw: snapshots });
}

export function registerSnapshot(program: Command): void {
  const snapshot = program.command('snapshot').description('create, list, compare and delete snapshots');
  snapshot
    .command('create')
    .description('take a snapshot, also while the volume is in use')
    .argument('<volume>', 'id or name')
    .argument('[name]')
    .option('--description <text>')
    .action((reference: string, name: string | undefined, flags: { description?: string }, command: Command) =>
      withContext(command, (context) => create(context, reference, name, flags.description)),
    );
  snapshot
    .command('list')
    .description('list snapshots, of one volume or all')
    .argument('[volume]', 'id or name')
    .action((reference: string | undefined, _, command: Command) =>
      withContext(command, (context) => list(context, reference)),
    );
  snapshot
    .command('show')
    .description('show one snapshot')
    .argument('<snapshot>', 'id or name')
    .action((reference: string, _, command: Command) =>
      withContext(command, (context) => printSnapshot(context, reference)),
    );
  snapshot
    .command('delete')
    .description('delete snapshots; volumes made from them stay')
    .argument('<snapshot...>', 'ids or names')
    .action((references: string[], _, command: Command) =>
      withContext(command, async ({ client, shouldWait, signal }) => {
        for (const reference of references) {
          const id = text(await find(client, 'snapshot', reference), 'id');
          await client.request('DELETE', pathOf('snapshot', id));
          if (shouldWait) await waitFor({ client, kind: 'snapshot', id, what: 'Deleting', until: 'gone', signal });
        }
      }),
    );
  snapshot
    .command('diff')
    .description('print which ranges differ from one snapshot to another')
    .argument('<from>', 'id or name')
    .argument('<to>', 'id or name')
    .action((from: string, to: string, _, command: Command) =>
      withContext(command, async ({ client, printer }) => {
        const fromId = text(await find(client, 'snapshot', from), 'id');
        const toId = text(await find(client, 'snapshot', to), 'id');
        printRanges(printer, await client.get(`/quarry${pathOf('snapshot', toId)}/diff?from=${fromId}`));
      }),
    );
  snapshot
    .command('uri')
    .description('print the NBD URIs of a snapshot, one a line; it is exported read-only')
    .argument('<snapshot>', 'id or name')
    .action((reference: string, _, command: Command) =>
      withContext(command, (context) => printUris(context, 'snapshot', reference)),
    );
}
