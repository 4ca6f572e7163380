/**
 * `POST /volumes/{id}/action`: one key names the action, its value is the action's body. A table of actions; what they
 * mean is control's.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Static, TSchema } from 'typebox';
import type { Control } from '../../control/control.ts';
import { changeMetadata, deleteMetadata, getMetadata, type Owner } from '../../control/metadata.ts';
import { type Caller, enforce, isAllowed, type Rule, refusal } from '../../control/policy.ts';
import { retypeVolume } from '../../control/retype.ts';
import { resetVolume, setBootable, setReadOnly } from '../../control/volume-actions.ts';
import { deleteVolume, extendVolume, getVolume, revertVolume } from '../../control/volumes.ts';
import { type Asked, param } from '../asked.ts';
import { badRequest, tooNew } from '../faults.ts';
import { ACTION, booleanOf, checked, gibOf, idOf } from '../schemas.ts';
import type { RouteContext } from '../server.ts';
import type { Json } from '../views.ts';
import { attachActions } from './attach-actions.ts';
import { placementActions } from './placement-actions.ts';

export type ActionCall<Value> = {
  readonly control: Control;
  readonly asked: Asked;
  readonly id: string;
  readonly value: Value;
};

export type Action = {
  /** The first microversion that has it. */
  readonly since: number;
  /** 202 where nothing else is said. */
  readonly status: number;
  readonly rule: Rule | null;
  /** Of the value below the action's key. */
  readonly schema: TSchema;
  run(request: FastifyRequest, control: Control): Promise<Json | null>;
};

/** Ties an action's schema to what it does with a value of that shape. */
export function action<Schema extends TSchema>(
  schema: Schema,
  work: (call: ActionCall<Static<Schema>>) => Promise<unknown>,
  options: { since?: number; status?: number; rule?: Rule } = {},
): Action {
  return {
    since: options.since ?? 0,
    status: options.status ?? 202,
    rule: options.rule ?? null,
    schema,
    async run(request, control) {
      const [value] = Object.values(request.body as Json);
      const call = { control, asked: request.asked, id: param(request, 'id'), value: checked(request, schema, value) };
      const answer = await work(call);
      return typeof answer === 'object' ? (answer as Json | null) : null;
    },
  };
}

/** Runs the action that a body names. */
export async function perform(
  request: FastifyRequest,
  reply: FastifyReply,
  { control, actions }: { control: Control; actions: ReadonlyMap<string, Action> },
): Promise<FastifyReply> {
  const body = request.body;
  if (typeof body !== 'object' || body === null || Array.isArray(body) || Object.keys(body).length !== 1)
    throw badRequest('Malformed request body');
  const [name = ''] = Object.keys(body);
  const found = actions.get(name);
  if (found === undefined || request.asked.minor < found.since) {
    if (found !== undefined) throw tooNew(request.asked.minor);
    const advice = 'Verify the request body and Content-Type header and try again.';
    throw badRequest(`There is no such action: ${name.slice(0, 255)}. ${advice}`);
  }
  requireAction(request.asked.caller, name, found);
  const answer = await found.run(request, control);
  reply.code(found.status);
  return answer === null ? reply.send() : reply.send(answer);
}

/** An action that names no rule changes something, so it is for members. */
function requireAction(caller: Caller, name: string, { rule }: Action): void {
  if (rule !== null) enforce(caller, rule);
  else if (!isAllowed(caller, 'member')) throw refusal(name);
}

const image = (id: string): Owner => ({ kind: 'volume', id, scope: 'image' });

const NO_IMAGES = 'Image service is not available';

const ACTIONS: readonly (readonly [string, Action])[] = [
  [
    'os-extend',
    action(
      ACTION.extend,
      ({ control, asked, id, value }) => {
        const sizeGib = gibOf('new_size', value.new_size);
        return extendVolume(control, asked.caller, { id, sizeGib, alsoInUse: asked.minor >= 42 });
      },
      { rule: 'volume:extend' },
    ),
  ],
  [
    'revert',
    action(
      ACTION.revert,
      ({ control, asked, id, value }) =>
        revertVolume(control, asked.caller, { id, snapshotId: idOf(value.snapshot_id) }),
      { since: 40, rule: 'volume:revert_to_snapshot' },
    ),
  ],
  [
    'os-set_bootable',
    action(
      ACTION.bootable,
      ({ control, asked, id, value }) =>
        setBootable(control, asked.caller, { id, isBootable: booleanOf(value.bootable) === true }),
      { status: 200, rule: 'volume:update' },
    ),
  ],
  [
    'os-update_readonly_flag',
    action(
      ACTION.readonly,
      ({ control, asked, id, value }) =>
        setReadOnly(control, asked.caller, { id, isReadOnly: booleanOf(value.readonly) === true }),
      { rule: 'volume:update_readonly_flag' },
    ),
  ],
  [
    'os-reset_status',
    action(
      ACTION.resetVolume,
      ({ control, asked, id, value }) =>
        resetVolume(control, asked.caller, {
          id,
          status: value.status?.toLowerCase() ?? null,
          detach: value.attach_status?.toLowerCase() === 'detached',
        }),
      { rule: 'volume_extension:volume_admin_actions:reset_status' },
    ),
  ],
  [
    'os-force_delete',
    action(
      ACTION.nothing,
      ({ control, asked, id }) => deleteVolume(control, asked.caller, { id, cascade: false, force: true }),
      { rule: 'volume_extension:volume_admin_actions:force_delete' },
    ),
  ],
  [
    'os-set_image_metadata',
    action(
      ACTION.imageMetadata,
      async ({ control, asked, id, value }) => {
        const entries = new Map(Object.entries(value.metadata));
        const all = await changeMetadata(control, asked.caller, { owner: image(id), entries, replace: false });
        return { metadata: Object.fromEntries(all) };
      },
      { status: 200, rule: 'volume_extension:volume_image_metadata:set' },
    ),
  ],
  [
    'os-show_image_metadata',
    action(
      ACTION.nothing,
      async ({ control, asked, id }) => {
        return { metadata: Object.fromEntries(await getMetadata(control, asked.caller, image(id))) };
      },
      { status: 200, rule: 'volume_extension:volume_image_metadata:show' },
    ),
  ],
  [
    'os-unset_image_metadata',
    action(
      ACTION.imageKey,
      ({ control, asked, id, value }) => deleteMetadata(control, asked.caller, { owner: image(id), key: value.key }),
      { status: 200, rule: 'volume_extension:volume_image_metadata:remove' },
    ),
  ],
  [
    'os-retype',
    action(
      ACTION.retype,
      ({ control, asked, id, value }) => retypeVolume(control, asked.caller, { id, type: value.new_type }),
      { rule: 'volume:retype' },
    ),
  ],
  [
    'os-volume_upload_image',
    action(ACTION.nothing, refuseImages, { rule: 'volume_extension:volume_actions:upload_image' }),
  ],
  ['os-reimage', action(ACTION.nothing, refuseImages, { since: 68, rule: 'volume:reimage' })],
];

async function refuseImages({ control, asked, id }: ActionCall<unknown>): Promise<void> {
  await getVolume(control, asked.caller, id);
  throw badRequest(NO_IMAGES);
}

export function volumeActionRoutes(app: FastifyInstance, { control, place }: RouteContext): void {
  const actions = new Map([...ACTIONS, ...attachActions(), ...placementActions(place.host)]);
  app.post('/volumes/:id/action', { config: { actions } }, (request, reply) =>
    perform(request, reply, { control, actions }),
  );
}
