/**
 * `POST /volumes/{id}/action`: the table of a volume's actions. What they mean is control's.
 */
import type { FastifyInstance } from 'fastify';
import { Failure } from '../../base/errors.ts';
import { changeMetadata, deleteMetadata, getMetadata, type Owner } from '../../control/metadata.ts';
import { retypeVolume } from '../../control/retype.ts';
import { resetVolume, setBootable, setReadOnly } from '../../control/volume-actions.ts';
import { deleteVolume, extendVolume, getVolume, revertVolume } from '../../control/volumes.ts';
import { type Action, type ActionCall, action, perform } from '../actions.ts';
import { badRequest } from '../faults.ts';
import { ACTION, booleanOf, gibOf, idOf } from '../schemas.ts';
import type { RouteContext } from '../server.ts';
import { attachActions } from './attach-actions.ts';
import { placementActions } from './placement-actions.ts';

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
        const all = await getMetadata(control, asked.caller, image(id));
        if (all.size === 0) throw new Failure('not_found', { kind: 'Image metadata of volume', id });
        return { metadata: Object.fromEntries(all) };
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
