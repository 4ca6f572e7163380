/**
 * Every metric, in one table. Counters are fed where things happen; gauges are set by whoever answers a scrape. It
 * knows names and units, not where the figures come from.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

export type Metrics = ReturnType<typeof openMetrics>;

/** A fresh table: nothing global, so that a test (or a second daemon in one process) counts for itself. */
export function openMetrics(options: { processMetrics: boolean }) {
  const registry = new Registry();
  const registers = [registry];
  if (options.processMetrics) collectDefaultMetrics({ register: registry, prefix: 'quarry_' });
  const gauge = <Label extends string = never>(name: string, help: string, labelNames: readonly Label[] = []) =>
    new Gauge({ name, help, labelNames, registers });
  return {
    registry,
    httpSeconds: new Histogram({
      name: 'quarry_http_request_seconds',
      help: 'Time from a request to the end of its answer.',
      labelNames: ['method', 'route', 'status'] as const,
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5],
      registers,
    }),
    tasksEnded: new Counter({
      name: 'quarry_tasks_total',
      help: 'Tasks that ended, by kind and outcome.',
      labelNames: ['kind', 'outcome'] as const,
      registers,
    }),
    taskSeconds: new Histogram({
      name: 'quarry_task_seconds',
      help: 'Time from the acceptance of a task to its end.',
      labelNames: ['kind'] as const,
      buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 10, 60, 600],
      registers,
    }),
    tasksUnderWay: gauge('quarry_tasks_under_way', 'Tasks that have not ended.'),
    volumes: gauge('quarry_volumes', 'Volumes in the catalog, by status.', ['status']),
    snapshots: gauge('quarry_snapshots', 'Snapshots in the catalog, by status.', ['status']),
    backups: gauge('quarry_backups', 'Backups in the catalog, by status.', ['status']),
    backupDoneBytes: gauge('quarry_backup_done_bytes', 'Bytes done of a backup, restore or verification under way.', [
      'backup',
      'work',
    ]),
    backupTotalBytes: gauge(
      'quarry_backup_total_bytes',
      'Bytes to do of a backup, restore or verification under way.',
      ['backup', 'work'],
    ),
    backupReadBytes: new Counter({
      name: 'quarry_backup_read_bytes_total',
      help: 'Bytes that backups read from volumes.',
      registers,
    }),
    backupStoredBytes: new Counter({
      name: 'quarry_backup_stored_bytes_total',
      help: 'Bytes that backups added to the object store.',
      registers,
    }),
    restoreBytes: new Counter({
      name: 'quarry_restore_bytes_total',
      help: 'Stored bytes that restores brought back.',
      registers,
    }),
    connections: gauge('quarry_nbd_connections', 'NBD connections open now.'),
    throttledSeconds: new Counter({
      name: 'quarry_volume_throttled_seconds_total',
      help: 'Time that connections of a volume have waited because its speed is limited, since it was opened.',
      labelNames: ['volume'] as const,
      registers,
    }),
    poolCapacityBytes: gauge('quarry_pool_capacity_bytes', 'Size of the filesystem the pool lies on.'),
    poolFreeBytes: gauge('quarry_pool_free_bytes', 'Bytes free on that filesystem.'),
    poolReservedBytes: gauge('quarry_pool_reserved_bytes', 'Free bytes that are kept back for metadata.'),
    poolProvisionedBytes: gauge('quarry_pool_provisioned_bytes', 'What all volumes would take if they were full.'),
    poolProvisionedBytesMax: gauge('quarry_pool_provisioned_max_bytes', 'How much that may be.'),
    poolLevel: gauge('quarry_pool_level', 'How full the pool is: 0 ok, 1 low, 2 critical, 3 full (writes get ENOSPC).'),
    damageFound: new Counter({
      name: 'quarry_damage_found_total',
      help: 'Places that the disk was found to have changed, each time they were found.',
      registers,
    }),
    damageHealed: new Counter({
      name: 'quarry_damage_healed_total',
      help: 'Places that the disk had changed and that were mended from a backup.',
      registers,
    }),
    poolDamagedBytes: gauge('quarry_pool_damaged_bytes', 'Bytes that are known to be damaged: reading them fails.'),
    poolMappedBytes: gauge('quarry_pool_mapped_bytes', 'Bytes of distinct extents in use.'),
    poolSharedBytes: gauge(
      'quarry_pool_shared_bytes',
      'Bytes of extents in use that several volumes or snapshots hold.',
    ),
    poolExclusiveBytes: gauge(
      'quarry_pool_exclusive_bytes',
      'Bytes of extents in use that one volume or snapshot holds.',
    ),
    volumeMappedBytes: gauge('quarry_volume_mapped_bytes', 'Bytes mapped by a volume.', ['volume']),
    volumeExclusiveBytes: gauge('quarry_volume_exclusive_bytes', 'Bytes that deleting a volume would free.', [
      'volume',
    ]),
    snapshotMappedBytes: gauge('quarry_snapshot_mapped_bytes', 'Bytes mapped by a snapshot.', ['snapshot']),
    snapshotExclusiveBytes: gauge('quarry_snapshot_exclusive_bytes', 'Bytes that deleting a snapshot would free.', [
      'snapshot',
    ]),
    poolReclaimBytes: gauge('quarry_pool_reclaim_bytes', 'Bytes freed and not yet given back to the filesystem.'),
    poolFilledBytes: new Counter({
      name: 'quarry_pool_filled_bytes_total',
      help: 'Bytes copied in the background so that extents which few blocks kept alive became free.',
      registers,
    }),
    poolMetadataBytes: gauge('quarry_pool_metadata_bytes', 'Bytes of journal, checkpoints and map pages.'),
  };
}
