/**
 * Specs of quality of service. Associating is done by GET: the protocol is older than its good manners.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import {
  allQosSpecs,
  associateQosSpec,
  associationsOf,
  createQosSpec,
  deleteQosKeys,
  deleteQosSpec,
  disassociateAll,
  disassociateQosSpec,
  getQosSpec,
  type QosChanges,
  type QosSpec,
  updateQosSpec,
} from '../../control/qos-specs.ts';
import { param } from '../asked.ts';
import { badRequest } from '../faults.ts';
import { type Line, pageOfLines } from '../pages.ts';
import { flag, one, pageOf, type Query, type Words } from '../query.ts';
import { CreateQosSpec, DeleteQosKeys, UpdateQosSpec } from '../schemas/qos.ts';
import { checked } from '../schemas.ts';
import type { RouteContext } from '../server.ts';
import { associationView, qosView } from '../views/qos.ts';
import { linksOf, nextLink } from '../views.ts';

type QosColumn = 'id' | 'name' | 'consumer' | 'created_at' | 'updated_at';

const WORDS: Words<QosColumn> = {
  filters: {
    id: { kind: 'text', column: 'id' },
    name: { kind: 'text', column: 'name' },
    consumer: { kind: 'text', column: 'consumer' },
  },
  sort: { id: 'id', name: 'name', consumer: 'consumer', created_at: 'created_at', updated_at: 'updated_at' },
};

/** What a GET that changes something is, all the same. */
const CHANGES = { rule: 'volume_extension:qos_specs_manage:update', status: 202 } as const;

export function qosRoutes(app: FastifyInstance, { control }: RouteContext): void {
  app.get(
    '/qos-specs',
    { config: { rule: 'volume_extension:qos_specs_manage:get_all', list: WORDS } },
    async (request) => {
      const page = pageOf(request.query as Query, request.asked, WORDS);
      const specs = await allQosSpecs(control, request.asked.caller);
      const items = pageOfLines(specs.map(lineOf), page, 'QoS spec').map(qosView);
      return { qos_specs: items, ...nextLink(request, { collection: 'qos_specs', limit: page.limit, items }) };
    },
  );

  app.post(
    '/qos-specs',
    { config: { rule: 'volume_extension:qos_specs_manage:create', body: CreateQosSpec, status: 200 } },
    async (request) => {
      const { qos_specs: body } = checked(request, CreateQosSpec, request.body);
      const { name, ...rest } = body;
      const spec = await createQosSpec(control, request.asked.caller, { name, ...changesOf(rest) });
      return { qos_specs: qosView(spec), links: linksOf(request.asked, 'qos-specs', spec.row.id) };
    },
  );

  app.get('/qos-specs/:id', { config: { rule: 'volume_extension:qos_specs_manage:get' } }, async (request) => {
    const spec = await getQosSpec(control, request.asked.caller, param(request, 'id'));
    return { qos_specs: qosView(spec), links: linksOf(request.asked, 'qos-specs', spec.row.id) };
  });

  app.put(
    '/qos-specs/:id',
    { config: { rule: 'volume_extension:qos_specs_manage:update', body: UpdateQosSpec } },
    async (request) => {
      const { qos_specs: body } = checked(request, UpdateQosSpec, request.body);
      await updateQosSpec(control, request.asked.caller, { id: param(request, 'id'), changes: changesOf(body) });
      return { qos_specs: body };
    },
  );

  app.delete(
    '/qos-specs/:id',
    { config: { rule: 'volume_extension:qos_specs_manage:delete', query: ['force'] } },
    async (request, reply) => {
      const force = flag(request.query as Query, 'force');
      await deleteQosSpec(control, request.asked.caller, { id: param(request, 'id'), force });
      return reply.code(202).send();
    },
  );

  app.put(
    '/qos-specs/:id/delete_keys',
    { config: { rule: 'volume_extension:qos_specs_manage:delete', body: DeleteQosKeys, status: 202 } },
    async (request, reply) => {
      const { keys } = checked(request, DeleteQosKeys, request.body);
      await deleteQosKeys(control, request.asked.caller, { id: param(request, 'id'), keys });
      return reply.code(202).send();
    },
  );

  app.get(
    '/qos-specs/:id/associations',
    { config: { rule: 'volume_extension:qos_specs_manage:get_all' } },
    async (request) => {
      const types = await associationsOf(control, request.asked.caller, param(request, 'id'));
      return { qos_associations: types.map(associationView) };
    },
  );
  app.get('/qos-specs/:id/associate', { config: { ...CHANGES, query: ['vol_type_id'] } }, async (request, reply) => {
    await associateQosSpec(control, request.asked.caller, { id: param(request, 'id'), typeId: typeIdOf(request) });
    return reply.code(202).send();
  });
  app.get('/qos-specs/:id/disassociate', { config: { ...CHANGES, query: ['vol_type_id'] } }, async (request, reply) => {
    await disassociateQosSpec(control, request.asked.caller, { id: param(request, 'id'), typeId: typeIdOf(request) });
    return reply.code(202).send();
  });
  app.get('/qos-specs/:id/disassociate_all', { config: CHANGES }, async (request, reply) => {
    await disassociateAll(control, request.asked.caller, param(request, 'id'));
    return reply.code(202).send();
  });
}

function typeIdOf(request: FastifyRequest): string {
  const id = one(request.query as Query, 'vol_type_id');
  if (id === undefined || id === '') throw badRequest('Volume Type id must not be None.');
  return id;
}

function changesOf({ consumer, ...specs }: Readonly<Record<string, string | number>>): QosChanges {
  return {
    consumer: consumer === undefined ? null : String(consumer),
    specs: Object.fromEntries(Object.entries(specs).map(([key, value]) => [key, String(value)])),
  };
}

function lineOf(spec: QosSpec): Line<QosColumn, QosSpec> {
  return { item: spec, columns: spec.row, entries: spec.specs };
}
