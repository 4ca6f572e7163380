/**
 * Volumes: list, show, create, update, delete, summary. Shapes in, one call into control, a view out.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { Failure } from '../../base/errors.ts';
import type { VolumeColumn } from '../../catalog/volumes.ts';
import { enforce } from '../../control/policy.ts';
import { isAt } from '../../control/pools.ts';
import {
  countVolumes,
  createVolume,
  deleteVolume,
  getVolume,
  listVolumeRows,
  listVolumes,
  type NewVolume,
  summarizeMetadata,
  updateVolume,
  type VolumeSource,
} from '../../control/volumes.ts';
import { param } from '../asked.ts';
import { badRequest, Fault } from '../faults.ts';
import { flag, pageOf, type Query, selectionOf, type Words } from '../query.ts';
import {
  booleanOf,
  CreateVolume,
  CreateVolumeStrict,
  checked,
  gibOf,
  idOf,
  UpdateVolume,
  UpdateVolumeStrict,
} from '../schemas.ts';
import type { RouteContext } from '../server.ts';
import { nextLink, type Place, volumeSummary, volumeView } from '../views.ts';

const STRICT_SINCE = 53;

const WORDS: Words<VolumeColumn> = {
  resource: 'volume',
  filters: {
    id: { kind: 'text', column: 'id' },
    name: { kind: 'text', column: 'name' },
    display_name: { kind: 'text', column: 'name' },
    description: { kind: 'text', column: 'description' },
    display_description: { kind: 'text', column: 'description' },
    status: { kind: 'text', column: 'status' },
    size: { kind: 'number', column: 'size_gib' },
    availability_zone: { kind: 'text', column: 'availability_zone' },
    bootable: { kind: 'truth', column: 'bootable' },
    volume_type_id: { kind: 'text', column: 'type_id' },
    snapshot_id: { kind: 'text', column: 'snapshot_id' },
    source_volid: { kind: 'text', column: 'source_volume_id' },
    project_id: { kind: 'text', column: 'project_id' },
    tenant_id: { kind: 'text', column: 'project_id' },
    user_id: { kind: 'text', column: 'user_id' },
    created_at: { kind: 'time', column: 'created_at' },
    updated_at: { kind: 'time', column: 'updated_at' },
    metadata: { kind: 'metadata', scope: 'user' },
    glance_metadata: { kind: 'metadata', scope: 'image' },
    migration_status: { kind: 'constant', value: null },
    group_id: { kind: 'text', column: 'group_id' },
    consumes_quota: { kind: 'constant', value: 'true' },
    multiattach: { kind: 'truth', column: 'multiattach' },
    encrypted: { kind: 'constant', value: 'false' },
  },
  sort: {
    id: 'id',
    name: 'name',
    display_name: 'name',
    status: 'status',
    size: 'size_gib',
    created_at: 'created_at',
    launched_at: 'created_at',
    updated_at: 'updated_at',
    availability_zone: 'availability_zone',
    bootable: 'bootable',
    user_id: 'user_id',
    project_id: 'project_id',
    volume_type_id: 'type_id',
    host: null,
    attach_status: 'status',
  },
};

/** All volumes are on one host: a filter by it takes all or none. */
function wordsAt({ host }: Place): Words<VolumeColumn> {
  return { ...WORDS, filters: { ...WORDS.filters, host: { kind: 'matched', matches: (at) => isAt(host, at) } } };
}

export function volumeRoutes(app: FastifyInstance, context: RouteContext): void {
  const { control, place } = context;
  const words = wordsAt(place);

  app.get('/volumes', { config: { list: words } }, async (request) =>
    list(request, context, { words, isDetailed: false }),
  );
  app.get('/volumes/detail', { config: { list: words } }, async (request) =>
    list(request, context, { words, isDetailed: true }),
  );

  app.get('/volumes/summary', { config: { since: 12, list: words } }, async (request) => {
    const selection = selectionOf(request.query as Query, request.asked, words);
    const { count, sizeGib } = await countVolumes(control, selection);
    const metadata = request.asked.minor < 36 ? null : await summarizeMetadata(control, selection);
    return {
      'volume-summary': {
        total_count: count,
        total_size: sizeGib,
        ...(metadata !== null && { metadata: Object.fromEntries(metadata) }),
      },
    };
  });

  app.post(
    '/volumes',
    { config: { rule: 'volume:create', body: [CreateVolume, CreateVolumeStrict] } },
    async (request, reply) => {
      const volume = await createVolume(control, request.asked.caller, newVolumeOf(request));
      return reply.code(202).send({ volume: volumeView(request.asked, volume, { place, form: 'created' }) });
    },
  );

  app.get('/volumes/:id', { config: { hasEtag: true } }, async (request) => {
    const volume = await getVolume(control, request.asked.caller, param(request, 'id'));
    return { volume: volumeView(request.asked, volume, { place, form: 'full' }) };
  });

  app.put(
    '/volumes/:id',
    { config: { rule: 'volume:update', body: [UpdateVolume, UpdateVolumeStrict] } },
    async (request) => {
      const schema = request.asked.minor >= STRICT_SINCE ? UpdateVolumeStrict : UpdateVolume;
      const { volume: body } = checked(request, schema, request.body);
      const name = body.name === undefined ? body.display_name : body.name;
      const description = body.description === undefined ? body.display_description : body.description;
      const update = {
        ...(name !== undefined && { name: trimmed(name) }),
        ...(description !== undefined && { description: trimmed(description) }),
        ...(body.metadata != null && { metadata: new Map(Object.entries(body.metadata)) }),
      };
      const volume = await updateVolume(control, request.asked.caller, { id: param(request, 'id'), update });
      return { volume: volumeView(request.asked, volume, { place, form: 'created' }) };
    },
  );

  app.delete(
    '/volumes/:id',
    { config: { rule: 'volume:delete', query: ['cascade', 'force'] } },
    async (request, reply) => {
      const query = request.query as Query;
      const force = request.asked.minor >= 23 && flag(query, 'force');
      if (force) enforce(request.asked.caller, 'volume:force_delete');
      const wanted = { id: param(request, 'id'), cascade: flag(query, 'cascade'), force };
      await deleteVolume(control, request.asked.caller, wanted);
      return reply.code(202).send();
    },
  );

  // Nothing is encrypted by us; compute services ask at every attachment.
  app.get('/volumes/:id/encryption', async (request) => {
    await getVolume(control, request.asked.caller, param(request, 'id'));
    return { encryption_key_id: null };
  });
  app.get('/volumes/:id/encryption/:key', async (request, reply) => {
    await getVolume(control, request.asked.caller, param(request, 'id'));
    return reply.type('application/json').send('null');
  });
}

async function list(
  request: FastifyRequest,
  context: RouteContext,
  { words, isDetailed }: { words: Words<VolumeColumn>; isDetailed: boolean },
) {
  const { control, place } = context;
  const page = pageOf(request.query as Query, request.asked, words);
  const items = isDetailed
    ? (await listVolumes(control, page)).map((volume) => volumeView(request.asked, volume, { place, form: 'full' }))
    : (await listVolumeRows(control, page)).map((row) => volumeSummary(request.asked, row));
  const count = page.withCount ? (await countVolumes(control, page)).count : null;
  return {
    volumes: items,
    ...nextLink(request, { collection: 'volumes', limit: page.limit, items }),
    ...(count !== null && { count }),
  };
}

function newVolumeOf(request: FastifyRequest): NewVolume {
  const { minor } = request.asked;
  const { volume: body } = checked(request, minor >= STRICT_SINCE ? CreateVolumeStrict : CreateVolume, request.body);
  const image = body.imageRef ?? body.image_id ?? null;
  const backup = minor >= 47 ? (body.backup_id ?? null) : null;
  const named = [body.snapshot_id, body.source_volid, image, backup].filter(
    (source) => source != null && source !== '',
  );
  if (named.length > 1) {
    const message =
      'Invalid input received: Only one of snapshot_id, source_volid, imageRef and backup_id may be given.';
    throw badRequest(message);
  }
  refuseOtherSources({
    image,
    group: body.consistencygroup_id ?? null,
  });
  if (body.multiattach != null && booleanOf(body.multiattach) === true)
    throw badRequest('Invalid input received: multiattach comes from the volume type: use a type that has it.');
  return {
    name: trimmed(body.name ?? body.display_name ?? null),
    description: trimmed(body.description ?? body.display_description ?? null),
    sizeGib: body.size == null ? null : gibOf('size', body.size),
    type: body.volume_type ?? null,
    availabilityZone: body.availability_zone ?? null,
    metadata: new Map(Object.entries(body.metadata ?? {})),
    source: sourceOf({ snapshot: body.snapshot_id, volume: body.source_volid, backup }),
    groupId: minor >= 13 && body.group_id != null ? idOf(body.group_id) : null,
  };
}

type Sources = Readonly<Record<VolumeSource['kind'], string | null | undefined>>;

function sourceOf(sources: Sources): VolumeSource | null {
  for (const kind of ['snapshot', 'volume', 'backup'] as const) {
    const id = sources[kind];
    if (id != null) return { kind, id: idOf(id) };
  }
  return null;
}

function refuseOtherSources(from: { image: string | null; group: string | null }): void {
  if (from.image !== null && from.image !== '')
    throw new Fault(400, 'badRequest', 'Invalid image identifier or unable to access requested image.');
  if (from.group !== null) throw new Failure('not_found', { kind: 'ConsistencyGroup', id: from.group });
}

export function trimmed(text: string | null): string | null {
  return text === null ? null : text.trim();
}
