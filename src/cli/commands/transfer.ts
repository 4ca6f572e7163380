/** `quarry transfer …`: volumes offered to other projects. */
import type { Command } from 'commander';
import { type Context, withContext } from '../context.ts';
import { type Json, maybeText, member, text } from '../decode.ts';
import { find, listAll, pathOf } from '../objects.ts';
import type { Row } from '../print.ts';

function row(transfer: Json): Row {
  return {
    id: text(transfer, 'id'),
    name: maybeText(transfer, 'name'),
    volume: text(transfer, 'volume_id'),
    created: text(transfer, 'created_at').slice(0, 19),
    snapshots: transfer['no_snapshots'] === true ? 'stay' : 'move',
  };
}

async function create(
  { client, printer }: Context,
  wanted: { volume: string; name: string | undefined; snapshots: boolean },
): Promise<void> {
  const transfer = {
    volume_id: text(await find(client, 'volume', wanted.volume), 'id'),
    no_snapshots: !wanted.snapshots,
    ...(wanted.name === undefined ? {} : { name: wanted.name }),
  };
  const made = member(await client.request('POST', '/volume-transfers', { transfer }), 'transfer');
  printer.object({ fields: { ...row(made), auth_key: text(made, 'auth_key') }, raw: made });
  printer.note('The key is shown this once: whoever has it can take the volume.');
}

async function accept({ client, printer }: Context, id: string, key: string): Promise<void> {
  const path = `${pathOf('transfer', id)}/accept`;
  const taken = member(await client.request('POST', path, { accept: { auth_key: key } }), 'transfer');
  const fields = { id: text(taken, 'id'), name: maybeText(taken, 'name'), volume: text(taken, 'volume_id') };
  printer.object({ fields, raw: taken });
}

export function registerTransfer(program: Command): void {
  const transfer = program.command('transfer').description('offer volumes to other projects, and accept them');
  transfer
    .command('create')
    .description('offer a volume to whoever has the key that this shows')
    .argument('<volume>', 'id or name')
    .argument('[name]')
    .option('--no-snapshots', 'its snapshots stay in this project')
    .action((volume: string, name: string | undefined, flags: { snapshots: boolean }, command: Command) =>
      withContext(command, (context) => create(context, { volume, name, snapshots: flags.snapshots })),
    );
  transfer
    .command('accept')
    .description('take an offered volume into the own project')
    .argument('<transfer>', 'id')
    .argument('<key>')
    .action((id: string, key: string, _, command: Command) =>
      withContext(command, (context) => accept(context, id, key)),
    );
  transfer
    .command('list')
    .description('list the offers of this project')
    .action((_, command: Command) =>
      withContext(command, async ({ client, printer }) => {
        const transfers = await listAll(client, 'transfer', {});
        const columns = ['id', 'name', 'volume', 'created'];
        printer.list({ columns, rows: transfers.map(row), raw: transfers });
      }),
    );
  transfer
    .command('show')
    .description('show one offer')
    .argument('<transfer>', 'id or name')
    .action((reference: string, _, command: Command) =>
      withContext(command, async ({ client, printer }) => {
        const found = await find(client, 'transfer', reference);
        printer.object({ fields: row(found), raw: found });
      }),
    );
  transfer
    .command('delete')
    .description('withdraw offers')
    .argument('<transfer...>', 'ids or names')
    .action((references: string[], _, command: Command) =>
      withContext(command, async ({ client }) => {
        for (const reference of references) {
          const id = text(await find(client, 'transfer', reference), 'id');
          await client.request('DELETE', pathOf('transfer', id));
        }
      }),
    );
}
