/**
 * The shapes of what the attachments API and the actions around attaching take. A connector is the client's own
 * description of its machine: of any shape, as large as a body may be.
 */
import { Type } from 'typebox';
import { Boolish, closed, Id, IdOrNull } from '../schemas.ts';

const ConnectorShape = { type: 'object' } as const;
const Connector = Type.Unsafe<Record<string, unknown>>({ ...ConnectorShape, minProperties: 1 });
const ConnectorOrNull = Type.Unsafe<Record<string, unknown> | null>({ type: ['object', 'null'] });
/** Old clients also send a text, which says nothing. */
const OldConnector = Type.Unsafe<Record<string, unknown> | string>({ type: ['object', 'string'] });
const OldConnectorOrNull = Type.Unsafe<Record<string, unknown> | string | null>({ type: ['object', 'string', 'null'] });
const Reported = Type.Optional(Type.Unsafe<string | boolean | null>({ type: ['string', 'boolean', 'null'] }));
const TextOrNull = Type.Unsafe<string | null>({ type: ['string', 'null'], maxLength: 255 });

const NewAttachment = {
  volume_uuid: Id,
  instance_uuid: Type.Optional(Id),
  connector: Type.Optional(ConnectorOrNull),
};
export const CreateAttachment = closed({ attachment: closed(NewAttachment) });
export const CreateAttachmentWithMode = closed({
  attachment: closed({ ...NewAttachment, mode: Type.Optional(Type.Unsafe<'rw' | 'ro'>({ enum: ['rw', 'ro'] })) }),
});
export const UpdateAttachment = closed({ attachment: closed({ connector: Connector }) });

/** The value below each action's key. */
export const ATTACH_ACTION = {
  initialize: closed({ connector: OldConnector }),
  terminate: closed({ connector: OldConnectorOrNull }),
  forceDetach: closed({
    attachment_id: Type.Optional(IdOrNull),
    connector: Type.Optional(OldConnectorOrNull),
  }),
  migrate: closed({
    host: Type.Optional(TextOrNull),
    cluster: Type.Optional(TextOrNull),
    force_host_copy: Type.Optional(Boolish),
    lock_volume: Type.Optional(Boolish),
  }),
  migrated: closed({ new_volume: Id, error: Reported }),
  extended: closed({ error: Reported }),
  snapshotStatus: closed({
    status: Type.String(),
    progress: Type.Optional(Type.Unsafe<string | null>({ type: ['string', 'null'], pattern: '^(100|[0-9]{1,2})%$' })),
  }),
} as const;

/** What nobody said, where a client may leave it out. */
export function connectorOf(
  value: Record<string, unknown> | string | null | undefined,
): Record<string, unknown> | null {
  return typeof value === 'object' ? value : null;
}
