/**
 * What lies in a backend without being a volume or snapshot of this service, to be taken over: in this one there is never
 * anything. The calls exist so that tools that look get an answer.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { type Static, type TObject, Type } from 'typebox';
import { Failure } from '../../base/errors.ts';
import type { Rule } from '../../control/policy.ts';
import { visibleVolume } from '../../control/states.ts';
import { badRequest } from '../faults.ts';
import { one, pageOf, type Query } from '../query.ts';
import { checked, Id, idOf, shown } from '../schemas.ts';
import type { RouteContext } from '../server.ts';

const MANAGEABLE_SINCE = 8;
const CLUSTERS_SINCE = 17;

const Reference = Type.Unsafe<object | string>({ type: ['object', 'string'] });
const ManageVolume = Type.Object({
  volume: Type.Object({ ref: Reference, host: Type.Optional(Type.String({ minLength: 1, maxLength: 255 })) }),
});
const ManageSnapshot = Type.Object({ snapshot: Type.Object({ ref: Reference, volume_id: Id }) });

const WORDS = { filters: {}, sort: { reference: 'id', size: 'id' } } as const;

export function manageableRoutes(app: FastifyInstance, context: RouteContext): void {
  const kinds = [
    { path: '/manageable_volumes', since: MANAGEABLE_SINCE, kind: 'volume' },
    { path: '/os-volume-manage', since: 0, kind: 'volume' },
    { path: '/manageable_snapshots', since: MANAGEABLE_SINCE, kind: 'snapshot' },
    { path: '/os-snapshot-manage', since: 0, kind: 'snapshot' },
  ] as const;
  for (const { path, since, kind } of kinds) {
    const isVolume = kind === 'volume';
    const lists: Rule = isVolume ? 'volume_extension:list_manageable' : 'snapshot_extension:list_manageable';
    const manages: Rule = isVolume ? 'volume_extension:volume_manage' : 'snapshot_extension:snapshot_manage';
    for (const each of [path, `${path}/detail`]) {
      const config = { since, rule: lists, list: WORDS, query: ['host', 'cluster'] };
      app.get(each, { config }, async (request) => {
        requireHere(request, context);
        return { [`manageable-${kind}s`]: [] };
      });
    }
    const config = { since, rule: manages, body: isVolume ? ManageVolume : ManageSnapshot };
    app.post(path, { config }, (request) => (isVolume ? manageVolume : manageSnapshot)(request, context));
  }
}

function requireHere(request: FastifyRequest, { place }: RouteContext): void {
  const query = request.query as Query;
  const host = one(query, 'host') ?? '';
  const cluster = request.asked.minor >= CLUSTERS_SINCE ? (one(query, 'cluster') ?? '') : '';
  if ((host === '') === (cluster === ''))
    throw badRequest('Invalid input received: One and only one of cluster and host must be set.');
  const sort = one(query, 'sort') === undefined && one(query, 'sort_key') === undefined ? { sort: 'reference' } : {};
  const { host: _host, cluster: _cluster, ...rest } = query;
  // Pages and orders of nothing are still checked.
  pageOf({ ...rest, ...sort }, request.asked, WORDS);
  if (host.split('#')[0] !== place.host.split('#')[0])
    throw new Failure('not_found', { kind: 'Service', id: host === '' ? `of cluster ${cluster}` : host });
}

async function manageVolume(request: FastifyRequest, { place }: RouteContext): Promise<never> {
  const { volume } = body(request, ManageVolume);
  if (volume.host === undefined) throw badRequest('Invalid input received: Host field is missing.');
  if (volume.host.split('#')[0] !== place.host.split('#')[0])
    throw new Failure('not_found', { kind: 'Service', id: volume.host });
  throw badRequest(unmanaged('volume', volume.ref));
}

async function manageSnapshot(request: FastifyRequest, { control }: RouteContext): Promise<never> {
  const { snapshot } = body(request, ManageSnapshot);
  await visibleVolume(control.catalog.reader, request.asked.caller, idOf(snapshot.volume_id));
  throw badRequest(unmanaged('snapshot', snapshot.ref));
}

function body<Schema extends TObject>(request: FastifyRequest, schema: Schema): Static<Schema> {
  return checked(request, schema, request.body);
}

function unmanaged(kind: string, reference: object | string): string {
  const why = `the pool holds nothing but the volumes and snapshots of this service. Import an image instead`;
  return `Manage existing ${kind} failed due to invalid backend reference ${shown(reference)}: ${why}.`;
}
