/**
 * Snapshots: list, show, create, update, delete, actions. Shapes in, one call into control, a view out.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { Failure } from '../../base/errors.ts';
import type { SnapshotColumn } from '../../catalog/snapshots.ts';
import {
  countSnapshots,
  createSnapshot,
  deleteSnapshot,
  getSnapshot,
  listSnapshots,
  updateSnapshot,
} from '../../control/snapshots.ts';
import { reportSnapshot, resetSnapshot } from '../../control/volume-actions.ts';
import { type Action, action, perform } from '../actions.ts';
import { param } from '../asked.ts';
import { badRequest } from '../faults.ts';
import { pageOf, type Query, type Words } from '../query.ts';
import { ATTACH_ACTION } from '../schemas/attachments.ts';
import { ACTION, booleanOf, CreateSnapshot, checked, idOf, UpdateSnapshot } from '../schemas.ts';
import type { RouteContext } from '../server.ts';
import { nextLink, type SnapshotForm, snapshotView } from '../views.ts';
import { trimmed } from './volumes.ts';

const WORDS: Words<SnapshotColumn> = {
  resource: 'snapshot',
  filters: {
    id: { kind: 'text', column: 'id' },
    name: { kind: 'text', column: 'name' },
    display_name: { kind: 'text', column: 'name' },
    description: { kind: 'text', column: 'description' },
    status: { kind: 'text', column: 'status' },
    volume_id: { kind: 'text', column: 'volume_id' },
    volume_size: { kind: 'number', column: 'size_gib' },
    size: { kind: 'number', column: 'size_gib' },
    availability_zone: { kind: 'text', column: 'availability_zone' },
    project_id: { kind: 'text', column: 'project_id' },
    tenant_id: { kind: 'text', column: 'project_id' },
    user_id: { kind: 'text', column: 'user_id' },
    progress: { kind: 'text', column: 'progress' },
    created_at: { kind: 'time', column: 'created_at' },
    updated_at: { kind: 'time', column: 'updated_at' },
    metadata: { kind: 'metadata', scope: 'user' },
    group_snapshot_id: { kind: 'text', column: 'group_snapshot_id' },
    consumes_quota: { kind: 'constant', value: 'true' },
  },
  sort: {
    id: 'id',
    name: 'name',
    display_name: 'name',
    status: 'status',
    volume_id: 'volume_id',
    volume_size: 'size_gib',
    size: 'size_gib',
    created_at: 'created_at',
    updated_at: 'updated_at',
    project_id: 'project_id',
    user_id: 'user_id',
  },
};

const ACTIONS: ReadonlyMap<string, Action> = new Map<string, Action>([
  [
    'os-reset_status',
    action(
      ACTION.resetSnapshot,
      ({ control, asked, id, value }) =>
        resetSnapshot(control, asked.caller, { id, status: value.status.toLowerCase() }),
      { rule: 'volume_extension:snapshot_admin_actions:reset_status' },
    ),
  ],
  [
    'os-force_delete',
    action(ACTION.nothing, ({ control, asked, id }) => deleteSnapshot(control, asked.caller, { id, force: true }), {
      rule: 'volume_extension:snapshot_admin_actions:force_delete',
    }),
  ],
  [
    'os-update_snapshot_status',
    action(
      ATTACH_ACTION.snapshotStatus,
      ({ control, asked, id, value }) => {
        return reportSnapshot(control, asked.caller, { id, status: value.status, progress: value.progress ?? null });
      },
      { rule: 'snapshot_extension:snapshot_actions:update_snapshot_status' },
    ),
  ],
  [
    'os-unmanage',
    action(
      ACTION.nothing,
      async ({ control, asked, id }) => {
        await getSnapshot(control, asked.caller, id);
        throw badRequest(`Invalid snapshot: Snapshot ${id} cannot be unmanaged: nothing else could hold it.`);
      },
      { rule: 'snapshot_extension:snapshot_unmanage' },
    ),
  ],
]);

export function snapshotRoutes(app: FastifyInstance, { control }: RouteContext): void {
  const list = async (request: FastifyRequest, form: SnapshotForm) => {
    const page = pageOf(request.query as Query, request.asked, WORDS);
    const snapshots = await listSnapshots(control, page);
    const items = snapshots.map((snapshot) => snapshotView(request.asked, snapshot, form));
    const count = page.withCount ? (await countSnapshots(control, page)).count : null;
    return {
      snapshots: items,
      ...nextLink(request, { collection: 'snapshots', limit: page.limit, items }),
      ...(count !== null && { count }),
    };
  };

  app.get('/snapshots', { config: { list: WORDS } }, async (request) => list(request, 'brief'));
  app.get('/snapshots/detail', { config: { list: WORDS } }, async (request) => list(request, 'full'));

  app.post(
    '/snapshots',
    { config: { rule: 'volume:create_snapshot', body: CreateSnapshot } },
    async (request, reply) => {
      const { snapshot: body } = checked(request, CreateSnapshot, request.body);
      if (body.volume_id === null) throw new Failure('not_found', { kind: 'Volume', id: 'None' });
      const snapshot = await createSnapshot(control, request.asked.caller, {
        volumeId: idOf(body.volume_id),
        name: trimmed(body.name ?? body.display_name ?? null),
        description: trimmed(body.description ?? body.display_description ?? null),
        metadata: new Map(Object.entries(body.metadata ?? {})),
        alsoInUse: mayBeInUse(request.asked.minor, body.force),
      });
      return reply.code(202).send({ snapshot: snapshotView(request.asked, snapshot, 'created') });
    },
  );

  app.get('/snapshots/:id', { config: { hasEtag: true } }, async (request) => {
    const snapshot = await getSnapshot(control, request.asked.caller, param(request, 'id'));
    return { snapshot: snapshotView(request.asked, snapshot, 'full') };
  });

  app.put('/snapshots/:id', { config: { rule: 'volume:update_snapshot', body: UpdateSnapshot } }, async (request) => {
    const { snapshot: body } = checked(request, UpdateSnapshot, request.body);
    const name = body.name === undefined ? body.display_name : body.name;
    const description = body.description === undefined ? body.display_description : body.description;
    const update = {
      ...(name !== undefined && { name: trimmed(name) }),
      ...(description !== undefined && { description: trimmed(description) }),
    };
    const snapshot = await updateSnapshot(control, request.asked.caller, { id: param(request, 'id'), update });
    return { snapshot: snapshotView(request.asked, snapshot, 'created') };
  });

  app.delete('/snapshots/:id', { config: { rule: 'volume:delete_snapshot' } }, async (request, reply) => {
    await deleteSnapshot(control, request.asked.caller, { id: param(request, 'id'), force: false });
    return reply.code(202).send();
  });

  app.post('/snapshots/:id/action', { config: { actions: ACTIONS } }, (request, reply) =>
    perform(request, reply, { control, actions: ACTIONS }),
  );
}

/** From 3.66 a volume in use needs no force, and to refuse it is an error. */
function mayBeInUse(minor: number, force: boolean | string | number | undefined): boolean {
  const isForced = force === undefined ? null : booleanOf(force);
  if (minor < 66) return isForced === true;
  if (isForced === false)
    throw badRequest(
      "Invalid input received: Since microversion 3.66 of the Block Storage API, the 'force' option is invalid for this request. For backward compatibility, however, when the 'force' flag is passed with a value evaluating to True, it is silently ignored.",
    );
  return true;
}
