/**
 * What changes a volume's record and not its data: attachment as a record, flags, an administrator's word on a status.
 * A client that is connected over NBD is not an attachment; those are counted by the backend.
 */
import { Failure } from '../base/errors.ts';
import { attachmentsOf, insertAttachment, removeAttachment, removeAttachmentsOf } from '../catalog/details.ts';
import { findVolume, updateVolume } from '../catalog/volumes.ts';
import { type Control, refuseWhileConnected } from './control.ts';
import type { Caller } from './policy.ts';
import {
  begin,
  requireStatus,
  resetStatus,
  tryBegin,
  type VolumeAction,
  visibleSnapshot,
  visibleVolume,
} from './states.ts';
import { requireUsableType } from './types.ts';

/** Reserve and begin-detaching refuse in a wrong status; their opposites then change nothing. */
export async function moveVolume(
  control: Control,
  caller: Caller,
  {
    id,
    action,
  }: { id: string; action: VolumeAction & ('reserve' | 'unreserve' | 'begin-detaching' | 'roll-detaching') },
): Promise<void> {
  await control.catalog.write(async (writer) => {
    await visibleVolume(writer, caller, id);
    const step = { table: 'volumes', id, action, nowUs: control.nowUs() } as const;
    if (action === 'reserve' || action === 'begin-detaching') await begin(writer, step);
    else await tryBegin(writer, step);
  });
}

export type Attach = {
  readonly id: string;
  readonly instanceId: string | null;
  readonly hostName: string | null;
  readonly device: string;
  readonly mode: 'rw' | 'ro' | null;
};

export async function attachVolume(control: Control, caller: Caller, wanted: Attach): Promise<void> {
  const { id, instanceId, hostName } = wanted;
  await control.catalog.write(async (writer) => {
    const row = await visibleVolume(writer, caller, id);
    const known = await attachmentsOf(writer, id);
    if (known.some((one) => one.instance_id === instanceId && one.host_name === hostName)) return;
    const isReadOnly = row.read_only === 1;
    if (isReadOnly && wanted.mode === 'rw') {
      const reason = `Invalid input received: Invalid attaching mode 'rw' for volume ${id}: it is read-only.`;
      throw new Failure('bad_request', { reason });
    }
    const nowUs = control.nowUs();
    await begin(writer, { table: 'volumes', id, action: 'attach', nowUs });
    await insertAttachment(writer, {
      id: control.newId(),
      volume_id: id,
      instance_id: instanceId,
      host_name: hostName,
      device: wanted.device,
      mode: wanted.mode ?? (isReadOnly ? 'ro' : 'rw'),
      attached_at: nowUs,
    });
  });
}

export async function detachVolume(
  control: Control,
  caller: Caller,
  { id, attachmentId }: { id: string; attachmentId: string | null },
): Promise<void> {
  await control.catalog.write(async (writer) => {
    await visibleVolume(writer, caller, id);
    const known = await attachmentsOf(writer, id);
    const nowUs = control.nowUs();
    const refuse = (reason: string): Failure => new Failure('wrong_state', { reason: `Invalid volume: ${reason}` });
    if (attachmentId !== null && !known.some((one) => one.id === attachmentId))
      throw refuse(`Volume ${id} has no attachment ${attachmentId}.`);
    if (attachmentId === null && known.length > 1)
      throw refuse(`Volume ${id} has ${known.length} attachments: name the attachment_id of one.`);
    const going = attachmentId ?? known[0]?.id;
    if (going !== undefined) await removeAttachment(writer, going);
    if (known.length <= 1) await begin(writer, { table: 'volumes', id, action: 'detach', nowUs });
  });
}

export async function setBootable(
  control: Control,
  caller: Caller,
  { id, isBootable }: { id: string; isBootable: boolean },
): Promise<void> {
  await control.catalog.write(async (writer) => {
    await visibleVolume(writer, caller, id);
    await updateVolume(writer, id, { bootable: isBootable ? 1 : 0, updated_at: control.nowUs() });
  });
}

/** The export follows, which ends its connections: so there must be none. */
export async function setReadOnly(
  control: Control,
  caller: Caller,
  { id, isReadOnly }: { id: string; isReadOnly: boolean },
): Promise<void> {
  await visibleVolume(control.catalog.reader, caller, id);
  await refuseWhileConnected(control, { kind: 'volume', id, ids: [id], code: 'wrong_state' });
  await control.catalog.write(async (writer) => {
    requireStatus(await visibleVolume(writer, caller, id), 'change the read-only flag');
    await updateVolume(writer, id, { read_only: isReadOnly ? 1 : 0, updated_at: control.nowUs() });
  });
  await control.exports.refreshVolume(id);
}

/** Words that would leave a volume where only a daemon's task can bring it. */
const NOT_RESETTABLE: ReadonlySet<string> = new Set(['deleting', 'error_deleting', 'detaching']);

export type Reset = { readonly id: string; readonly status: string | null; readonly detach: boolean };

export async function resetVolume(control: Control, caller: Caller, { id, status, detach }: Reset): Promise<void> {
  await control.catalog.write(async (writer) => {
    await visibleVolume(writer, caller, id);
    if (detach) await removeAttachmentsOf(writer, id);
    if (status === null) return;
    const refuse = (why: string): Failure =>
      new Failure('bad_request', { reason: `Invalid input received: Cannot reset volume ${id} to ${status}${why}.` });
    if (NOT_RESETTABLE.has(status)) throw refuse('');
    if (status === 'in-use' && (await attachmentsOf(writer, id)).length === 0) throw refuse(': it has no attachment');
    await resetStatus(writer, { table: 'volumes', id, status, nowUs: control.nowUs() });
  });
}

export async function resetSnapshot(
  control: Control,
  caller: Caller,
  { id, status }: { id: string; status: string },
): Promise<void> {
  await control.catalog.write(async (writer) => {
    await visibleSnapshot(writer, caller, id);
    await resetStatus(writer, { table: 'snapshots', id, status, nowUs: control.nowUs() });
  });
}

/** With one type there is nothing to change to; what clients ask is answered as if there were more. */
export async function retypeVolume(
  control: Control,
  caller: Caller,
  { id, type }: { id: string; type: string },
): Promise<void> {
  const { reader } = control.catalog;
  const row = await visibleVolume(reader, caller, id);
  const wanted = await requireUsableType(reader, caller, type);
  if (row.group_id !== null) {
    const reason = `Invalid volume: Volume ${id} is in group ${row.group_id}: its type cannot be changed there.`;
    throw new Failure('wrong_state', { reason });
  }
  if (wanted.id === row.type_id) {
    const reason = `Invalid input received: New volume type must differ from the current one of volume ${id}: ${wanted.name}.`;
    throw new Failure('bad_request', { reason });
  }
  throw new Failure('not_supported', {
    reason: `Volume ${id} cannot change to type ${wanted.name}: retype is not built yet.`,
  });
}

export async function volumeExists(control: Control, id: string): Promise<boolean> {
  return (await findVolume(control.catalog.reader, id)) !== undefined;
}
