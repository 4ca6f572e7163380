/**
 * Group types and their specs. Members see public types, without specs.
 */
import type { FastifyInstance } from 'fastify';
import { Failure } from '../../base/errors.ts';
import type { GroupTypeColumn } from '../../catalog/group-types.ts';
import type { GroupTypeRow } from '../../catalog/schema.ts';
import {
  createGroupType,
  deleteGroupSpec,
  deleteGroupType,
  getGroupSpec,
  getGroupSpecs,
  listGroupTypes,
  mergeGroupSpecs,
  specsOf,
  updateGroupType,
  visibleGroupType,
} from '../../control/group-types.ts';
import { type Asked, param } from '../asked.ts';
import { badRequest } from '../faults.ts';
import { one, pageOf, type Query, type Words } from '../query.ts';
import { CreateGroupType, GroupSpecsBody, OneGroupSpec, UpdateGroupType } from '../schemas/groups.ts';
import { booleanOf, checked } from '../schemas.ts';
import type { RouteContext } from '../server.ts';
import { type Json, nextLink } from '../views.ts';

const GROUP_TYPES_SINCE = 11;

const WORDS: Words<GroupTypeColumn> = {
  filters: {},
  sort: { id: 'id', name: 'name', is_public: 'is_public', created_at: 'created_at', updated_at: 'updated_at' },
};

export function groupTypeRoutes(app: FastifyInstance, { control }: RouteContext): void {
  const config = { since: GROUP_TYPES_SINCE };
  const { reader } = control.catalog;

  app.get('/group_types', { config: { ...config, list: WORDS, query: ['is_public'] } }, async (request) => {
    const { asked } = request;
    const query = request.query as Query;
    const { filters: _, ...page } = pageOf(query, asked, WORDS);
    // Absent means the public ones; `none` is the word for all.
    const isPublic = asked.caller.isAdmin ? isPublicOf(one(query, 'is_public') ?? 'true') : true;
    const filters = isPublic === null ? [] : [isPublicIs(isPublic)];
    const rows = await listGroupTypes(control, asked.caller, { ...page, projectId: null, filters });
    const items = rows.map((row) => typeView(asked, row));
    const links = nextLink(request, {
      collection: 'group_types',
      linksKey: 'group_type_links',
      limit: page.limit,
      items,
    });
    return { group_types: items, ...links };
  });

  app.post(
    '/group_types',
    { config: { ...config, body: CreateGroupType, rule: 'group:group_types:create' } },
    async (request, reply) => {
      const { group_type: body } = checked(request, CreateGroupType, request.body);
      const row = await createGroupType(control, request.asked.caller, {
        name: body.name.trim(),
        description: body.description ?? null,
        isPublic: booleanOf(body.is_public ?? true) === true,
        specs: body.group_specs ?? {},
      });
      return reply.code(202).send({ group_type: typeView(request.asked, row) });
    },
  );

  app.get('/group_types/default', { config }, async () => {
    throw new Failure('not_found', { kind: 'Default group type', id: '(none is configured): it' });
  });

  app.get('/group_types/:id', { config }, async (request) => {
    const row = await visibleGroupType(reader, request.asked.caller, param(request, 'id'));
    return { group_type: typeView(request.asked, row) };
  });

  app.put(
    '/group_types/:id',
    { config: { ...config, body: UpdateGroupType, rule: 'group:group_types:update' } },
    async (request) => {
      const { group_type: body } = checked(request, UpdateGroupType, request.body);
      const { name, description, is_public: isPublic } = body;
      if (name != null && name.trim() === '') throw badRequest('Group type name can not be empty.');
      if (name == null && description == null && isPublic === undefined)
        throw badRequest('Specify group type name, description, is_public or a combination thereof.');
      const update = {
        ...(name != null && { name: name.trim() }),
        ...(description != null && { description }),
        ...(isPublic !== undefined && { isPublic: booleanOf(isPublic) === true }),
      };
      const row = await updateGroupType(control, request.asked.caller, { id: param(request, 'id'), update });
      return { group_type: typeView(request.asked, row) };
    },
  );

  app.delete(
    '/group_types/:id',
    { config: { ...config, rule: 'group:group_types:delete' } },
    async (request, reply) => {
      await deleteGroupType(control, request.asked.caller, param(request, 'id'));
      return reply.code(202).send();
    },
  );

  const specs = '/group_types/:id/group_specs';
  app.get(specs, { config: { ...config, rule: 'group:group_types_specs:get_all' } }, async (request) => {
    return { group_specs: await getGroupSpecs(control, request.asked.caller, param(request, 'id')) };
  });
  app.post(
    specs,
    { config: { ...config, body: GroupSpecsBody, rule: 'group:group_types_specs:create' } },
    async (request, reply) => {
      const body = checked(request, GroupSpecsBody, request.body);
      const change = { id: param(request, 'id'), specs: body.group_specs, rule: 'create' } as const;
      await mergeGroupSpecs(control, request.asked.caller, change);
      return reply.code(202).send(body);
    },
  );
  app.get(`${specs}/:key`, { config: { ...config, rule: 'group:group_types_specs:get' } }, async (request) => {
    const [id, key] = [param(request, 'id'), param(request, 'key')];
    return Object.fromEntries([[key, await getGroupSpec(control, request.asked.caller, { id, key })]]);
  });
  app.put(
    `${specs}/:key`,
    { config: { ...config, body: OneGroupSpec, rule: 'group:group_types_specs:update' } },
    async (request) => {
      const body = checked(request, OneGroupSpec, request.body);
      if (!Object.hasOwn(body, param(request, 'key'))) throw badRequest('Request body and URI mismatch');
      const change = { id: param(request, 'id'), specs: body, rule: 'update' } as const;
      await mergeGroupSpecs(control, request.asked.caller, change);
      return body;
    },
  );
  app.delete(
    `${specs}/:key`,
    { config: { ...config, rule: 'group:group_types_specs:delete' } },
    async (request, reply) => {
      const which = { id: param(request, 'id'), key: param(request, 'key') };
      await deleteGroupSpec(control, request.asked.caller, which);
      return reply.code(202).send();
    },
  );
}

function isPublicOf(text: string): boolean | null {
  const value = booleanOf(text);
  if (value === null && text.toLowerCase() !== 'none') throw badRequest(`Invalid is_public filter [${text}]`);
  return value;
}

function isPublicIs(value: boolean) {
  return { kind: 'compare', column: 'is_public', is: '=', value: value ? 1 : 0 } as const;
}

function typeView(asked: Asked, row: GroupTypeRow): Json {
  return {
    id: row.id,
    name: row.name,
    description: row.description,
    is_public: row.is_public === 1,
    ...(asked.caller.isAdmin && { group_specs: specsOf(row) }),
  };
}
