/**
 * Metadata of volumes and snapshots, as a whole and key by key.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { changeMetadata, deleteMetadata, getMetadata, getMetadataValue, type Owner } from '../../control/metadata.ts';
import { param } from '../asked.ts';
import { badRequest } from '../faults.ts';
import { checked, MetaBody, MetadataBody } from '../schemas.ts';
import type { RouteContext } from '../server.ts';

const RULES = {
  volume: {
    create: 'volume:create_volume_metadata',
    update: 'volume:update_volume_metadata',
    remove: 'volume:delete_volume_metadata',
  },
  snapshot: {
    create: 'volume:update_snapshot_metadata',
    update: 'volume:update_snapshot_metadata',
    remove: 'volume:delete_snapshot_metadata',
  },
} as const;

export function metadataRoutes(app: FastifyInstance, { control }: RouteContext): void {
  for (const kind of ['volume', 'snapshot'] as const) {
    const path = `/${kind}s/:id/metadata`;
    const owner = (request: FastifyRequest): Owner => ({ kind, id: param(request, 'id'), scope: 'user' });
    const change = async (request: FastifyRequest, { replace }: { replace: boolean }) => {
      const entries = new Map(Object.entries(checked(request, MetadataBody, request.body).metadata));
      const all = await changeMetadata(control, request.asked.caller, { owner: owner(request), entries, replace });
      return { metadata: Object.fromEntries(all) };
    };

    app.get(path, { config: { hasEtag: true } }, async (request) => {
      return { metadata: Object.fromEntries(await getMetadata(control, request.asked.caller, owner(request))) };
    });
    const rules = RULES[kind];
    app.post(path, { config: { rule: rules.create, body: MetadataBody, status: 200 } }, async (request) =>
      change(request, { replace: false }),
    );
    app.put(path, { config: { rule: rules.update, body: MetadataBody } }, async (request) =>
      change(request, { replace: true }),
    );

    app.get(`${path}/:key`, { config: { hasEtag: true } }, async (request) => {
      const key = param(request, 'key');
      const value = await getMetadataValue(control, request.asked.caller, { owner: owner(request), key });
      return { meta: Object.fromEntries([[key, value]]) };
    });
    app.put(`${path}/:key`, { config: { rule: rules.update, body: MetaBody } }, async (request) => {
      const { meta } = checked(request, MetaBody, request.body);
      const key = param(request, 'key');
      if (!Object.hasOwn(meta, key)) throw badRequest('Request body and URI mismatch');
      const entries = new Map(Object.entries(meta));
      await changeMetadata(control, request.asked.caller, { owner: owner(request), entries, replace: false });
      return { meta };
    });
    app.delete(`${path}/:key`, { config: { rule: rules.remove, status: 200 } }, async (request, reply) => {
      await deleteMetadata(control, request.asked.caller, { owner: owner(request), key: param(request, 'key') });
      return reply.code(200).send();
    });
  }
}
