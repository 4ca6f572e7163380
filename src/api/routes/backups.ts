/**
 * Backups: list, show, create, update, delete, restore, records, actions; and below /quarry what no other Block Storage
 * service has. Shapes in, one call into control, a view out.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { Failure } from '../../base/errors.ts';
import type { BackupColumn } from '../../catalog/backups.ts';
import type { BackgroundState } from '../../control/background.ts';
import { exportRecord, importRecord, rescan } from '../../control/backup-records.ts';
import type { Progress } from '../../control/backup-store.ts';
import {
  type Backup,
  backupDetail,
  countBackups,
  createBackup,
  deleteBackup,
  getBackup,
  listBackups,
  resetBackup,
  restoreBackup,
  updateBackup,
  verifyBackup,
} from '../../control/backups.ts';
import { restoreInstantly } from '../../control/instant-restore.ts';
import { type Action, action, perform } from '../actions.ts';
import { type Asked, param } from '../asked.ts';
import { pageOf, type Query, type Words } from '../query.ts';
import {
  BackupRecord,
  CREATE_BACKUP_FORMS,
  createBackupSchema,
  NoFields,
  ResetBackup,
  RestoreBackup,
  RestoreOwn,
  UpdateBackup,
  updateBackupSchema,
  VerifyBackup,
} from '../schemas/backups.ts';
import { ACTION, booleanOf, checked, idOf } from '../schemas.ts';
import type { RouteContext } from '../server.ts';
import { type Json, linksOf, nextLink, timeOf } from '../views.ts';
import { trimmed } from './volumes.ts';

const WORDS: Words<BackupColumn> = {
  filters: {
    id: { kind: 'text', column: 'id' },
    name: { kind: 'text', column: 'name' },
    description: { kind: 'text', column: 'description' },
    status: { kind: 'text', column: 'status' },
    volume_id: { kind: 'text', column: 'volume_id' },
    snapshot_id: { kind: 'text', column: 'snapshot_id' },
    size: { kind: 'number', column: 'size_gib' },
    container: { kind: 'text', column: 'container' },
    availability_zone: { kind: 'text', column: 'availability_zone' },
    project_id: { kind: 'text', column: 'project_id' },
    tenant_id: { kind: 'text', column: 'project_id' },
    user_id: { kind: 'text', column: 'user_id' },
    created_at: { kind: 'time', column: 'created_at' },
    updated_at: { kind: 'time', column: 'updated_at' },
    metadata: { kind: 'metadata', scope: 'user' },
  },
  sort: {
    id: 'id',
    name: 'name',
    status: 'status',
    size: 'size_gib',
    container: 'container',
    volume_id: 'volume_id',
    availability_zone: 'availability_zone',
    data_timestamp: 'data_timestamp',
    created_at: 'created_at',
    updated_at: 'updated_at',
    project_id: 'project_id',
    user_id: 'user_id',
  },
};

/** Of objects that no key opens; all are counted. */
const FOREIGN_SHOWN_MAX = 100;

const ACTIONS: ReadonlyMap<string, Action> = new Map<string, Action>([
  [
    'os-reset_status',
    action(
      ResetBackup,
      ({ control, asked, id, value }) => resetBackup(control, asked.caller, { id, status: value.status.toLowerCase() }),
      { rule: 'volume_extension:backup_admin_actions:reset_status' },
    ),
  ],
  [
    'os-force_delete',
    action(ACTION.nothing, ({ control, asked, id }) => deleteBackup(control, asked.caller, { id, force: true }), {
      rule: 'volume_extension:backup_admin_actions:force_delete',
    }),
  ],
]);

export function backupRoutes(app: FastifyInstance, context: RouteContext): void {
  readingRoutes(app, context);
  writingRoutes(app, context);
  ownRoutes(app, context);
}

function readingRoutes(app: FastifyInstance, { control }: RouteContext): void {
  const list = async (request: FastifyRequest, view: (asked: Asked, backup: Backup) => Json) => {
    const page = pageOf(request.query as Query, request.asked, WORDS);
    const items = (await listBackups(control, page)).map((backup) => view(request.asked, backup));
    const count = page.withCount ? (await countBackups(control, page)).count : null;
    return {
      backups: items,
      ...nextLink(request, { collection: 'backups', limit: page.limit, items }),
      ...(count !== null && { count }),
    };
  };
  app.get('/backups', { config: { list: WORDS } }, async (request) => list(request, summary));
  app.get('/backups/detail', { config: { list: WORDS } }, async (request) => list(request, backupView));
  app.get('/backups/:id', { config: { hasEtag: true } }, async (request) => {
    return { backup: backupView(request.asked, await getBackup(control, request.asked.caller, param(request, 'id'))) };
  });
  app.get('/backups/:id/export_record', { config: { rule: 'backup:export-import' } }, async (request) => {
    const record = await exportRecord(control, request.asked.caller, param(request, 'id'));
    return { 'backup-record': { backup_service: record.service, backup_url: record.url } };
  });
}

function writingRoutes(app: FastifyInstance, { control }: RouteContext): void {
  app.post('/backups', { config: { rule: 'backup:create', body: CREATE_BACKUP_FORMS } }, async (request, reply) => {
    const { asked } = request;
    const { backup: body } = checked(request, createBackupSchema(asked.minor), request.body);
    const backup = await createBackup(control, asked.caller, {
      volumeId: idOf(body.volume_id),
      snapshotId: body.snapshot_id == null ? null : idOf(body.snapshot_id),
      name: trimmed(body.name ?? null),
      description: trimmed(body.description ?? null),
      container: trimmed(body.container ?? null) || null,
      isIncremental: body.incremental !== undefined && booleanOf(body.incremental) === true,
      force: body.force !== undefined && booleanOf(body.force) === true,
      metadata: new Map(Object.entries(body.metadata ?? {})),
      availabilityZone: body.availability_zone ?? null,
    });
    return reply.code(202).send({ backup: { ...summary(asked, backup), ...metadataView(asked, backup) } });
  });

  app.put('/backups/:id', { config: { since: 9, rule: 'backup:update', body: UpdateBackup } }, async (request) => {
    const { backup: body } = checked(request, updateBackupSchema(request.asked.minor), request.body);
    const update = {
      ...(body.name !== undefined && { name: trimmed(body.name) }),
      ...(body.description !== undefined && { description: trimmed(body.description) }),
      ...(body.metadata != null && { metadata: new Map(Object.entries(body.metadata)) }),
    };
    const backup = await updateBackup(control, request.asked.caller, { id: param(request, 'id'), update });
    return { backup: summary(request.asked, backup) };
  });

  app.delete('/backups/:id', { config: { rule: 'backup:delete' } }, async (request, reply) => {
    await deleteBackup(control, request.asked.caller, { id: param(request, 'id'), force: false });
    return reply.code(202).send();
  });

  app.post(
    '/backups/:id/restore',
    { config: { rule: 'backup:restore', body: RestoreBackup } },
    async (request, reply) => {
      const { restore: body } = checked(request, RestoreBackup, request.body);
      const restored = await restoreBackup(control, request.asked.caller, {
        id: param(request, 'id'),
        volumeId: body.volume_id == null ? null : idOf(body.volume_id),
        name: trimmed(body.name ?? null) || null,
      });
      const { backupId, volumeId, volumeName } = restored;
      return reply.code(202).send({ restore: { backup_id: backupId, volume_id: volumeId, volume_name: volumeName } });
    },
  );

  app.post(
    '/backups/import_record',
    { config: { rule: 'backup:export-import', body: BackupRecord, status: 201 } },
    async (request, reply) => {
      const { 'backup-record': body } = checked(request, BackupRecord, request.body);
      const record = { service: body.backup_service, url: body.backup_url };
      const backup = await importRecord(control, request.asked.caller, record);
      return reply.code(201).send({ backup: summary(request.asked, backup) });
    },
  );

  app.post('/backups/:id/action', { config: { actions: ACTIONS } }, (request, reply) =>
    perform(request, reply, { control, actions: ACTIONS }),
  );
}

function ownRoutes(app: FastifyInstance, { control }: RouteContext): void {
  app.get('/quarry/backups/:id', async (request) => {
    const { row, progress } = await backupDetail(control, request.asked.caller, param(request, 'id'));
    return {
      backup: {
        id: row.id,
        status: row.status,
        parent_id: row.parent_id,
        object_count: row.object_count,
        added_bytes: row.added_bytes,
        stored_bytes: row.stored_bytes,
        root: row.root,
        progress: progress === null ? null : progressView(progress),
        verified: row.verified === null ? null : verifiedView(row.verified),
        failure: row.failure,
      },
    };
  });
  app.post(
    '/quarry/backups/:id/verify',
    { config: { rule: 'backup:update', body: VerifyBackup } },
    async (request, reply) => {
      const { depth } = checked(request, VerifyBackup, request.body ?? {});
      await verifyBackup(control, request.asked.caller, { id: param(request, 'id'), depth: depth ?? 'full' });
      return reply.code(202).send();
    },
  );
  app.post(
    '/quarry/backups/:id/restore',
    { config: { rule: 'backup:restore', body: RestoreOwn } },
    async (request, reply) => {
      const { restore: body } = checked(request, RestoreOwn, request.body);
      const { caller } = request.asked;
      const [id, name] = [param(request, 'id'), trimmed(body.name ?? null) || null];
      const into = body.volume_id == null ? null : idOf(body.volume_id);
      if (body.instant === true && into !== null)
        throw new Failure('bad_request', {
          reason: 'Invalid input received: An instant restore makes a new volume: leave volume_id out.',
        });
      const { backupId, volumeId, volumeName } = await (body.instant === true
        ? restoreInstantly(control, caller, { id, name })
        : restoreBackup(control, caller, { id, volumeId: into, name }));
      return reply.code(202).send({ restore: { backup_id: backupId, volume_id: volumeId, volume_name: volumeName } });
    },
  );
  const rule = 'backup:export-import';
  app.post('/quarry/backups/rescan', { config: { rule, body: NoFields, status: 200 } }, async (request) => {
    checked(request, NoFields, request.body ?? {});
    return rescan(control);
  });
  app.post('/quarry/backups/collect', { config: { rule, body: NoFields } }, async (request, reply) => {
    checked(request, NoFields, request.body ?? {});
    control.backups.collect();
    return reply.code(202).send();
  });
  app.get('/quarry/backups/collect', { config: { rule: 'backup:export-import' } }, async () => ({
    collection: backgroundView(control.backups.collection.state, ({ deadBytes, ...collected }) => ({
      ...collected,
      dead_bytes: deadBytes,
    })),
  }));
  app.post('/quarry/backups/rekey', { config: { rule, body: NoFields } }, async (request, reply) => {
    checked(request, NoFields, request.body ?? {});
    control.backups.rotateKeys();
    return reply.code(202).send();
  });
  app.get('/quarry/backups/rekey', { config: { rule } }, async () => ({
    rotation: backgroundView(control.backups.rotation.state, ({ wrapped, kept, removed, foreign }) => ({
      wrapped,
      kept,
      removed,
      foreign: foreign.slice(0, FOREIGN_SHOWN_MAX),
      foreign_count: foreign.length,
    })),
  }));
}

function summary(asked: Asked, { row }: Backup): Json {
  return { id: row.id, name: row.name, links: linksOf(asked, 'backups', row.id) };
}

function metadataView(asked: Asked, { metadata }: Backup): Json {
  return asked.minor >= 43 ? { metadata: Object.fromEntries(metadata) } : {};
}

function backupView(asked: Asked, backup: Backup): Json {
  const { row } = backup;
  const { minor } = asked;
  return {
    id: row.id,
    status: row.status,
    size: row.size_gib,
    object_count: row.object_count,
    availability_zone: row.availability_zone,
    container: row.container,
    created_at: timeOf(row.created_at),
    updated_at: timeOf(row.updated_at),
    name: row.name,
    description: row.description,
    fail_reason: row.failure,
    volume_id: row.volume_id,
    links: linksOf(asked, 'backups', row.id),
    is_incremental: row.parent_id !== null,
    // Every backup is complete by itself: none needs another, and any can be deleted.
    has_dependent_backups: false,
    snapshot_id: row.snapshot_id,
    data_timestamp: timeOf(row.data_timestamp),
    ...(minor >= 18 && asked.caller.isAdmin && { 'os-backup-project-attr:project_id': row.project_id }),
    ...metadataView(asked, backup),
    ...(minor >= 56 && { user_id: row.user_id }),
  };
}

function progressView({ work, doneBytes, totalBytes }: Progress): Json {
  return { work, done_bytes: doneBytes, total_bytes: totalBytes };
}

function verifiedView(text: string): Json {
  const report = JSON.parse(text) as Readonly<Record<string, unknown>>;
  return {
    depth: report['depth'],
    outcome: report['outcome'],
    ended_at: timeOf(Number(report['endedAtUs'])),
    objects: report['objects'],
    read_bytes: report['readBytes'],
    problem_count: report['problemCount'],
    problems: report['problems'],
  };
}

function backgroundView<Result>(found: BackgroundState<Result>, view: (result: Result) => Json): Json {
  switch (found.state) {
    case 'never':
    case 'running':
      return { state: found.state };
    case 'failed':
      return { state: 'failed', ended_at: timeOf(found.endedAtUs), reason: found.reason };
    case 'done':
      return { state: 'done', ended_at: timeOf(found.endedAtUs), ...view(found.result) };
  }
}
