/** `quarry group …`: groups of volumes, their snapshots (`group snapshot`) and their types (`group type`). */
import type { Command } from 'commander';
import { Failure } from '../../base/errors.ts';
import { type Context, collect, withContext } from '../context.ts';
import { type Json, maybeText, member, members, text } from '../decode.ts';
import { find, type Kind, listAll, pathOf, waitFor } from '../objects.ts';
import type { Row } from '../print.ts';

const LIST_COLUMNS = ['id', 'name', 'status', 'created'];
const DEFAULT_VOLUME_TYPE = '__DEFAULT__';

function row(found: Json): Row {
  const volumes = found['volumes'];
  return {
    id: text(found, 'id'),
    name: maybeText(found, 'name'),
    status: text(found, 'status'),
    created: text(found, 'created_at').slice(0, 19),
    description: maybeText(found, 'description'),
    ...(Array.isArray(volumes) && { volumes: volumes.join(' ') || null }),
    ...('group_id' in found && { group: text(found, 'group_id') }),
  };
}

async function printGroup({ client, printer }: Context, reference: string): Promise<void> {
  const id = text(await find(client, 'group', reference), 'id');
  const found = member(await client.get(`${pathOf('group', id)}?list_volume=true`), 'group');
  printer.object({ fields: row(found), raw: found });
}

async function settled({ client, shouldWait, signal }: Context, about: { kind: Kind; id: string; what: string }) {
  if (shouldWait) await waitFor({ client, ...about, until: 'settled', signal });
}

type CreateFlags = { type?: string; volumeType?: string[]; fromGroup?: string; fromSnapshot?: string };

async function create(context: Context, name: string, flags: CreateFlags): Promise<void> {
  const { client } = context;
  const ways = [flags.type, flags.fromGroup, flags.fromSnapshot].filter((way) => way !== undefined);
  if (ways.length !== 1) {
    const reason = 'A group is made by exactly one of --type, --from-group and --from-snapshot.';
    throw new Failure('bad_request', { reason });
  }
  const made = member(await requestGroup(client, name, flags), 'group');
  const id = text(made, 'id');
  await settled(context, { kind: 'group', id, what: `Creating group ${name}` });
  await printGroup(context, id);
}

async function requestGroup(client: Context['client'], name: string, flags: CreateFlags): Promise<Json | null> {
  if (flags.type !== undefined) {
    const volume_types = flags.volumeType ?? [DEFAULT_VOLUME_TYPE];
    return client.request('POST', '/groups', { group: { name, group_type: flags.type, volume_types } });
  }
  const source =
    flags.fromGroup !== undefined
      ? { source_group_id: text(await find(client, 'group', flags.fromGroup), 'id') }
      : { group_snapshot_id: text(await find(client, 'group snapshot', flags.fromSnapshot ?? ''), 'id') };
  return client.request('POST', '/groups/action', { 'create-from-src': { name, ...source } });
}

async function change(
  context: Context,
  wanted: { group: string; volumes: readonly string[]; key: 'add_volumes' | 'remove_volumes' },
): Promise<void> {
  const { client } = context;
  const id = text(await find(client, 'group', wanted.group), 'id');
  const ids: string[] = [];
  for (const volume of wanted.volumes) ids.push(text(await find(client, 'volume', volume), 'id'));
  await client.request('PUT', pathOf('group', id), { group: { [wanted.key]: ids.join(',') } });
  await printGroup(context, id);
}

async function remove(context: Context, references: readonly string[], withVolumes: boolean): Promise<void> {
  const { client, shouldWait, signal } = context;
  for (const reference of references) {
    const id = text(await find(client, 'group', reference), 'id');
    await client.request('POST', `${pathOf('group', id)}/action`, { delete: { 'delete-volumes': withVolumes } });
    if (shouldWait) await waitFor({ client, kind: 'group', id, what: 'Deleting', until: 'gone', signal });
  }
}

async function list({ client, printer }: Context, kind: Kind): Promise<void> {
  const found = await listAll(client, kind, {});
  printer.list({ columns: LIST_COLUMNS, rows: found.map(row), raw: found });
}

export function registerGroup(program: Command): void {
  const group = program.command('group').description('groups of volumes, snapshotted and copied together');
  group
    .command('create')
    .description('make an empty group, or a copy of a group or of a snapshot of one')
    .argument('<name>')
    .option('--type <type>', 'id or name of the group type')
    .option('--volume-type <type>', 'a type its volumes may have; repeatable', collect)
    .option('--from-group <group>', 'id or name')
    .option('--from-snapshot <snapshot>', 'id or name of a group snapshot')
    .action((name: string, flags: CreateFlags, command: Command) =>
      withContext(command, (context) => create(context, name, flags)),
    );
  group
    .command('list')
    .description('list groups')
    .action((_, command: Command) => withContext(command, (context) => list(context, 'group')));
  group
    .command('show')
    .description('show a group with its volumes')
    .argument('<group>', 'id or name')
    .action((reference: string, _, command: Command) =>
      withContext(command, (context) => printGroup(context, reference)),
    );
  for (const [verb, key] of [
    ['add', 'add_volumes'],
    ['remove', 'remove_volumes'],
  ] as const)
    group
      .command(verb)
      .description(verb === 'add' ? 'take volumes into a group' : 'take volumes out of a group; they stay')
      .argument('<group>', 'id or name')
      .argument('<volume...>', 'ids or names')
      .action((reference: string, volumes: string[], _, command: Command) =>
        withContext(command, (context) => change(context, { group: reference, volumes, key })),
      );
  group
    .command('delete')
    .description('delete groups')
    .argument('<group...>', 'ids or names')
    .option('--with-volumes', 'and their volumes')
    .action((references: string[], flags: { withVolumes?: boolean }, command: Command) =>
      withContext(command, (context) => remove(context, references, flags.withVolumes === true)),
    );
  registerSnapshots(group);
  registerTypes(group);
}

function registerSnapshots(group: Command): void {
  const snapshot = group.command('snapshot').description('snapshots of all volumes of a group');
  snapshot
    .command('create')
    .description('take a snapshot of each volume, also while they are in use')
    .argument('<group>', 'id or name')
    .argument('[name]')
    .action((reference: string, name: string | undefined, _, command: Command) =>
      withContext(command, async (context) => {
        const { client, printer } = context;
        const group_id = text(await find(client, 'group', reference), 'id');
        const group_snapshot = { group_id, ...(name === undefined ? {} : { name }) };
        const made = member(await client.request('POST', '/group_snapshots', { group_snapshot }), 'group_snapshot');
        const id = text(made, 'id');
        await settled(context, { kind: 'group snapshot', id, what: `Creating a snapshot of group ${reference}` });
        const found = await find(client, 'group snapshot', id);
        printer.object({ fields: row(found), raw: found });
      }),
    );
  snapshot
    .command('list')
    .description('list group snapshots')
    .action((_, command: Command) => withContext(command, (context) => list(context, 'group snapshot')));
  snapshot
    .command('show')
    .description('show one group snapshot')
    .argument('<snapshot>', 'id or name')
    .action((reference: string, _, command: Command) =>
      withContext(command, async ({ client, printer }) => {
        const found = await find(client, 'group snapshot', reference);
        printer.object({ fields: row(found), raw: found });
      }),
    );
  snapshot
    .command('delete')
    .description('delete group snapshots with all their parts')
    .argument('<snapshot...>', 'ids or names')
    .action((references: string[], _, command: Command) =>
      withContext(command, async ({ client, shouldWait, signal }) => {
        for (const reference of references) {
          const id = text(await find(client, 'group snapshot', reference), 'id');
          await client.request('DELETE', pathOf('group snapshot', id));
          if (shouldWait)
            await waitFor({ client, kind: 'group snapshot', id, what: 'Deleting', until: 'gone', signal });
        }
      }),
    );
}

function registerTypes(group: Command): void {
  const type = group.command('type').description('types of groups');
  const typeRow = (found: Json): Row => ({
    id: text(found, 'id'),
    name: text(found, 'name'),
    description: maybeText(found, 'description'),
  });
  type
    .command('create')
    .description('make a group type')
    .argument('<name>')
    .option('--consistent', 'snapshots and copies show all volumes at one instant')
    .action((name: string, flags: { consistent?: boolean }, command: Command) =>
      withContext(command, async ({ client, printer }) => {
        const group_specs = flags.consistent === true ? { consistent_group_snapshot_enabled: '<is> True' } : {};
        const body = { group_type: { name, group_specs } };
        const made = member(await client.request('POST', '/group_types', body), 'group_type');
        printer.object({ fields: typeRow(made), raw: made });
      }),
    );
  type
    .command('list')
    .description('list group types')
    .action((_, command: Command) =>
      withContext(command, async ({ client, printer }) => {
        const found = members(await client.get('/group_types'), 'group_types');
        printer.list({ columns: ['id', 'name', 'description'], rows: found.map(typeRow), raw: found });
      }),
    );
  type
    .command('delete')
    .description('delete group types that no group has')
    .argument('<type...>', 'ids or names')
    .action((references: string[], _, command: Command) =>
      withContext(command, async ({ client }) => {
        for (const reference of references) {
          const known = members(await client.get('/group_types?is_public=none'), 'group_types');
          const found = known.find((one) => text(one, 'id') === reference || text(one, 'name') === reference);
          if (found === undefined) throw new Failure('not_found', { kind: 'Group type', id: reference });
          await client.request('DELETE', `/group_types/${encodeURIComponent(text(found, 'id'))}`);
        }
      }),
    );
}
