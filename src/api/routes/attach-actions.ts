/**
 * The volume actions around attaching, with their schemas. What they mean is control's.
 */
import { Failure } from '../../base/errors.ts';
import {
  attachVolume,
  detachVolume,
  forceDetachVolume,
  initializeConnection,
  type Move,
  moveVolume,
  terminateConnection,
} from '../../control/attach-actions.ts';
import { badRequest } from '../faults.ts';
import { ATTACH_ACTION, connectorOf } from '../schemas/attachments.ts';
import { ACTION, idOf } from '../schemas.ts';
import { connectionView } from '../views/attachments.ts';
import { type Action, action } from './volume-actions.ts';

const MOVES: readonly (readonly [string, Move])[] = [
  ['os-reserve', 'reserve'],
  ['os-unreserve', 'unreserve'],
  ['os-begin_detaching', 'begin-detaching'],
  ['os-roll_detaching', 'roll-detaching'],
];

export function attachActions(): (readonly [string, Action])[] {
  return [
    ...MOVES.map(([name, move]): [string, Action] => [
      name,
      action(ACTION.nothing, ({ control, asked, id }) => moveVolume(control, asked.caller, { id, action: move })),
    ]),
    ['os-attach', attach()],
    [
      'os-detach',
      action(ACTION.detach, ({ control, asked, id, value }) =>
        detachVolume(control, asked.caller, { id, attachmentId: idOrNull(value?.attachment_id) }),
      ),
    ],
    [
      'os-force_detach',
      action(ATTACH_ACTION.forceDetach, ({ control, asked, id, value }) =>
        forceDetachVolume(control, asked.caller, { id, attachmentId: idOrNull(value.attachment_id) }),
      ),
    ],
    [
      'os-initialize_connection',
      action(
        ATTACH_ACTION.initialize,
        async ({ control, asked, id, value }) => {
          const connector = connectorOf(value.connector);
          if (connector === null)
            throw new Failure('bad_request', { reason: 'Invalid input received: the connector must be an object.' });
          const connection = await initializeConnection(control, asked.caller, { id, connector });
          return { connection_info: connectionView(connection) };
        },
        { status: 200 },
      ),
    ],
    [
      'os-terminate_connection',
      action(ATTACH_ACTION.terminate, ({ control, asked, id, value }) =>
        terminateConnection(control, asked.caller, { id, connector: connectorOf(value.connector) }),
      ),
    ],
  ];
}

function attach(): Action {
  return action(ACTION.attach, ({ control, asked, id, value }) => {
    const instance = value.instance_uuid ?? null;
    const hostName = value.host_name ?? null;
    if ((instance === null) === (hostName === null))
      throw badRequest('Invalid input received: Exactly one of instance_uuid and host_name is needed to attach.');
    const instanceId = instance === null ? null : idOf(instance);
    const wanted = { id, instanceId, hostName, device: value.mountpoint, mode: value.mode ?? null };
    return attachVolume(control, asked.caller, wanted);
  });
}

function idOrNull(value: string | null | undefined): string | null {
  return value == null ? null : idOf(value);
}
