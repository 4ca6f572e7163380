/** `quarry type …`: volume types, their extra specs, and who may use private ones. */
import type { Command } from 'commander';
import { Failure } from '../../base/errors.ts';
import { catalogPath, findInCatalogue, listCatalogue } from '../catalogue.ts';
import { type Context, collect, collectPair, withContext } from '../context.ts';
import { type Json, maybeText, member, members, object, text } from '../decode.ts';
import type { Row } from '../print.ts';

const LIST_COLUMNS = ['id', 'name', 'public', 'specs'];

function rowOf(type: Json): Row {
  return {
    id: text(type, 'id'),
    name: text(type, 'name'),
    public: type['is_public'] === true,
    specs: pairsOf(type, 'extra_specs'),
    description: maybeText(type, 'description'),
    qos: maybeText(type, 'qos_specs_id'),
  };
}

export function pairsOf(from: Json, key: string): string | null {
  const pairs = Object.entries(object(from[key] ?? {}, key)).map(([name, value]) => `${name}=${value}`);
  return pairs.length === 0 ? null : pairs.join(', ');
}

async function printType({ client, printer }: Context, id: string): Promise<void> {
  const type = member(await client.get(catalogPath('type', id)), 'volume_type');
  const access = type['is_public'] === true ? null : await projectsOf({ client }, id);
  const fields = { ...rowOf(type), ...(access === null ? {} : { projects: access.join(', ') || null }) };
  printer.object({ fields, raw: access === null ? type : { ...type, projects: access } });
}

async function projectsOf({ client }: Pick<Context, 'client'>, id: string): Promise<string[]> {
  const answer = await client.get(`${catalogPath('type', id)}/os-volume-type-access`);
  return members(answer, 'volume_type_access').map((line) => text(line, 'project_id'));
}

type Visibility = { public?: true; private?: true };

function visibilityOf(flags: Visibility): boolean | null {
  if (flags.public && flags.private)
    throw new Failure('bad_request', { reason: 'Only one of --public and --private can be given.' });
  if (flags.public) return true;
  return flags.private ? false : null;
}

type CreateFlags = Visibility & { description?: string; spec?: Record<string, string> };

async function create(context: Context, name: string, flags: CreateFlags): Promise<void> {
  const isPublic = visibilityOf(flags);
  const volume_type = {
    name,
    ...(flags.description === undefined ? {} : { description: flags.description }),
    ...(flags.spec === undefined ? {} : { extra_specs: flags.spec }),
    ...(isPublic === null ? {} : { 'os-volume-type-access:is_public': isPublic }),
  };
  const created = member(await context.client.request('POST', '/types', { volume_type }), 'volume_type');
  await printType(context, text(created, 'id'));
}

type SetFlags = CreateFlags & { name?: string; unset?: string[] };

async function set(context: Context, reference: string, flags: SetFlags): Promise<void> {
  if (Object.keys(flags).length === 0) {
    const reason = 'Nothing to set: give --name, --description, --public, --private, --spec or --unset.';
    throw new Failure('bad_request', { reason });
  }
  const { client } = context;
  const isPublic = visibilityOf(flags);
  const path = catalogPath('type', text(await findInCatalogue(client, 'type', reference), 'id'));
  const volume_type = {
    ...(flags.name === undefined ? {} : { name: flags.name }),
    ...(flags.description === undefined ? {} : { description: flags.description }),
    ...(isPublic === null ? {} : { is_public: isPublic }),
  };
  if (Object.keys(volume_type).length > 0) await client.request('PUT', path, { volume_type });
  if (flags.spec !== undefined) await client.request('POST', `${path}/extra_specs`, { extra_specs: flags.spec });
  for (const key of flags.unset ?? []) await client.request('DELETE', `${path}/extra_specs/${encodeURIComponent(key)}`);
  await printType(context, path.slice('/types/'.length));
}

async function share(
  context: Context,
  action: 'addProjectAccess' | 'removeProjectAccess',
  { reference, project }: { reference: string; project: string },
): Promise<void> {
  const id = text(await findInCatalogue(context.client, 'type', reference), 'id');
  await context.client.request('POST', `${catalogPath('type', id)}/action`, { [action]: { project } });
  await printType(context, id);
}

export function registerType(program: Command): void {
  const type = program.command('type').description('create, list, change, share and delete volume types');
  type
    .command('create')
    .description('make a volume type')
    .argument('<name>')
    .option('--description <text>')
    .option('--private', 'only for projects it is shared with')
    .option('--public', 'for all projects; the default')
    .option('--spec <key=value>', 'an extra spec; repeatable', collectPair)
    .action((name: string, flags: CreateFlags, command: Command) =>
      withContext(command, (context) => create(context, name, flags)),
    );
  type
    .command('list')
    .description('list volume types, private ones too')
    .action((_, command: Command) =>
      withContext(command, async ({ client, printer }) => {
        const types = await listCatalogue(client, 'type');
        printer.list({ columns: LIST_COLUMNS, rows: types.map(rowOf), raw: types });
      }),
    );
  type
    .command('show')
    .description('show one volume type')
    .argument('<type>', 'id or name')
    .action((reference: string, _, command: Command) =>
      withContext(command, async (context) =>
        printType(context, text(await findInCatalogue(context.client, 'type', reference), 'id')),
      ),
    );
  registerChanges(type);
}

function registerChanges(type: Command): void {
  type
    .command('set')
    .description('change a volume type; extra specs only while no volume is of it')
    .argument('<type>', 'id or name')
    .option('--name <name>')
    .option('--description <text>')
    .option('--public', 'for all projects')
    .option('--private', 'only for projects it is shared with')
    .option('--spec <key=value>', 'an extra spec; repeatable', collectPair)
    .option('--unset <key>', 'removes an extra spec; repeatable', collect)
    .action((reference: string, flags: SetFlags, command: Command) =>
      withContext(command, (context) => set(context, reference, flags)),
    );
  type
    .command('delete')
    .description('delete volume types that no volume is of')
    .argument('<type...>', 'ids or names')
    .action((references: string[], _, command: Command) =>
      withContext(command, async ({ client }) => {
        for (const reference of references)
          await client.request(
            'DELETE',
            catalogPath('type', text(await findInCatalogue(client, 'type', reference), 'id')),
          );
      }),
    );
  for (const [name, action, description] of [
    ['share', 'addProjectAccess', 'let a project use a private volume type'],
    ['unshare', 'removeProjectAccess', 'let a project no longer use a private volume type'],
  ] as const)
    type
      .command(name)
      .description(description)
      .argument('<type>', 'id or name')
      .argument('<project>', 'id')
      .action((reference: string, project: string, _, command: Command) =>
        withContext(command, (context) => share(context, action, { reference, project })),
      );
}
