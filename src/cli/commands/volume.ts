/** `quarry volume …`: flags in, requests out, results printed. Rules about volumes are the daemon's. */
import type { Command } from 'commander';
import { Failure } from '../../base/errors.ts';
import { type Context, collect, collectPair, withContext } from '../context.ts';
import { type Json, maybeText, member, members, number, object, text } from '../decode.ts';
import { OperationFailed } from '../failure.ts';
import { find, listAll, pathOf, reasonFor, waitFor } from '../objects.ts';
import type { Row } from '../print.ts';
import { formatBytes, parseSizeGib } from '../sizes.ts';
import { registerAttach } from './attach.ts';
import { printRanges } from './ranges.ts';
import { spaceFields } from './space.ts';

const LIST_COLUMNS = ['id', 'name', 'status', 'size', 'created'];

function listRow(volume: Json): Row {
  return {
    id: text(volume, 'id'),
    name: maybeText(volume, 'name'),
    status: text(volume, 'status'),
    size: `${number(volume, 'size')} GiB`,
    created: text(volume, 'created_at').slice(0, 19),
    type: maybeText(volume, 'volume_type'),
    description: maybeText(volume, 'description'),
  };
}

function pairs(from: Json, key: string): string | null {
  const entries = Object.entries(object(from[key] ?? {}, key)).map(([name, value]) => `${name}=${value}`);
  return entries.length === 0 ? null : entries.join(', ');
}

export async function exportsOf(context: Context, kind: 'volume' | 'snapshot', id: string): Promise<Json[]> {
  return members(await context.client.get(`/quarry${pathOf(kind, id)}/exports`), 'exports');
}

/** One URI, the first under the object's own id where there is such a name: that one never changes. */
export async function uriOf(context: Context, kind: 'volume' | 'snapshot', id: string): Promise<string> {
  const exports = await exportsOf(context, kind, id);
  const [first] = [...exports].sort((a, b) => Number(text(b, 'name') === id) - Number(text(a, 'name') === id));
  if (first === undefined) {
    const reason = `The ${kind} ${id} is not exported over NBD at the moment. Its status: quarry ${kind} show ${id}`;
    throw new Failure('wrong_state', { reason });
  }
  return text(first, 'uri');
}

export async function printUris(context: Context, kind: 'volume' | 'snapshot', reference: string): Promise<void> {
  const { client, printer } = context;
  const found = await find(client, kind, reference);
  const exports = await exportsOf(context, kind, text(found, 'id'));
  if (printer.format === 'json') {
    printer.json(exports);
    return;
  }
  // For the message, when there is none.
  if (exports.length === 0) await uriOf(context, kind, text(found, 'id'));
  for (const item of exports) printer.line(text(item, 'uri'));
}

async function printVolume(context: Context, id: string): Promise<void> {
  const { client, printer } = context;
  const volume = await find(client, 'volume', id);
  const usage = member(await client.get(`/quarry${pathOf('volume', text(volume, 'id'))}/usage`), 'usage');
  const exports = await exportsOf(context, 'volume', text(volume, 'id'));
  const snapshotId = maybeText(volume, 'snapshot_id');
  const sourceId = maybeText(volume, 'source_volid');
  const fields: Record<string, Row[string]> = {
    ...listRow(volume),
    ...spaceFields(usage),
    source: snapshotId !== null ? `snapshot ${snapshotId}` : sourceId !== null ? `volume ${sourceId}` : null,
    metadata: pairs(volume, 'metadata'),
    connections: number(usage, 'connections'),
    uri: exports.map((item) => text(item, 'uri')).join(' ') || null,
  };
  const filling = usage['filling'] ?? null;
  if (filling !== null) fields['filling'] = fillingOf(object(filling, 'filling'));
  const failed = maybeText(usage, 'failed');
  if (failed !== null) fields['failed'] = failed;
  printer.object({ fields, raw: { ...volume, usage, exports } });
}

function fillingOf(filling: Readonly<Record<string, unknown>>): string {
  const [done, total] = [number(filling, 'done_bytes'), number(filling, 'total_bytes')];
  const share = `${formatBytes(done)} of ${formatBytes(total)}`;
  const failure = maybeText(filling, 'failure');
  return failure === null ? share : `${share}; ${failure}`;
}

type CreateFlags = {
  size?: string;
  type?: string;
  fromSnapshot?: string;
  fromVolume?: string;
  fromBackup?: string;
  image?: string;
  nbdCertificates?: string;
  description?: string;
  metadata?: Record<string, string>;
};

async function createFlagsToBody(context: Context, name: string, flags: CreateFlags): Promise<Json> {
  const { client } = context;
  const sources = [flags.fromSnapshot, flags.fromVolume, flags.fromBackup, flags.image].filter(
    (source) => source !== undefined,
  );
  if (sources.length > 1) {
    throw new Failure('bad_request', {
      reason: 'Only one of --from-snapshot, --from-volume, --from-backup and --image can be given.',
    });
  }
  if (sources.length === 0 && flags.size === undefined) {
    throw new Failure('bad_request', { reason: 'How large? Give --size, for example --size 10GiB.' });
  }
  const snapshot = flags.fromSnapshot === undefined ? null : await find(client, 'snapshot', flags.fromSnapshot);
  const source = flags.fromVolume === undefined ? null : await find(client, 'volume', flags.fromVolume);
  const backup = flags.fromBackup === undefined ? null : await find(client, 'backup', flags.fromBackup);
  return {
    name,
    ...(flags.size === undefined ? {} : { size: parseSizeGib(flags.size) }),
    ...(flags.type === undefined ? {} : { volume_type: flags.type }),
    ...(snapshot === null ? {} : { snapshot_id: text(snapshot, 'id') }),
    ...(source === null ? {} : { source_volid: text(source, 'id') }),
    ...(backup === null ? {} : { backup_id: text(backup, 'id') }),
    ...(flags.description === undefined ? {} : { description: flags.description }),
    ...(flags.metadata === undefined ? {} : { metadata: flags.metadata }),
  };
}

/** Sends the request; waits for the end unless told otherwise. Returns the id. */
export async function createVolume(context: Context, volume: Json): Promise<string> {
  const { client, signal } = context;
  const created = member(await client.request('POST', '/volumes', { volume }), 'volume');
  const id = text(created, 'id');
  if (context.shouldWait) {
    const what = `Creating volume ${maybeText(created, 'name') ?? id}`;
    await waitFor({ client, kind: 'volume', id, what, until: 'settled', signal });
  }
  return id;
}

export async function deleteVolume(context: Context, id: string, options: { cascade: boolean }): Promise<void> {
  const { client, signal } = context;
  await client.request('DELETE', `${pathOf('volume', id)}${options.cascade ? '?cascade=true' : ''}`);
  if (!context.shouldWait) return;
  await waitFor({ client, kind: 'volume', id, what: 'Deleting', until: 'gone', signal });
}

async function create(context: Context, name: string, flags: CreateFlags): Promise<void> {
  const body = await createFlagsToBody(context, name, flags);
  if (flags.image === undefined) {
    await printVolume(context, await createVolume(context, body));
    return;
  }
  const { createFromImage } = await import('./image.ts');
  await printVolume(
    context,
    await createFromImage(context, { body, path: flags.image, certificates: flags.nbdCertificates }),
  );
}

type SetFlags = {
  name?: string;
  description?: string;
  metadata?: Record<string, string>;
  unset?: string[];
  readonly?: string;
};

function flagOf(word: string): boolean {
  if (word === 'on' || word === 'off') return word === 'on';
  throw new Failure('bad_request', { reason: `--readonly is '${word}', but must be on or off.` });
}

async function set(context: Context, reference: string, flags: SetFlags): Promise<void> {
  const { client } = context;
  if (Object.keys(flags).length === 0) {
    throw new Failure('bad_request', {
      reason: 'Nothing to set: give --name, --description, --metadata, --unset or --readonly.',
    });
  }
  const readonly = flags.readonly === undefined ? null : flagOf(flags.readonly);
  const id = text(await find(client, 'volume', reference), 'id');
  const { name, description } = flags;
  if (name !== undefined || description !== undefined) {
    const volume = { ...(name === undefined ? {} : { name }), ...(description === undefined ? {} : { description }) };
    await client.request('PUT', pathOf('volume', id), { volume });
  }
  if (flags.metadata !== undefined) {
    await client.request('POST', `${pathOf('volume', id)}/metadata`, { metadata: flags.metadata });
  }
  for (const key of flags.unset ?? []) {
    await client.request('DELETE', `${pathOf('volume', id)}/metadata/${encodeURIComponent(key)}`);
  }
  if (readonly !== null) {
    await client.request('POST', `${pathOf('volume', id)}/action`, { 'os-update_readonly_flag': { readonly } });
  }
  await printVolume(context, id);
}

async function act(context: Context, id: string, action: Json, what: string): Promise<void> {
  const { client, signal } = context;
  await client.request('POST', `${pathOf('volume', id)}/action`, action);
  if (context.shouldWait) await waitFor({ client, kind: 'volume', id, what, until: 'settled', signal });
  await printVolume(context, id);
}

/** One that fails leaves no status to see it by: the volume is as it was, of its old type. */
async function retype(context: Context, reference: string, type: string): Promise<void> {
  const { client, shouldWait, signal } = context;
  const before = await find(client, 'volume', reference);
  const id = text(before, 'id');
  const action = { 'os-retype': { new_type: type, migration_policy: 'never' } };
  await client.request('POST', `${pathOf('volume', id)}/action`, action);
  const what = `Changing the type of volume ${reference}`;
  if (shouldWait) {
    const after = await waitFor({ client, kind: 'volume', id, what, until: 'settled', signal });
    if (after !== null && text(after, 'volume_type_id') === text(before, 'volume_type_id'))
      throw new OperationFailed(
        `${what} failed: it kept type ${text(before, 'volume_type')}${await reasonFor(client, id)}.`,
      );
  }
  await printVolume(context, id);
}

async function list(context: Context, flags: { status?: string; name?: string; allProjects?: true }): Promise<void> {
  const query = {
    ...(flags.status === undefined ? {} : { status: flags.status }),
    ...(flags.name === undefined ? {} : { name: flags.name }),
    ...(flags.allProjects === undefined ? {} : { all_tenants: '1' }),
  };
  const volumes = await listAll(context.client, 'volume', query);
  context.printer.list({ columns: LIST_COLUMNS, rows: volumes.map(listRow), raw: volumes });
}

type ExportFlags = { overwrite?: true; nbdCertificates?: string };

const NBD_CERTIFICATES =
  'where NBD is under TLS: ca-cert.pem and, where one has to be shown, client-cert.pem with client-key.pem (QUARRY_NBD_CERTIFICATES)';

export function registerVolume(program: Command): void {
  const volume = program.command('volume').description('create, list, change, copy and delete volumes');
  volume
    .command('create')
    .description(
      'create a volume: empty, from a snapshot or volume (at once, sharing its space), or from an image file',
    )
    .argument('<name>')
    .option('--size <size>', 'whole GiB: 10, 10GiB, 2TiB; with a source at least its size, which is the default')
    .option('--type <type>', 'volume type, by id or name; otherwise the source’s or the default')
    .option('--from-snapshot <snapshot>', 'content of this snapshot')
    .option('--from-volume <volume>', 'content of this volume, as it is now')
    .option('--from-backup <backup>', 'content of this backup')
    .option('--image <file>', 'content of this raw or qcow2 image')
    .option('--nbd-certificates <folder>', NBD_CERTIFICATES)
    .option('--description <text>')
    .option('--metadata <key=value>', 'repeatable', collectPair)
    .action((name: string, flags: CreateFlags, command: Command) =>
      withContext(command, (context) => create(context, name, flags)),
    );
  volume
    .command('list')
    .description('list volumes')
    .option('--status <status>', 'only those in this status')
    .option('--name <name>', 'only those of this name')
    .option('--all-projects', 'of every project')
    .action((flags, command: Command) => withContext(command, (context) => list(context, flags)));
  volume
    .command('show')
    .description('show one volume')
    .argument('<volume>', 'id or name')
    .action((reference: string, _, command: Command) =>
      withContext(command, (context) => printVolume(context, reference)),
    );
  volume
    .command('set')
    .description('change name, description, metadata or whether it may be written')
    .argument('<volume>', 'id or name')
    .option('--name <name>')
    .option('--description <text>')
    .option('--metadata <key=value>', 'repeatable', collectPair)
    .option('--unset <key>', 'remove this metadata key; repeatable', collect)
    .option('--readonly <on|off>', 'off again with off; only while nobody uses it')
    .action((reference: string, flags: SetFlags, command: Command) =>
      withContext(command, (context) => set(context, reference, flags)),
    );
  registerActions(volume);
  registerAttach(volume);
}

function registerActions(volume: Command): void {
  volume
    .command('extend')
    .description('make a volume larger, also while it is in use')
    .argument('<volume>', 'id or name')
    .argument('<size>', 'the new size: 20, 20GiB, 2TiB')
    .action((reference: string, size: string, _, command: Command) =>
      withContext(command, async (context) => {
        const newSize = parseSizeGib(size);
        const id = text(await find(context.client, 'volume', reference), 'id');
        await act(context, id, { 'os-extend': { new_size: newSize } }, `Extending volume ${reference}`);
      }),
    );
  volume
    .command('retype')
    .description('give a volume another type; its data stay as they are')
    .argument('<volume>', 'id or name')
    .argument('<type>', 'id or name')
    .action((reference: string, type: string, _, command: Command) =>
      withContext(command, (context) => retype(context, reference, type)),
    );
  volume
    .command('delete')
    .description('delete volumes')
    .argument('<volume...>', 'ids or names')
    .option('--cascade', 'and their snapshots')
    .action((references: string[], flags: { cascade?: true }, command: Command) =>
      withContext(command, async (context) => {
        for (const reference of references) {
          const id = text(await find(context.client, 'volume', reference), 'id');
          await deleteVolume(context, id, { cascade: flags.cascade === true });
        }
      }),
    );
  volume
    .command('revert')
    .description('give a volume the content of its newest snapshot again')
    .argument('<volume>', 'id or name')
    .argument('<snapshot>', 'id or name')
    .action((reference: string, snapshotReference: string, _, command: Command) =>
      withContext(command, async (context) => {
        const id = text(await find(context.client, 'volume', reference), 'id');
        const snapshotId = text(await find(context.client, 'snapshot', snapshotReference), 'id');
        await act(context, id, { revert: { snapshot_id: snapshotId } }, `Reverting volume ${reference}`);
      }),
    );
  volume
    .command('uri')
    .description('print the NBD URIs of a volume, one a line')
    .argument('<volume>', 'id or name')
    .action((reference: string, _, command: Command) =>
      withContext(command, (context) => printUris(context, 'volume', reference)),
    );
  volume
    .command('map')
    .description('print which ranges of a volume hold data')
    .argument('<volume>', 'id or name')
    .action((reference: string, _, command: Command) =>
      withContext(command, async (context) => {
        const id = text(await find(context.client, 'volume', reference), 'id');
        printRanges(context.printer, await context.client.get(`/quarry${pathOf('volume', id)}/map`));
      }),
    );
  volume
    .command('export')
    .description('write a volume into a raw file, with holes where it has none but zeros')
    .argument('<volume>', 'id or name')
    .argument('<file>', 'appears when it is complete')
    .option('--overwrite', 'replace the file if there is one')
    .option('--nbd-certificates <folder>', NBD_CERTIFICATES)
    .action((reference: string, path: string, flags: ExportFlags, command: Command) =>
      withContext(command, async (context) => {
        const volumeFound = await find(context.client, 'volume', reference);
        const { exportToFile } = await import('./image.ts');
        const { nbdCertificates: certificates } = flags;
        const overwrite = flags.overwrite === true;
        await exportToFile(context, { volume: volumeFound, path, overwrite, certificates });
      }),
    );
}
