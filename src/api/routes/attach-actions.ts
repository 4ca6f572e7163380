/**
 * The volume actions around attaching, with their schemas. What they mean is control's.
 */
import type { Static } from 'typebox';
import {
  attachVolume,
  detachVolume,
  initializeConnection,
  type Move,
  moveVolume,
  terminateConnection,
} from '../../control/attach-actions.ts';
import type { Rule } from '../../control/policy.ts';
import { type Action, type ActionCall, action } from '../actions.ts';
import { badRequest } from '../faults.ts';
import { ATTACH_ACTION, connectorOf } from '../schemas/attachments.ts';
import { ACTION, idOf } from '../schemas.ts';
import { connectionView } from '../views/attachments.ts';

const MOVES: readonly (readonly [string, Move, Rule])[] = [
  ['os-reserve', 'reserve', 'volume_extension:volume_actions:reserve'],
  ['os-unreserve', 'unreserve', 'volume_extension:volume_actions:unreserve'],
  ['os-begin_detaching', 'begin-detaching', 'volume_extension:volume_actions:begin_detaching'],
  ['os-roll_detaching', 'roll-detaching', 'volume_extension:volume_actions:roll_detaching'],
];

export function attachActions(): (readonly [string, Action])[] {
  return [
    ...MOVES.map(([name, move, rule]): [string, Action] => [
      name,
      action(ACTION.nothing, ({ control, asked, id }) => moveVolume(control, asked.caller, { id, action: move }), {
        rule,
      }),
    ]),
    ['os-attach', attach()],
    [
      'os-detach',
      action(
        ACTION.detach,
        ({ control, asked, id, value }) =>
          detachVolume(control, asked.caller, { id, attachmentId: idOrNull(value?.attachment_id) }),
        { rule: 'volume_extension:volume_actions:detach' },
      ),
    ],
    [
      'os-force_detach',
      // The export goes with the attachment, whatever the client says of its machine.
      action(
        ATTACH_ACTION.forceDetach,
        ({ control, asked, id, value }) =>
          detachVolume(control, asked.caller, { id, attachmentId: idOrNull(value.attachment_id) }),
        { rule: 'volume_extension:volume_admin_actions:force_detach' },
      ),
    ],
    [
      'os-initialize_connection',
      action(
        ATTACH_ACTION.initialize,
        async ({ control, asked, id, value }) => {
          const connector = connectorOf(value.connector);
          if (connector === null) throw badRequest('Invalid input received: the connector must be an object.');
          const connection = await initializeConnection(control, asked.caller, { id, connector });
          return { connection_info: connectionView(connection) };
        },
        { status: 200, rule: 'volume_extension:volume_actions:initialize_connection' },
      ),
    ],
    [
      'os-terminate_connection',
      action(
        ATTACH_ACTION.terminate,
        ({ control, asked, id, value }) =>
          terminateConnection(control, asked.caller, { id, connector: connectorOf(value.connector) }),
        { rule: 'volume_extension:volume_actions:terminate_connection' },
      ),
    ],
  ];
}

function attach(): Action {
  const rule = 'volume_extension:volume_actions:attach';
  const work = ({ control, asked, id, value }: ActionCall<Static<typeof ACTION.attach>>): Promise<void> => {
    const instance = value.instance_uuid ?? null;
    const hostName = value.host_name ?? null;
    if ((instance === null) === (hostName === null))
      throw badRequest('Invalid input received: Exactly one of instance_uuid and host_name is needed to attach.');
    const instanceId = instance === null ? null : idOf(instance);
    const wanted = { id, instanceId, hostName, device: value.mountpoint, mode: value.mode ?? null };
    return attachVolume(control, asked.caller, wanted);
  };
  return action(ACTION.attach, work, { rule });
}

function idOrNull(value: string | null | undefined): string | null {
  return value == null ? null : idOf(value);
}
