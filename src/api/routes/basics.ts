/**
 * What unmodified clients ask of any Block Storage service: zones, services, pools, extensions, filters.
 */
import type { FastifyInstance } from 'fastify';
import { Failure } from '../../base/errors.ts';
import { status } from '../../control/status.ts';
import { param } from '../asked.ts';
import { one, type Query } from '../query.ts';
import { booleanOf } from '../schemas.ts';
import type { RouteContext } from '../server.ts';
import { type Json, timeOf } from '../views.ts';

const GIB = 2 ** 30;

/** Only what is here: clients and test suites leave out what is not listed. */
const EXTENSIONS = [
  ['os-volume-actions', 'VolumeActions', 'Actions on volumes: extend, attach, flags.'],
  ['os-admin-actions', 'AdminActions', 'Actions of administrators: reset a status, force a deletion.'],
  ['os-quota-sets', 'Quotas', 'Quotas of projects.'],
  ['os-quota-class-sets', 'QuotaClasses', 'Quotas of classes.'],
  ['os-services', 'Services', 'The services of this installation.'],
  ['os-extended-services', 'ExtendedServices', 'More about services.'],
  ['os-availability-zone', 'AvailabilityZones', 'Availability zones.'],
  ['os-types-extra-specs', 'TypesExtraSpecs', 'Extra specs of volume types, to be read.'],
  ['os-vol-host-attr', 'VolumeHostAttribute', 'The host of a volume.'],
  ['os-vol-tenant-attr', 'VolumeTenantAttribute', 'The project of a volume.'],
  ['os-vol-mig-status-attr', 'VolumeMigStatusAttribute', 'The migration status of a volume.'],
  ['os-vol-image-meta', 'VolumeImageMetadata', 'Image metadata of a volume.'],
  ['os-volume-encryption-metadata', 'VolumeEncryptionMetadata', 'Encryption metadata of a volume.'],
  ['os-extended-snapshot-attributes', 'ExtendedSnapshotAttributes', 'Project and progress of a snapshot.'],
  ['os-snapshot-actions', 'SnapshotActions', 'Actions on snapshots.'],
  ['os-used-limits', 'UsedLimits', 'How much of the limits is used.'],
  ['scheduler-stats', 'Scheduler_stats', 'Statistics of pools.'],
  ['OS-SCH-HNT', 'SchedulerHints', 'Hints for the scheduler, accepted and ignored.'],
] as const;

const RESOURCE_FILTERS: Readonly<Record<string, readonly string[]>> = {
  volume: [
    'name',
    'status',
    'metadata',
    'bootable',
    'migration_status',
    'availability_zone',
    'group_id',
    'size',
    'created_at',
    'updated_at',
    'consumes_quota',
  ],
  snapshot: ['name', 'status', 'volume_id', 'metadata', 'availability_zone', 'consumes_quota'],
  backup: ['name', 'status', 'volume_id'],
  group: ['name'],
  group_snapshot: ['name', 'status', 'group_id'],
  attachment: ['volume_id', 'status', 'instance_id', 'attach_status'],
  message: ['resource_uuid', 'resource_type', 'event_id', 'request_id', 'message_level'],
  pool: ['name', 'volume_type'],
  volume_type: ['is_public', 'extra_specs'],
};

export function basicRoutes(app: FastifyInstance, { control, place }: RouteContext): void {
  const { availabilityZone, host } = control.settings;

  app.get('/os-availability-zone', async () => {
    return { availabilityZoneInfo: [{ zoneName: availabilityZone, zoneState: { available: true } }] };
  });

  app.get('/extensions', async () => ({ extensions: EXTENSIONS.map(extensionView) }));
  app.get('/extensions/:alias', async (request) => {
    const alias = param(request, 'alias');
    const found = EXTENSIONS.find(([known]) => known === alias);
    if (found === undefined) throw new Failure('not_found', { kind: 'Extension', id: alias });
    return { extension: extensionView(found) };
  });

  app.get('/resource_filters', { config: { since: 33, query: ['resource'] } }, async (request) => {
    const wanted = one(request.query as Query, 'resource');
    const found = Object.entries(RESOURCE_FILTERS).filter(([resource]) => wanted === undefined || resource === wanted);
    return { resource_filters: found.map(([resource, filters]) => ({ resource, filters })) };
  });

  app.get(
    '/os-services',
    { config: { rule: 'volume_extension:services:index', query: ['host', 'binary'] } },
    async (request) => {
      const query = request.query as Query;
      const [wantedHost, wantedBinary] = [one(query, 'host'), one(query, 'binary')];
      const { minor } = request.asked;
      const services = [
        { binary: 'cinder-scheduler', host },
        { binary: 'cinder-volume', host: `${host}@pool` },
      ].filter(({ binary, host: on }) => (wantedHost ?? on) === on && (wantedBinary ?? binary) === binary);
      const updatedAt = timeOf(control.nowUs());
      return { services: services.map((service) => serviceView(service, { minor, availabilityZone, updatedAt })) };
    },
  );

  app.get(
    '/scheduler-stats/get_pools',
    { config: { rule: 'scheduler_extension:scheduler_stats:get_pools', query: ['name', 'detail'] } },
    async (request) => {
      const query = request.query as Query;
      const wanted = one(query, 'name');
      if (wanted !== undefined && request.asked.minor >= 28 && wanted !== place.host) return { pools: [] };
      const isDetailed = booleanOf(one(query, 'detail')) === true;
      return { pools: [{ name: place.host, ...(isDetailed && { capabilities: await capabilities() }) }] };
    },
  );

  const capabilities = async (): Promise<Json> => {
    const { pool, volumes } = await status(control);
    const provisioned = volumes.reduce((sum, line) => sum + line.sizeGib, 0);
    return {
      pool_name: 'pool',
      volume_backend_name: 'quarry',
      vendor_name: 'Quarry',
      driver_version: control.settings.version,
      storage_protocol: 'nbd',
      total_capacity_gb: hundredths(pool.capacityBytes / GIB),
      free_capacity_gb: hundredths(Math.max(0, pool.freeBytes - pool.reservedBytes) / GIB),
      allocated_capacity_gb: provisioned,
      provisioned_capacity_gb: provisioned,
      reserved_percentage: 0,
      // Volumes are thin: how much may be promised is the operator's quota, not the pool's.
      max_over_subscription_ratio: '20.0',
      thin_provisioning_support: true,
      thick_provisioning_support: false,
      multiattach: false,
      QoS_support: false,
      online_extend_support: true,
      backend_state: 'up',
      filter_function: null,
      goodness_function: null,
      location_info: null,
      timestamp: timeOf(control.nowUs()),
    };
  };
}

function hundredths(value: number): number {
  return Math.round(value * 100) / 100;
}

function extensionView([alias, name, description]: (typeof EXTENSIONS)[number]): Json {
  return { alias, name, description, updated: '2026-01-01T00:00:00+00:00', links: [] };
}

function serviceView(
  { binary, host }: { binary: string; host: string },
  { minor, availabilityZone, updatedAt }: { minor: number; availabilityZone: string; updatedAt: string | null },
): Json {
  const isVolume = binary === 'cinder-volume';
  return {
    binary,
    host,
    zone: availabilityZone,
    status: 'enabled',
    state: 'up',
    updated_at: updatedAt,
    disabled_reason: null,
    ...(minor >= 7 && { cluster: null }),
    ...(isVolume && { replication_status: 'disabled', active_backend_id: null, frozen: false }),
    ...(isVolume && minor >= 49 && { backend_state: 'up' }),
  };
}
