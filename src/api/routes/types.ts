/**
 * Volume types: list, show, create, change, delete. What hangs on them is in type-details.ts.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import {
  allTypes,
  createType,
  defaultTypeOf,
  deleteType,
  getType,
  sharedTypes,
  updateType,
  type VolumeType,
  withSpecs,
} from '../../control/types.ts';
import { param } from '../asked.ts';
import { badRequest } from '../faults.ts';
import { type Line, pageOfLines } from '../pages.ts';
import { dictionaryOf, one, pageOf, type Query, type Words } from '../query.ts';
import { CreateType, UpdateType } from '../schemas/types.ts';
import { booleanOf, checked } from '../schemas.ts';
import type { RouteContext } from '../server.ts';
import { isUserVisible, typeView } from '../views/types.ts';
import { nextLink } from '../views.ts';

type TypeColumn = 'id' | 'name' | 'description' | 'is_public' | 'qos_specs_id' | 'created_at' | 'updated_at';

const WORDS: Words<TypeColumn> = {
  filters: {
    id: { kind: 'text', column: 'id' },
    name: { kind: 'text', column: 'name' },
    description: { kind: 'text', column: 'description' },
    qos_specs_id: { kind: 'text', column: 'qos_specs_id' },
    extra_specs: { kind: 'metadata', scope: 'user' },
  },
  sort: {
    id: 'id',
    name: 'name',
    description: 'description',
    is_public: 'is_public',
    qos_specs_id: 'qos_specs_id',
    created_at: 'created_at',
    updated_at: 'updated_at',
  },
};

export function typeRoutes(app: FastifyInstance, context: RouteContext): void {
  const { control } = context;

  app.get('/types', { config: { list: WORDS, query: ['is_public'] } }, async (request) => list(request, context));

  app.get('/types/default', async (request) => {
    const { reader } = control.catalog;
    const type = await withSpecs(reader, await defaultTypeOf(reader, request.asked.caller.projectId));
    return { volume_type: typeView(request.asked, type, 'read') };
  });

  app.get('/types/:id', { config: { hasEtag: true } }, async (request) => {
    const type = await getType(control, request.asked.caller, param(request, 'id'));
    return { volume_type: typeView(request.asked, type, 'read') };
  });

  app.post(
    '/types',
    { config: { rule: 'volume_extension:type_create', body: CreateType, status: 200 } },
    async (request) => {
      const { volume_type: body } = checked(request, CreateType, request.body);
      const isPublic = body['os-volume-type-access:is_public'];
      const type = await createType(control, request.asked.caller, {
        name: body.name,
        description: body.description ?? null,
        isPublic: isPublic === undefined ? true : booleanOf(isPublic) === true,
        extraSpecs: withoutNulls(body.extra_specs ?? {}),
      });
      return { volume_type: typeView(request.asked, type, 'created') };
    },
  );

  app.put('/types/:id', { config: { rule: 'volume_extension:type_update', body: UpdateType } }, async (request) => {
    const { volume_type: body } = checked(request, UpdateType, request.body);
    const update = {
      name: body.name ?? null,
      description: body.description ?? null,
      isPublic: body.is_public === undefined ? null : booleanOf(body.is_public) === true,
    };
    const type = await updateType(control, request.asked.caller, { id: param(request, 'id'), update });
    return { volume_type: typeView(request.asked, type, 'updated') };
  });

  app.delete('/types/:id', { config: { rule: 'volume_extension:type_delete' } }, async (request, reply) => {
    await deleteType(control, request.asked.caller, param(request, 'id'));
    return reply.code(202).send();
  });
}

/** Clients send null for what they leave unset. */
function withoutNulls(specs: Readonly<Record<string, string | null>>): Record<string, string> {
  const set = Object.entries(specs).filter((entry): entry is [string, string] => entry[1] !== null);
  return Object.fromEntries(set);
}

async function list(request: FastifyRequest, { control }: RouteContext) {
  const { asked } = request;
  const { is_public: asksPublic, ...query } = request.query as Record<string, string | string[] | undefined>;
  const isPublic = isPublicOf(asked.caller.isAdmin ? one({ asksPublic }, 'asksPublic') : undefined);
  // Before 3.52 a user's other filters are dropped.
  const words = asked.caller.isAdmin || asked.minor >= 52 ? query : pick(query, PAGE_WORDS);
  const page = pageOf(words, asked, WORDS);
  const hidden = hiddenSpec(words, asked.caller.isAdmin);
  const shared = await sharedTypes(control, asked.caller.projectId);
  const types = (await allTypes(control, asked.caller)).filter((type) => {
    if (hidden) return false;
    if (isPublic === null) return true;
    return isPublic ? type.isPublic || shared.has(type.id) : !type.isPublic;
  });
  const found = pageOfLines(types.map(lineOf), page, 'Volume type');
  const items = found.map((type) => typeView(asked, type, 'read'));
  return { volume_types: items, ...nextLink(request, { collection: 'volume_type', limit: page.limit, items }) };
}

const PAGE_WORDS = ['limit', 'marker', 'offset', 'sort', 'sort_key', 'sort_dir'];

function pick(query: Query, names: readonly string[]): Query {
  return Object.fromEntries(Object.entries(query).filter(([name]) => names.includes(name)));
}

/** A user who filters by a spec that he may not see finds nothing, whatever there is. */
function hiddenSpec(query: Query, isAdmin: boolean): boolean {
  const specs = one(query, 'extra_specs');
  if (isAdmin || specs === undefined) return false;
  return dictionaryOf('extra_specs', specs).some(([key]) => !isUserVisible(key));
}

/** Null: public and private ones. */
function isPublicOf(text: string | undefined): boolean | null {
  if (text === undefined) return true;
  if (text.toLowerCase() === 'none') return null;
  const value = booleanOf(text);
  if (value === null) throw badRequest(`Invalid input received: Invalid is_public filter [${text}]`);
  return value;
}

function lineOf(type: VolumeType): Line<TypeColumn, VolumeType> {
  return {
    item: type,
    columns: {
      id: type.id,
      name: type.name,
      description: type.description,
      is_public: type.isPublic ? 1 : 0,
      qos_specs_id: type.qosSpecId,
      created_at: type.createdAt,
      updated_at: type.updatedAt,
    },
    entries: type.extraSpecs,
  };
}
