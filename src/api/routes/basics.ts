/**
 * What unmodified clients ask of any Block Storage service: zones, extensions, filters.
 */
import type { FastifyInstance } from 'fastify';
import { Failure } from '../../base/errors.ts';
import { isZoneAvailable } from '../../control/services.ts';
import { param } from '../asked.ts';
import { one, type Query } from '../query.ts';
import { RESOURCE_FILTERS } from '../resource-filters.ts';
import type { RouteContext } from '../server.ts';
import type { Json } from '../views.ts';

/** Only what is here: clients and test suites leave out what is not listed. */
const EXTENSIONS = [
  ['os-volume-actions', 'VolumeActions', 'Actions on volumes: extend, attach, flags.'],
  ['os-admin-actions', 'AdminActions', 'Actions of administrators: reset a status, force a deletion.'],
  ['os-quota-sets', 'Quotas', 'Quotas of projects.'],
  ['os-quota-class-sets', 'QuotaClasses', 'Quotas of classes.'],
  ['os-services', 'Services', 'The services of this installation.'],
  ['os-extended-services', 'ExtendedServices', 'More about services.'],
  ['os-availability-zone', 'AvailabilityZones', 'Availability zones.'],
  ['os-types-manage', 'TypesManage', 'Volume types: made, changed and deleted.'],
  ['os-types-extra-specs', 'TypesExtraSpecs', 'Extra specs of volume types.'],
  ['os-volume-type-access', 'VolumeTypeAccess', 'Projects that may use a private volume type.'],
  ['encryption', 'VolumeTypeEncryption', 'Encryption records of volume types, kept for clients.'],
  ['qos-specs', 'Qos_specs_manage', 'Specs of quality of service.'],
  ['os-hosts', 'Hosts', 'The hosts of this installation.'],
  ['capabilities', 'Capabilities', 'What a backend can do.'],
  ['os-vol-host-attr', 'VolumeHostAttribute', 'The host of a volume.'],
  ['os-vol-tenant-attr', 'VolumeTenantAttribute', 'The project of a volume.'],
  ['os-vol-mig-status-attr', 'VolumeMigStatusAttribute', 'The migration status of a volume.'],
  ['os-vol-image-meta', 'VolumeImageMetadata', 'Image metadata of a volume.'],
  ['os-volume-transfer', 'VolumeTransfer', 'Transfers of volumes between projects.'],
  ['os-volume-encryption-metadata', 'VolumeEncryptionMetadata', 'Encryption metadata of a volume.'],
  ['os-extended-snapshot-attributes', 'ExtendedSnapshotAttributes', 'Project and progress of a snapshot.'],
  ['os-snapshot-actions', 'SnapshotActions', 'Actions on snapshots.'],
  ['os-used-limits', 'UsedLimits', 'How much of the limits is used.'],
  ['scheduler-stats', 'Scheduler_stats', 'Statistics of pools.'],
  ['OS-SCH-HNT', 'SchedulerHints', 'Hints for the scheduler, accepted and ignored.'],
] as const;

export function basicRoutes(app: FastifyInstance, { control }: RouteContext): void {
  const { availabilityZone } = control.settings;

  app.get('/os-availability-zone', async () => {
    const zoneState = { available: await isZoneAvailable(control) };
    return { availabilityZoneInfo: [{ zoneName: availabilityZone, zoneState }] };
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
}

function extensionView([alias, name, description]: (typeof EXTENSIONS)[number]): Json {
  return { alias, name, description, updated: '2026-01-01T00:00:00+00:00', links: [] };
}
