/** `quarry qos …`: specs of quality of service, and the volume types whose volumes they limit. */
import { type Command, Option } from 'commander';
import { Failure } from '../../base/errors.ts';
import { catalogPath, findInCatalogue, listCatalogue } from '../catalogue.ts';
import { type Context, collect, collectPair, withContext } from '../context.ts';
import { type Json, member, members, text } from '../decode.ts';
import type { Row } from '../print.ts';
import { pairsOf } from './type.ts';

const LIST_COLUMNS = ['id', 'name', 'consumer', 'specs'];
const CONSUMERS = ['front-end', 'back-end', 'both'];

function rowOf(spec: Json): Row {
  return {
    id: text(spec, 'id'),
    name: text(spec, 'name'),
    consumer: text(spec, 'consumer'),
    specs: pairsOf(spec, 'specs'),
  };
}

async function printQos({ client, printer }: Context, id: string): Promise<void> {
  const spec = member(await client.get(catalogPath('qos', id)), 'qos_specs');
  const associations = members(await client.get(`${catalogPath('qos', id)}/associations`), 'qos_associations');
  const types = associations.map((line) => text(line, 'name')).join(', ') || null;
  printer.object({ fields: { ...rowOf(spec), types }, raw: { ...spec, associations } });
}

async function idOf({ client }: Context, kind: 'qos' | 'type', reference: string): Promise<string> {
  return text(await findInCatalogue(client, kind, reference), 'id');
}

type Flags = { consumer?: string; spec?: Record<string, string>; unset?: string[] };

function bodyOf(flags: Flags): Record<string, string> {
  return { ...(flags.consumer === undefined ? {} : { consumer: flags.consumer }), ...flags.spec };
}

async function create(context: Context, name: string, flags: Flags): Promise<void> {
  const body = { qos_specs: { ...bodyOf(flags), name } };
  const created = member(await context.client.request('POST', '/qos-specs', body), 'qos_specs');
  await printQos(context, text(created, 'id'));
}

async function set(context: Context, reference: string, flags: Flags): Promise<void> {
  if (Object.keys(flags).length === 0)
    throw new Failure('bad_request', { reason: 'Nothing to set: give --consumer, --spec or --unset.' });
  const id = await idOf(context, 'qos', reference);
  const path = catalogPath('qos', id);
  const body = bodyOf(flags);
  if (Object.keys(body).length > 0) await context.client.request('PUT', path, { qos_specs: body });
  if (flags.unset !== undefined)
    await context.client.request('PUT', `${path}/delete_keys`, { keys: [...new Set(flags.unset)] });
  await printQos(context, id);
}

async function disassociate(context: Context, reference: string, type: string | undefined): Promise<void> {
  const id = await idOf(context, 'qos', reference);
  const path = catalogPath('qos', id);
  // By GET: so the protocol has it.
  if (type === undefined) await context.client.request('GET', `${path}/disassociate_all`);
  else {
    const typeId = await idOf(context, 'type', type);
    await context.client.request('GET', `${path}/disassociate?vol_type_id=${typeId}`);
  }
  await printQos(context, id);
}

export function registerQos(program: Command): void {
  const qos = program
    .command('qos')
    .description('create, list, change, associate and delete specs of quality of service');
  const consumer = () => new Option('--consumer <who>', 'who enforces it (default back-end)').choices(CONSUMERS);
  qos
    .command('create')
    .description('make a spec: total_iops_sec=1000, read_bytes_sec=…, write_iops_sec_per_gb=…')
    .argument('<name>')
    .addOption(consumer())
    .option('--spec <key=value>', 'repeatable', collectPair)
    .action((name: string, flags: Flags, command: Command) =>
      withContext(command, (context) => create(context, name, flags)),
    );
  qos
    .command('list')
    .description('list specs')
    .action((_, command: Command) =>
      withContext(command, async ({ client, printer }) => {
        const specs = await listCatalogue(client, 'qos');
        printer.list({ columns: LIST_COLUMNS, rows: specs.map(rowOf), raw: specs });
      }),
    );
  qos
    .command('show')
    .description('show one spec and the volume types it limits')
    .argument('<qos>', 'id or name')
    .action((reference: string, _, command: Command) =>
      withContext(command, async (context) => printQos(context, await idOf(context, 'qos', reference))),
    );
  qos
    .command('set')
    .description('change a spec; the volumes it limits follow at once')
    .argument('<qos>', 'id or name')
    .addOption(consumer())
    .option('--spec <key=value>', 'repeatable', collectPair)
    .option('--unset <key>', 'repeatable', collect)
    .action((reference: string, flags: Flags, command: Command) =>
      withContext(command, (context) => set(context, reference, flags)),
    );
  registerTypes(qos);
}

function registerTypes(qos: Command): void {
  qos
    .command('delete')
    .description('delete specs')
    .argument('<qos...>', 'ids or names')
    .option('--force', 'also while they limit volume types')
    .action((references: string[], flags: { force?: true }, command: Command) =>
      withContext(command, async (context) => {
        for (const reference of references) {
          const path = catalogPath('qos', await idOf(context, 'qos', reference));
          await context.client.request('DELETE', `${path}${flags.force ? '?force=true' : ''}`);
        }
      }),
    );
  qos
    .command('associate')
    .description('limit the volumes of a volume type')
    .argument('<qos>', 'id or name')
    .argument('<type>', 'id or name')
    .action((reference: string, type: string, _, command: Command) =>
      withContext(command, async (context) => {
        const id = await idOf(context, 'qos', reference);
        const typeId = await idOf(context, 'type', type);
        await context.client.request('GET', `${catalogPath('qos', id)}/associate?vol_type_id=${typeId}`);
        await printQos(context, id);
      }),
    );
  qos
    .command('disassociate')
    .description('no longer limit the volumes of a volume type, or of all')
    .argument('<qos>', 'id or name')
    .argument('[type]', 'id or name; all where it is left out')
    .action((reference: string, type: string | undefined, _, command: Command) =>
      withContext(command, (context) => disassociate(context, reference, type)),
    );
}
