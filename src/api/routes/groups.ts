/**
 * Groups: list, show, create, update, and their actions, of which one makes a group and has no id in its path.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { GroupColumn } from '../../catalog/groups.ts';
import type { GroupRow } from '../../catalog/schema.ts';
import { createGroupFromSource } from '../../control/group-sources.ts';
import {
  createGroup,
  deleteGroup,
  type Group,
  getGroup,
  listGroups,
  resetGroup,
  updateGroup,
} from '../../control/groups.ts';
import { type Action, type ActionCall, action, perform } from '../actions.ts';
import { type Asked, param } from '../asked.ts';
import { badRequest } from '../faults.ts';
import { one, pageOf, type Query, type Words } from '../query.ts';
import { CreateGroup, GROUP_ACTION, UpdateGroup } from '../schemas/groups.ts';
import { booleanOf, checked, idOf } from '../schemas.ts';
import type { RouteContext } from '../server.ts';
import { type Json, nextLink, timeOf } from '../views.ts';
import { trimmed } from './volumes.ts';

const SINCE = { groups: 13, snapshots: 14, resetStatus: 20, volumeList: 25, replication: 38, projectId: 58 } as const;

const WORDS: Words<GroupColumn> = {
  resource: 'group',
  filters: {
    id: { kind: 'text', column: 'id' },
    name: { kind: 'text', column: 'name' },
    description: { kind: 'text', column: 'description' },
    status: { kind: 'text', column: 'status' },
    group_type_id: { kind: 'text', column: 'group_type_id' },
    group_snapshot_id: { kind: 'text', column: 'group_snapshot_id' },
    source_group_id: { kind: 'text', column: 'source_group_id' },
    availability_zone: { kind: 'text', column: 'availability_zone' },
    project_id: { kind: 'text', column: 'project_id' },
    user_id: { kind: 'text', column: 'user_id' },
  },
  sort: {
    id: 'id',
    name: 'name',
    status: 'status',
    group_type_id: 'group_type_id',
    availability_zone: 'availability_zone',
    project_id: 'project_id',
    user_id: 'user_id',
    created_at: 'created_at',
    updated_at: 'updated_at',
  },
};

const MAKING: ReadonlyMap<string, Action> = new Map<string, Action>([
  [
    'create-from-src',
    action(
      GROUP_ACTION.createFromSource,
      async ({ control, asked, value }) => {
        const { source_group_id: group = null, group_snapshot_id: snapshot = null } = value;
        if ((group === null) === (snapshot === null))
          throw badRequest('Invalid input received: Exactly one of source_group_id and group_snapshot_id is needed.');
        const row = await createGroupFromSource(control, asked.caller, {
          name: trimmed(value.name ?? null),
          description: trimmed(value.description ?? null),
          source:
            group === null ? { kind: 'group-snapshot', id: idOf(snapshot ?? '') } : { kind: 'group', id: idOf(group) },
        });
        return { group: summary(row) };
      },
      { since: SINCE.snapshots, rule: 'group:create' },
    ),
  ],
]);

const ACTIONS: ReadonlyMap<string, Action> = new Map<string, Action>([
  [
    'delete',
    action(
      GROUP_ACTION.delete,
      ({ control, asked, id, value }) =>
        deleteGroup(control, asked.caller, { id, withVolumes: booleanOf(value['delete-volumes']) === true }),
      { since: SINCE.groups, rule: 'group:delete' },
    ),
  ],
  [
    'reset_status',
    action(
      GROUP_ACTION.resetStatus,
      ({ control, asked, id, value }) => resetGroup(control, asked.caller, { id, status: value.status.toLowerCase() }),
      { since: SINCE.resetStatus, rule: 'group:reset_status' },
    ),
  ],
  ...['enable_replication', 'disable_replication', 'failover_replication', 'list_replication_targets'].map(
    (name): [string, Action] => [name, action(GROUP_ACTION.nothing, refuseReplication, { since: SINCE.replication })],
  ),
]);

async function refuseReplication({ control, asked, id }: ActionCall<unknown>): Promise<void> {
  await getGroup(control, asked.caller, { id, withVolumes: false });
  throw badRequest(`Invalid group type: Group ${id} is not a replication group type.`);
}

export function groupRoutes(app: FastifyInstance, { control }: RouteContext): void {
  const config = { since: SINCE.groups };

  const list = async (request: FastifyRequest, { isDetailed }: { isDetailed: boolean }) => {
    const { asked } = request;
    const listing = pageOf(request.query as Query, asked, WORDS);
    const withVolumes = isDetailed && wantsVolumes(request);
    const groups = await listGroups(control, asked.caller, { listing, withVolumes });
    const items = groups.map((group) => (isDetailed ? groupView(asked, group) : summary(group.row)));
    const page = { collection: 'groups', linksKey: 'group_links', limit: listing.limit, items };
    return { groups: items, ...nextLink(request, page) };
  };
  app.get(
    '/groups',
    { config: { ...config, list: WORDS, query: ['list_volume'], rule: 'group:get_all' } },
    async (request) => list(request, { isDetailed: false }),
  );
  app.get(
    '/groups/detail',
    { config: { ...config, list: WORDS, query: ['list_volume'], rule: 'group:get_all' } },
    async (request) => list(request, { isDetailed: true }),
  );

  app.post('/groups', { config: { ...config, body: CreateGroup, rule: 'group:create' } }, async (request, reply) => {
    const { group: body } = checked(request, CreateGroup, request.body);
    const row = await createGroup(control, request.asked.caller, {
      name: trimmed(body.name ?? null),
      description: trimmed(body.description ?? null),
      groupType: body.group_type,
      volumeTypes: body.volume_types,
      availabilityZone: body.availability_zone ?? null,
    });
    return reply.code(202).send({ group: summary(row) });
  });

  app.get('/groups/:id', { config: { ...config, query: ['list_volume'], rule: 'group:get' } }, async (request) => {
    const wanted = { id: param(request, 'id'), withVolumes: wantsVolumes(request) };
    return { group: groupView(request.asked, await getGroup(control, request.asked.caller, wanted)) };
  });

  app.put(
    '/groups/:id',
    { config: { ...config, body: UpdateGroup, rule: 'group:update', status: 202 } },
    async (request, reply) => {
      const { group: body } = checked(request, UpdateGroup, request.body);
      const update = {
        ...(body.name !== undefined && { name: trimmed(body.name) }),
        ...(body.description !== undefined && { description: trimmed(body.description) }),
        addVolumes: idsOf(body.add_volumes),
        removeVolumes: idsOf(body.remove_volumes),
      };
      await updateGroup(control, request.asked.caller, { id: param(request, 'id'), update });
      return reply.code(202).send();
    },
  );

  app.post('/groups/action', { config: { ...config, actions: MAKING } }, (request, reply) =>
    perform(request, reply, { control, actions: MAKING }),
  );
  app.post('/groups/:id/action', { config: { ...config, actions: ACTIONS } }, (request, reply) =>
    perform(request, reply, { control, actions: ACTIONS }),
  );
}

function wantsVolumes(request: FastifyRequest): boolean {
  return request.asked.minor >= SINCE.volumeList && booleanOf(one(request.query as Query, 'list_volume')) === true;
}

/** Each once, as they are written everywhere else. */
function idsOf(list: string | null | undefined): string[] {
  const ids = (list ?? '').split(',').map((id) => idOf(id.trim()));
  return [...new Set(ids.filter((id) => id !== ''))];
}

function summary(row: GroupRow): Json {
  return { id: row.id, name: row.name };
}

function groupView(asked: Asked, { row, volumeTypeIds, volumeIds }: Group): Json {
  const { minor } = asked;
  return {
    id: row.id,
    status: row.status,
    availability_zone: row.availability_zone,
    created_at: timeOf(row.created_at),
    name: row.name,
    description: row.description,
    group_type: row.group_type_id,
    volume_types: volumeTypeIds,
    ...(minor >= SINCE.snapshots && { group_snapshot_id: row.group_snapshot_id, source_group_id: row.source_group_id }),
    ...(volumeIds !== null && { volumes: volumeIds }),
    ...(minor >= SINCE.replication && { replication_status: 'disabled' }),
    ...(minor >= SINCE.projectId && asked.caller.isAdmin && { project_id: row.project_id }),
  };
}
