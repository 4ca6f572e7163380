/**
 * What hangs on volume types: extra specs, access of projects, encryption records, and the default types of projects.
 */
import type { FastifyInstance } from 'fastify';
import { Failure } from '../../base/errors.ts';
import {
  accessOf,
  addAccess,
  createEncryption,
  defaultTypes,
  deleteEncryption,
  deleteExtraSpec,
  encryptionOf,
  getDefaultType,
  missingSpec,
  setDefaultType,
  setExtraSpecs,
  unsetDefaultType,
  updateEncryption,
  withdrawAccess,
} from '../../control/type-details.ts';
import { getType } from '../../control/types.ts';
import { type Action, action, perform } from '../actions.ts';
import { param } from '../asked.ts';
import { badRequest } from '../faults.ts';
import {
  CreateEncryption,
  ExtraSpecBody,
  ExtraSpecsBody,
  SetDefaultType,
  TYPE_ACTION,
  UpdateEncryption,
} from '../schemas/types.ts';
import { checked } from '../schemas.ts';
import type { RouteContext } from '../server.ts';
import { defaultTypeView, encryptionView, extraSpecsView } from '../views/types.ts';

const DEFAULT_TYPES_SINCE = 62;

const ACTIONS: ReadonlyMap<string, Action> = new Map<string, Action>([
  [
    'addProjectAccess',
    action(
      TYPE_ACTION.access,
      ({ control, asked, id, value }) => addAccess(control, asked.caller, { typeId: id, projectId: value.project }),
      { rule: 'volume_extension:volume_type_access:addProjectAccess' },
    ),
  ],
  [
    'removeProjectAccess',
    action(
      TYPE_ACTION.access,
      ({ control, asked, id, value }) =>
        withdrawAccess(control, asked.caller, { typeId: id, projectId: value.project }),
      { rule: 'volume_extension:volume_type_access:removeProjectAccess' },
    ),
  ],
]);

export function typeDetailRoutes(app: FastifyInstance, context: RouteContext): void {
  const { control } = context;
  extraSpecRoutes(app, context);
  encryptionRoutes(app, context);

  app.get(
    '/types/:id/os-volume-type-access',
    { config: { rule: 'volume_extension:volume_type_access:get_all_for_type' } },
    async (request) => {
      const id = param(request, 'id');
      const projects = await accessOf(control, request.asked.caller, id);
      return { volume_type_access: projects.map((project) => ({ volume_type_id: id, project_id: project })) };
    },
  );
  app.post('/types/:id/action', { config: { actions: ACTIONS } }, (request, reply) =>
    perform(request, reply, { control, actions: ACTIONS }),
  );

  app.get(
    '/default-types',
    { config: { since: DEFAULT_TYPES_SINCE, rule: 'volume_extension:default_get_all' } },
    async (request) => {
      return { default_types: (await defaultTypes(control, request.asked.caller)).map(defaultTypeView) };
    },
  );
  app.get(
    '/default-types/:target',
    { config: { since: DEFAULT_TYPES_SINCE, rule: 'volume_extension:default_get' } },
    async (request) => {
      const row = await getDefaultType(control, request.asked.caller, param(request, 'target'));
      return { default_type: defaultTypeView(row) };
    },
  );
  app.put(
    '/default-types/:target',
    { config: { since: DEFAULT_TYPES_SINCE, rule: 'volume_extension:default_set_or_update', body: SetDefaultType } },
    async (request) => {
      const { default_type: body } = checked(request, SetDefaultType, request.body);
      const wanted = { projectId: param(request, 'target'), type: body.volume_type };
      return { default_type: defaultTypeView(await setDefaultType(control, request.asked.caller, wanted)) };
    },
  );
  app.delete(
    '/default-types/:target',
    { config: { since: DEFAULT_TYPES_SINCE, rule: 'volume_extension:default_unset', status: 204 } },
    async (request, reply) => {
      await unsetDefaultType(control, request.asked.caller, param(request, 'target'));
      return reply.code(204).send();
    },
  );
}

function extraSpecRoutes(app: FastifyInstance, { control }: RouteContext): void {
  app.get('/types/:id/extra_specs', async (request) => {
    const { extraSpecs } = await getType(control, request.asked.caller, param(request, 'id'));
    return { extra_specs: extraSpecsView(request.asked, extraSpecs) };
  });
  app.post(
    '/types/:id/extra_specs',
    { config: { rule: 'volume_extension:types_extra_specs:create', body: ExtraSpecsBody, status: 200 } },
    async (request) => {
      const { extra_specs: specs } = checked(request, ExtraSpecsBody, request.body);
      await setExtraSpecs(control, request.asked.caller, { id: param(request, 'id'), specs, as: 'create' });
      return { extra_specs: specs };
    },
  );
  app.get('/types/:id/extra_specs/:key', async (request) => {
    const [id, key] = [param(request, 'id'), param(request, 'key')];
    const { extraSpecs } = await getType(control, request.asked.caller, id);
    const shown = extraSpecsView(request.asked, extraSpecs);
    const value = Object.hasOwn(shown, key) ? shown[key] : undefined;
    if (value === undefined) throw missingSpec(id, key);
    return Object.fromEntries([[key, value]]);
  });
  app.put(
    '/types/:id/extra_specs/:key',
    { config: { rule: 'volume_extension:types_extra_specs:update', body: ExtraSpecBody } },
    async (request) => {
      const specs = checked(request, ExtraSpecBody, request.body);
      if (!Object.hasOwn(specs, param(request, 'key'))) throw badRequest('Request body and URI mismatch');
      await setExtraSpecs(control, request.asked.caller, { id: param(request, 'id'), specs, as: 'update' });
      return specs;
    },
  );
  app.delete(
    '/types/:id/extra_specs/:key',
    { config: { rule: 'volume_extension:types_extra_specs:delete' } },
    async (request, reply) => {
      const [id, key] = [param(request, 'id'), param(request, 'key')];
      await deleteExtraSpec(control, request.asked.caller, { id, key });
      return reply.code(202).send();
    },
  );
}

function encryptionRoutes(app: FastifyInstance, { control }: RouteContext): void {
  app.get(
    '/types/:id/encryption',
    { config: { rule: 'volume_extension:volume_type_encryption:get' } },
    async (request) => {
      return encryptionView(await encryptionOf(control, request.asked.caller, param(request, 'id')));
    },
  );
  app.post(
    '/types/:id/encryption',
    { config: { rule: 'volume_extension:volume_type_encryption:create', body: CreateEncryption, status: 200 } },
    async (request) => {
      const { encryption: body } = checked(request, CreateEncryption, request.body);
      const row = await createEncryption(control, request.asked.caller, {
        id: param(request, 'id'),
        encryption: {
          provider: body.provider,
          control_location: body.control_location,
          cipher: body.cipher ?? null,
          key_size: keySizeOf(body.key_size ?? null),
        },
      });
      const { provider, control_location, cipher, key_size, encryption_id, type_id } = row;
      return {
        encryption: { volume_type_id: type_id, encryption_id, provider, control_location, cipher, key_size },
      };
    },
  );
  app.get(
    '/types/:id/encryption/:encryptionId',
    { config: { rule: 'volume_extension:volume_type_encryption:get' } },
    async (request) => {
      const [id, key] = [param(request, 'id'), param(request, 'encryptionId')];
      const view = encryptionView(await encryptionOf(control, request.asked.caller, id));
      if (!Object.hasOwn(view, key))
        throw new Failure('not_found', { kind: `Volume type ${id} encryption field`, id: key });
      return Object.fromEntries([[key, view[key]]]);
    },
  );
  app.put(
    '/types/:id/encryption/:encryptionId',
    { config: { rule: 'volume_extension:volume_type_encryption:update', body: UpdateEncryption } },
    async (request) => {
      const { encryption: body } = checked(request, UpdateEncryption, request.body);
      const changes = {
        ...(body.provider !== undefined && { provider: body.provider }),
        ...(body.control_location !== undefined && { control_location: body.control_location }),
        ...(body.cipher !== undefined && { cipher: body.cipher }),
        ...(body.key_size !== undefined && { key_size: keySizeOf(body.key_size) }),
      };
      const wanted = { id: param(request, 'id'), encryptionId: param(request, 'encryptionId'), changes };
      await updateEncryption(control, request.asked.caller, wanted);
      return { encryption: changes };
    },
  );
  app.delete(
    '/types/:id/encryption/:encryptionId',
    { config: { rule: 'volume_extension:volume_type_encryption:delete' } },
    async (request, reply) => {
      const wanted = { id: param(request, 'id'), encryptionId: param(request, 'encryptionId') };
      await deleteEncryption(control, request.asked.caller, wanted);
      return reply.code(202).send();
    },
  );
}

function keySizeOf(value: number | string | null): number | null {
  return value === null ? null : Number(value);
}
