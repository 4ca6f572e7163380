/**
 * Pools, capabilities and hosts, for administrators and the services that schedule. There are no clusters, and no work
 * waits to be cleaned up by hand.
 */
import type { FastifyInstance } from 'fastify';
import { Failure } from '../../base/errors.ts';
import { unfit } from '../../control/placement.ts';
import { backendName, capabilities, poolName } from '../../control/pools.ts';
import { type HostUse, hostUse, listServices } from '../../control/services.ts';
import { requireType } from '../../control/types.ts';
import { param } from '../asked.ts';
import { flag, one, type Query } from '../query.ts';
import { CleanUpWorkers } from '../schemas/services.ts';
import { checked } from '../schemas.ts';
import type { RouteContext } from '../server.ts';
import { type Json, timeOf } from '../views.ts';

const NAME_FILTER_SINCE = 28;
const TYPE_FILTER_SINCE = 35;
const CLUSTERS_SINCE = 7;
const CLEANUP_SINCE = 24;

export function hostRoutes(app: FastifyInstance, context: RouteContext): void {
  poolRoutes(app, context);
  const { control } = context;

  app.get('/os-hosts', { config: { rule: 'volume_extension:hosts', query: ['zone'] } }, async (request) => {
    const zone = one(request.query as Query, 'zone');
    const { availabilityZone } = control.settings;
    const services = (await listServices(control, request.asked.caller)).filter(({ isDisabled }) => !isDisabled);
    const updatedAt = timeOf(control.nowUs());
    const hosts = services.map(({ binary, host }) => ({
      host_name: host,
      service: binary,
      zone: availabilityZone,
      'service-status': 'available',
      'service-state': 'enabled',
      'last-update': updatedAt,
    }));
    return { hosts: zone === undefined || zone === '' || zone === availabilityZone ? hosts : [] };
  });
  app.get('/os-hosts/:host', { config: { rule: 'volume_extension:hosts' } }, async (request) => {
    const host = param(request, 'host');
    const projects = await hostUse(control, request.asked.caller, host);
    return { host: [totalOf(projects), ...projects].map((use) => ({ resource: resourceView(host, use) })) };
  });

  const clusters = { config: { since: CLUSTERS_SINCE, rule: 'clusters:get_all' } } as const;
  for (const path of ['/clusters', '/clusters/detail']) app.get(path, clusters, async () => ({ clusters: [] }));
  app.get('/clusters/:name', clusters, async (request) => {
    throw new Failure('not_found', { kind: 'Cluster', id: param(request, 'name') });
  });
  app.post(
    '/workers/cleanup',
    { config: { since: CLEANUP_SINCE, rule: 'workers:cleanup', body: CleanUpWorkers } },
    async (request, reply) => {
      checked(request, CleanUpWorkers, request.body ?? {});
      // What a crash interrupted was taken up at the start.
      return reply.code(202).send({ cleaning: [], unavailable: [] });
    },
  );
}

function poolRoutes(app: FastifyInstance, { control }: RouteContext): void {
  app.get(
    '/scheduler-stats/get_pools',
    { config: { rule: 'scheduler_extension:scheduler_stats:get_pools', query: ['name', 'detail', 'volume_type'] } },
    async (request) => {
      const query = request.query as Query;
      const { minor } = request.asked;
      const isDetailed = flag(query, 'detail');
      const name = minor >= NAME_FILTER_SINCE ? one(query, 'name') : undefined;
      const typeName = minor >= TYPE_FILTER_SINCE ? one(query, 'volume_type') : undefined;
      if (name !== undefined && name !== poolName(control)) return { pools: [] };
      if (typeName !== undefined) {
        const { reader } = control.catalog;
        if ((await unfit(control, reader, await requireType(reader, typeName))) !== null) return { pools: [] };
      }
      if (!isDetailed) return { pools: [{ name: poolName(control) }] };
      const found = { ...(await capabilities(control)), timestamp: timeOf(control.nowUs()) };
      return { pools: [{ name: poolName(control), capabilities: found }] };
    },
  );

  app.get('/capabilities/:host', { config: { rule: 'volume_extension:capabilities' } }, async (request) => {
    const host = param(request, 'host');
    if (host !== backendName(control)) throw new Failure('not_found', { kind: 'Service on host', id: host });
    const found = await capabilities(control);
    return {
      namespace: `OS::Storage::Capabilities::${host}`,
      vendor_name: found['vendor_name'],
      volume_backend_name: found['volume_backend_name'],
      pool_name: found['pool_name'],
      driver_version: found['driver_version'],
      storage_protocol: found['storage_protocol'],
      display_name: 'Quarry',
      description: 'Thin copy-on-write volumes over NBD',
      visibility: 'public',
      replication_targets: [],
      properties: PROPERTIES,
    };
  });
}

/** What a volume type may ask for; the keys are those of extra specs. */
const PROPERTIES = {
  thin_provisioning: {
    title: 'Thin Provisioning',
    description: 'Volumes take space as they are written.',
    type: 'boolean',
  },
  qos: { title: 'QoS', description: 'Operations and bytes per second are limited by qos-specs.', type: 'boolean' },
  multiattach: { title: 'Multiattach', description: 'A volume may have several attachments.', type: 'boolean' },
  replication_enabled: {
    title: 'Replication',
    description: 'Never: there is one pool.',
    type: 'boolean',
    default: false,
  },
} as const;

function totalOf(projects: readonly HostUse[]): HostUse {
  const sum = (of: (use: HostUse) => number): number => projects.reduce((total, use) => total + of(use), 0);
  return {
    projectId: '(total)',
    volumes: { count: sum((use) => use.volumes.count), sizeGib: sum((use) => use.volumes.sizeGib) },
    snapshots: { count: sum((use) => use.snapshots.count), sizeGib: sum((use) => use.snapshots.sizeGib) },
  };
}

/** Numbers as text: so they are on the wire. */
function resourceView(host: string, { projectId, volumes, snapshots }: HostUse): Json {
  return {
    host,
    project: projectId,
    volume_count: String(volumes.count),
    total_volume_gb: String(volumes.sizeGib),
    snapshot_count: String(snapshots.count),
    total_snapshot_gb: String(snapshots.sizeGib),
  };
}
