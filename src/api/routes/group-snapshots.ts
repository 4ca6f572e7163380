/**
 * Snapshots of groups: list, show, create, delete, reset.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { GroupSnapshotColumn } from '../../catalog/groups.ts';
import type { GroupSnapshotRow } from '../../catalog/schema.ts';
import {
  createGroupSnapshot,
  deleteGroupSnapshot,
  getGroupSnapshot,
  listGroupSnapshots,
  resetGroupSnapshot,
} from '../../control/group-snapshots.ts';
import { type Action, action, perform } from '../actions.ts';
import { type Asked, param } from '../asked.ts';
import { pageOf, type Query, type Words } from '../query.ts';
import { CreateGroupSnapshot, GROUP_ACTION } from '../schemas/groups.ts';
import { checked, idOf } from '../schemas.ts';
import type { RouteContext } from '../server.ts';
import { type Json, nextLink, timeOf } from '../views.ts';
import { trimmed } from './volumes.ts';

/** Before `pages`, a list had neither pages nor filters. */
const SINCE = { groupSnapshots: 14, resetStatus: 19, pages: 29, projectId: 58 } as const;

const WORDS: Words<GroupSnapshotColumn> = {
  resource: 'group_snapshot',
  filters: {
    id: { kind: 'text', column: 'id' },
    name: { kind: 'text', column: 'name' },
    description: { kind: 'text', column: 'description' },
    status: { kind: 'text', column: 'status' },
    group_id: { kind: 'text', column: 'group_id' },
    group_type_id: { kind: 'text', column: 'group_type_id' },
    project_id: { kind: 'text', column: 'project_id' },
    user_id: { kind: 'text', column: 'user_id' },
  },
  sort: {
    id: 'id',
    name: 'name',
    status: 'status',
    group_id: 'group_id',
    group_type_id: 'group_type_id',
    project_id: 'project_id',
    user_id: 'user_id',
    created_at: 'created_at',
    updated_at: 'updated_at',
  },
};

const ACTIONS: ReadonlyMap<string, Action> = new Map<string, Action>([
  [
    'reset_status',
    action(
      GROUP_ACTION.resetStatus,
      ({ control, asked, id, value }) =>
        resetGroupSnapshot(control, asked.caller, { id, status: value.status.toLowerCase() }),
      { since: SINCE.resetStatus, rule: 'group:reset_group_snapshot_status' },
    ),
  ],
]);

export function groupSnapshotRoutes(app: FastifyInstance, { control }: RouteContext): void {
  const config = { since: SINCE.groupSnapshots };

  const list = async (request: FastifyRequest, view: (asked: Asked, row: GroupSnapshotRow) => Json) => {
    const { asked } = request;
    const all = request.query as Query;
    const query = asked.minor >= SINCE.pages ? all : { all_tenants: all['all_tenants'] };
    const listing = pageOf(query, asked, WORDS);
    const items = (await listGroupSnapshots(control, asked.caller, listing)).map((row) => view(asked, row));
    const page = { collection: 'group_snapshots', linksKey: 'group_snapshot_links', limit: listing.limit, items };
    return { group_snapshots: items, ...nextLink(request, page) };
  };
  app.get(
    '/group_snapshots',
    { config: { ...config, list: WORDS, rule: 'group:get_all_group_snapshots' } },
    async (request) => list(request, (_, { id, name }) => ({ id, name })),
  );
  app.get(
    '/group_snapshots/detail',
    { config: { ...config, list: WORDS, rule: 'group:get_all_group_snapshots' } },
    async (request) => list(request, full),
  );

  app.post(
    '/group_snapshots',
    { config: { ...config, body: CreateGroupSnapshot, rule: 'group:create_group_snapshot' } },
    async (request, reply) => {
      const { group_snapshot: body } = checked(request, CreateGroupSnapshot, request.body);
      const { id, name, group_type_id } = await createGroupSnapshot(control, request.asked.caller, {
        groupId: idOf(body.group_id),
        name: trimmed(body.name ?? null),
        description: trimmed(body.description ?? null),
      });
      return reply.code(202).send({ group_snapshot: { id, name, group_type_id } });
    },
  );

  app.get('/group_snapshots/:id', { config: { ...config, rule: 'group:get_group_snapshot' } }, async (request) => {
    const row = await getGroupSnapshot(control, request.asked.caller, param(request, 'id'));
    return { group_snapshot: full(request.asked, row) };
  });

  app.delete(
    '/group_snapshots/:id',
    { config: { ...config, rule: 'group:delete_group_snapshot' } },
    async (request, reply) => {
      await deleteGroupSnapshot(control, request.asked.caller, param(request, 'id'));
      return reply.code(202).send();
    },
  );

  app.post('/group_snapshots/:id/action', { config: { ...config, actions: ACTIONS } }, (request, reply) =>
    perform(request, reply, { control, actions: ACTIONS }),
  );
}

function full(asked: Asked, row: GroupSnapshotRow): Json {
  return {
    id: row.id,
    group_id: row.group_id,
    group_type_id: row.group_type_id,
    status: row.status,
    created_at: timeOf(row.created_at),
    name: row.name,
    description: row.description,
    ...(asked.minor >= SINCE.projectId && asked.caller.isAdmin && { project_id: row.project_id }),
  };
}
