/**
 * Quota sets, quota classes and limits.
 */
import type { FastifyInstance } from 'fastify';
import { enforceInProject } from '../../control/policy.ts';
import {
  classLimits,
  defaultLimits,
  effectiveLimits,
  quotaUse,
  resetQuota,
  updateClass,
  updateQuota,
} from '../../control/quotas.ts';
import { param } from '../asked.ts';
import { flag, one, type Query } from '../query.ts';
import { checked, QuotaClassSet, QuotaSet } from '../schemas.ts';
import type { RouteContext } from '../server.ts';
import { limitsView, quotaUseView, quotaView } from '../views.ts';

/** Clients repeat these in the body; the URL says it. */
const IGNORED: ReadonlySet<string> = new Set(['tenant_id', 'project_id', 'id', 'force']);

export function quotaRoutes(app: FastifyInstance, { control }: RouteContext): void {
  const { reader } = control.catalog;

  app.get('/os-quota-sets/:target', { config: { query: ['usage'] } }, async (request) => {
    const id = param(request, 'target');
    enforceInProject(request.asked.caller, 'volume_extension:quotas:show', id);
    const withUse = flag(request.query as Query, 'usage');
    const view = withUse
      ? quotaUseView(await quotaUse(control, id))
      : quotaView(await effectiveLimits(control, reader, id));
    return { quota_set: { id, ...view } };
  });
  app.get('/os-quota-sets/:target/defaults', async (request) => {
    const id = param(request, 'target');
    enforceInProject(request.asked.caller, 'volume_extension:quotas:show', id);
    return { quota_set: { id, ...quotaView(await defaultLimits(control, reader)) } };
  });
  app.put(
    '/os-quota-sets/:target',
    { config: { rule: 'volume_extension:quotas:update', body: QuotaSet } },
    async (request) => {
      const { quota_set: body } = checked(request, QuotaSet, request.body);
      return { quota_set: quotaView(await updateQuota(control, param(request, 'target'), limitsOf(body))) };
    },
  );
  app.delete(
    '/os-quota-sets/:target',
    { config: { rule: 'volume_extension:quotas:delete', status: 200 } },
    async (request, reply) => {
      await resetQuota(control, param(request, 'target'));
      return reply.code(200).send();
    },
  );

  app.get('/os-quota-class-sets/:name', { config: { rule: 'volume_extension:quota_classes:get' } }, async (request) => {
    const id = param(request, 'name');
    return { quota_class_set: { id, ...quotaView(await classLimits(control, id)) } };
  });
  app.put(
    '/os-quota-class-sets/:name',
    { config: { rule: 'volume_extension:quota_classes:update', body: QuotaClassSet } },
    async (request) => {
      const { quota_class_set: body } = checked(request, QuotaClassSet, request.body);
      return { quota_class_set: quotaView(await updateClass(control, param(request, 'name'), limitsOf(body))) };
    },
  );

  app.get('/limits', { config: { query: ['project_id', 'tenant_id'] } }, async (request) => {
    const query = request.query as Query;
    const { caller, minor } = request.asked;
    // Of another project only for administrators; a member's wish is ignored, as Cinder does.
    const mayName = minor >= 39 && caller.isAdmin;
    const asked = mayName ? (one(query, 'project_id') ?? one(query, 'tenant_id')) : undefined;
    const uses = await quotaUse(control, asked ?? caller.projectId);
    return { limits: { rate: [], absolute: limitsView(uses) } };
  });
}

function limitsOf(body: Readonly<Record<string, unknown>>): Map<string, number> {
  const limits = Object.entries(body).filter(([resource]) => !IGNORED.has(resource));
  return new Map(limits.map(([resource, limit]) => [resource, Number(limit)]));
}
