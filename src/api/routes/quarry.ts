/**
 * Routes of our own, which no other Block Storage service has: docs/api.md describes them. And the scrape of metrics.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { ScrubStatus } from '../../backend/backend.ts';
import type { Metrics } from '../../base/metrics.ts';
import type { TaskRow } from '../../catalog/schema.ts';
import type { StatusCount } from '../../catalog/volumes.ts';
import { GIB } from '../../control/control.ts';
import type { FillProgress } from '../../control/filling.ts';
import { isAllowed } from '../../control/policy.ts';
import { POOL_LEVELS } from '../../control/pool-level.ts';
import {
  diff,
  exportsOf,
  map,
  type PoolSpace,
  poolSpace,
  type Status,
  status,
  type Target,
  usage,
} from '../../control/status.ts';
import { param } from '../asked.ts';
import { one, type Query } from '../query.ts';
import { NoFields } from '../schemas/backups.ts';
import { checked, idOf } from '../schemas.ts';
import type { RouteContext } from '../server.ts';
import { type Json, timeOf } from '../views.ts';

export function quarryRoutes(app: FastifyInstance, { control }: RouteContext): void {
  app.get('/quarry/status', { config: { rule: 'quarry:status' } }, async () => {
    const { settings, backend, startedAtUs } = control;
    return statusView(await status(control), await poolSpace(control), {
      version: settings.version,
      started_at: timeOf(startedAtUs),
      auth: settings.auth,
      nbd: backend.nbdAddresses,
    });
  });

  const scrub = { rule: 'quarry:scrub' } as const;
  app.get('/quarry/scrub', { config: scrub }, async () => ({ scrub: scrubView(await control.backend.scrubStatus()) }));
  app.post('/quarry/scrub', { config: { ...scrub, body: NoFields, status: 202 } }, async (request, reply) => {
    checked(request, NoFields, request.body ?? {});
    await control.backend.startScrub();
    return reply.code(202).send({ scrub: scrubView(await control.backend.scrubStatus()) });
  });

  for (const kind of ['volume', 'snapshot'] as const) {
    const path = `/quarry/${kind}s/:id`;
    const target = (request: FastifyRequest): Target => ({ kind, id: param(request, 'id') });

    app.get(`${path}/usage`, async (request) => {
      const found = await usage(control, request.asked.caller, target(request));
      return {
        usage: {
          id: found.id,
          kind: found.kind,
          size_bytes: found.sizeBytes,
          mapped_bytes: found.mappedBytes,
          shared_bytes: found.sharedBytes,
          exclusive_bytes: found.exclusiveBytes,
          connections: found.connections,
          throttled_seconds: found.throttledSeconds,
          failed: found.failed,
          last_failure: found.lastFailure,
          filling: found.filling === null ? null : fillingView(found.filling),
        },
      };
    });
    app.get(`${path}/map`, async (request) => {
      return { ranges: await map(control, request.asked.caller, target(request)) };
    });
    app.get(`${path}/diff`, { config: { query: ['from'] } }, async (request) => {
      const from = one(request.query as Query, 'from');
      const fromId = from === undefined || from === '' ? null : idOf(from);
      return { ranges: await diff(control, request.asked.caller, { target: target(request), fromId }) };
    });
    app.get(`${path}/exports`, async (request) => {
      const found = await exportsOf(control, request.asked.caller, target(request));
      // Whoever has the name of an attachment's export has the data.
      const mayKnow = isAllowed(request.asked.caller, 'member');
      return {
        exports: found
          .filter(({ isListed }) => isListed || mayKnow)
          .map(({ name, uri, address, readOnly, isListed }) => ({
            name,
            uri,
            address,
            read_only: readOnly,
            listed: isListed,
          })),
      };
    });
  }
}

function fillingView({ backupId, doneBytes, totalBytes, failure }: FillProgress): Json {
  return { backup_id: backupId, done_bytes: doneBytes, total_bytes: totalBytes, failure };
}

function statusView(found: Status, space: PoolSpace, about: Json): Json {
  const { pool } = found;
  return {
    ...about,
    pool: {
      capacity_bytes: pool.capacityBytes,
      free_bytes: pool.freeBytes,
      reserved_bytes: pool.reservedBytes,
      provisioned_bytes: pool.provisionedBytes,
      max_over_subscription_ratio: pool.maxOverSubscription,
      reserved_percentage: pool.reservedPercentage,
      level: pool.level,
      mapped_bytes: pool.mappedBytes,
      shared_bytes: space.sharedBytes,
      exclusive_bytes: space.exclusiveBytes,
      reclaim_bytes: pool.reclaimBytes,
      metadata_bytes: pool.metadataBytes,
      volumes: pool.volumes,
      snapshots: pool.snapshots,
    },
    volumes: countsView(found.volumes),
    snapshots: countsView(found.snapshots),
    backups: countsView(found.backups),
    connections: pool.connections,
    tasks: found.tasks.map(taskView),
  };
}

function scrubView(found: ScrubStatus): Json {
  const at = (ms: number | null): string | null => (ms === null ? null : timeOf(ms * 1000));
  return {
    state: found.isRunning ? 'running' : found.endedAt === null ? 'never' : 'done',
    started_at: at(found.startedAt),
    ended_at: at(found.endedAt),
    read_bytes: found.readBytes,
    pages: found.pages,
    sealed_bytes: found.sealedBytes,
    compared_bytes: found.comparedBytes,
    damaged_bytes: found.damagedBytes,
    findings: found.findings.map(({ path, reason, shown }) => ({ path, reason, shown })),
  };
}

function countsView(lines: readonly StatusCount[]): Json {
  return {
    count: lines.reduce((sum, line) => sum + line.count, 0),
    size_bytes: lines.reduce((sum, line) => sum + line.sizeGib, 0) * GIB,
    by_status: Object.fromEntries(lines.map((line) => [line.status, line.count])),
  };
}

function taskView({ id, kind, subject, attempts, created_at }: TaskRow): Json {
  return { id, kind, subject, attempts, created_at: timeOf(created_at) };
}

function scrapeSpace(metrics: Metrics, { sharedBytes, exclusiveBytes, objects }: PoolSpace): void {
  metrics.poolSharedBytes.set(sharedBytes);
  metrics.poolExclusiveBytes.set(exclusiveBytes);
  const { volumeMappedBytes, volumeExclusiveBytes, snapshotMappedBytes, snapshotExclusiveBytes } = metrics;
  for (const gauge of [volumeMappedBytes, volumeExclusiveBytes, snapshotMappedBytes, snapshotExclusiveBytes])
    gauge.reset();
  for (const { id, kind, mappedBytes, exclusiveBytes: alone } of objects) {
    if (kind === 'volume') volumeMappedBytes.set({ volume: id }, mappedBytes);
    else snapshotMappedBytes.set({ snapshot: id }, mappedBytes);
    // Damage keeps it from being known.
    if (alone === null) continue;
    if (kind === 'volume') volumeExclusiveBytes.set({ volume: id }, alone);
    else snapshotExclusiveBytes.set({ snapshot: id }, alone);
  }
}

export function scrapeRoute(app: FastifyInstance, { control }: RouteContext, { isOpen }: { isOpen: boolean }): void {
  app.get('/metrics', { config: { isOpen, rule: 'quarry:metrics' } }, async (_request, reply) => {
    const { metrics } = control;
    const { pool, volumes, snapshots, backups } = await status(control);
    for (const [gauge, lines] of [
      [metrics.volumes, volumes],
      [metrics.snapshots, snapshots],
      [metrics.backups, backups],
    ] as const) {
      gauge.reset();
      for (const line of lines) gauge.set({ status: line.status }, line.count);
    }
    metrics.backupDoneBytes.reset();
    metrics.backupTotalBytes.reset();
    for (const [backup, { work, doneBytes, totalBytes }] of control.backups.allProgress()) {
      metrics.backupDoneBytes.set({ backup, work }, doneBytes);
      metrics.backupTotalBytes.set({ backup, work }, totalBytes);
    }
    metrics.connections.set(pool.connections);
    metrics.poolDamagedBytes.set((await control.backend.scrubStatus()).damagedBytes);
    metrics.throttledSeconds.reset();
    for (const { id, throttledSeconds } of await control.backend.usage(null))
      if (throttledSeconds > 0) metrics.throttledSeconds.inc({ volume: id }, throttledSeconds);
    metrics.poolCapacityBytes.set(pool.capacityBytes);
    metrics.poolFreeBytes.set(pool.freeBytes);
    metrics.poolReservedBytes.set(pool.reservedBytes);
    metrics.poolProvisionedBytes.set(pool.provisionedBytes);
    metrics.poolProvisionedBytesMax.set(pool.capacityBytes * pool.maxOverSubscription);
    metrics.poolLevel.set(POOL_LEVELS.indexOf(pool.level));
    metrics.poolMappedBytes.set(pool.mappedBytes);
    scrapeSpace(control.metrics, await poolSpace(control));
    metrics.poolReclaimBytes.set(pool.reclaimBytes);
    metrics.poolFilledBytes.reset();
    metrics.poolFilledBytes.inc(pool.filledBytes);
    metrics.poolMetadataBytes.set(pool.metadataBytes);
    return reply.type(metrics.registry.contentType).send(await metrics.registry.metrics());
  });
}
