/**
 * `quarry volume attach` and `detach`: an attachment from its beginning to its end in one command each, for people and
 * scripts that have no compute service to do it for them.
 */
import { hostname } from 'node:os';
import { type Command, Option } from 'commander';
import { Failure } from '../../base/errors.ts';
import { type Context, withContext } from '../context.ts';
import { type Json, maybeText, member, members, text } from '../decode.ts';
import { find } from '../objects.ts';

type AttachFlags = { host: string; mode?: 'rw' | 'ro' };

/** Prints how to reach it; in the table's place only the URI, so that a script can use it as it is. */
async function attach(context: Context, reference: string, flags: AttachFlags): Promise<void> {
  const { client, printer } = context;
  const id = text(await find(client, 'volume', reference), 'id');
  const attachment = {
    volume_uuid: id,
    connector: { host: flags.host },
    ...(flags.mode === undefined ? {} : { mode: flags.mode }),
  };
  const created = member(await client.send('POST', '/attachments', { attachment }), 'attachment');
  const path = `/attachments/${text(created, 'id')}`;
  await client.request('POST', `${path}/action`, { 'os-complete': {} });
  const found = member(await client.get(path), 'attachment');
  const connection = member(found, 'connection_info');
  if (printer.format === 'json') printer.json(found);
  else printer.line(text(connection, 'uri'));
}

type DetachFlags = { host?: string; attachment?: string };

async function detach(context: Context, reference: string, flags: DetachFlags): Promise<void> {
  const { client } = context;
  const volume = await find(client, 'volume', reference);
  const going = await chosen(context, volume, flags);
  for (const attachment of going) await client.request('DELETE', `/attachments/${attachment}`);
}

/** One, unless the host has several. */
async function chosen({ client }: Context, volume: Json, flags: DetachFlags): Promise<string[]> {
  if (flags.attachment !== undefined) return [flags.attachment];
  const volumeId = text(volume, 'id');
  const hosts = new Map(
    members(volume, 'attachments').map((one) => [text(one, 'attachment_id'), maybeText(one, 'host_name')]),
  );
  const all = members(await client.get(`/attachments?volume_id=${volumeId}`), 'attachments').map((one) =>
    text(one, 'id'),
  );
  const mine = flags.host === undefined ? all : all.filter((id) => hosts.get(id) === flags.host);
  if (mine.length === 0) {
    const where = flags.host === undefined ? '' : ` on host ${flags.host}`;
    throw new Failure('wrong_state', { reason: `Volume ${volumeId} is not attached${where}.` });
  }
  if (flags.host === undefined && mine.length > 1) {
    const reason = `Volume ${volumeId} has ${mine.length} attachments. Give --host or --attachment: ${mine.join(', ')}`;
    throw new Failure('bad_request', { reason });
  }
  return mine;
}

export function registerAttach(volume: Command): void {
  volume
    .command('attach')
    .description('reserve a volume and print the NBD URI of an export of its own')
    .argument('<volume>', 'id or name')
    .option('--host <name>', 'the machine that will use it', hostname())
    .addOption(new Option('--mode <mode>', 'whether it may write').choices(['rw', 'ro']))
    .action((reference: string, flags: AttachFlags, command: Command) =>
      withContext(command, (context) => attach(context, reference, flags)),
    );
  volume
    .command('detach')
    .description('end an attachment: its export closes, and with it whoever is connected')
    .argument('<volume>', 'id or name')
    .option('--host <name>', 'the attachments of this machine')
    .option('--attachment <id>', 'this attachment')
    .action((reference: string, flags: DetachFlags, command: Command) =>
      withContext(command, (context) => detach(context, reference, flags)),
    );
}
