/**
 * What changes a volume's record and not its data: flags, an administrator's word on a status, and what only an
 * installation with several backends could do. A client that is connected over NBD is not an attachment; those are
 * counted by the backend.
 */
import { Failure } from '../base/errors.ts';
import { attachmentsOf, connectionsOf, removeAttachment, removeConnections } from '../catalog/attachments.ts';
import type { Writer } from '../catalog/schema.ts';
import { updateSnapshot } from '../catalog/snapshots.ts';
import { findVolume, updateVolume } from '../catalog/volumes.ts';
import { isVolumeFailed } from './attachments.ts';
import { refuseWhileConnectable, withdrawn } from './connections.ts';
import { type Control, refuseWhileConnected } from './control.ts';
import type { Caller } from './policy.ts';
import { followAttachments, requireStatus, resetStatus, visibleSnapshot, visibleVolume } from './states.ts';

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
    await refuseWhileConnectable(writer, { id, code: 'wrong_state' });
    await updateVolume(writer, id, { read_only: isReadOnly ? 1 : 0, updated_at: control.nowUs() });
  });
  await control.exports.refreshVolume(id);
}

/** Words that would leave a volume where only a daemon's task can bring it. */
const NOT_RESETTABLE: ReadonlySet<string> = new Set(['deleting', 'error_deleting', 'detaching']);

export type Reset = { readonly id: string; readonly status: string | null; readonly detach: boolean };

export async function resetVolume(control: Control, caller: Caller, wanted: Reset): Promise<void> {
  const { id, detach } = wanted;
  const { reader } = control.catalog;
  await visibleVolume(reader, caller, id);
  if (!detach) {
    await control.catalog.write((writer) => reset(control, writer, wanted));
    return;
  }
  await control.turns.take(id, async () => {
    const connections = await connectionsOf(reader, id);
    const isFailed = await isVolumeFailed(control, id);
    await withdrawn(control, connections, () =>
      control.catalog.write(async (writer) => {
        const names = connections.map(({ name }) => name);
        await removeConnections(writer, names);
        for (const attachment of await attachmentsOf(writer, id)) await removeAttachment(writer, attachment.id);
        if (wanted.status === null) await followAttachments(writer, { id, isFailed, nowUs: control.nowUs() });
        else await reset(control, writer, wanted);
      }),
    );
  });
}

async function reset(control: Control, writer: Writer, { id, status }: Reset): Promise<void> {
  if (status === null) return;
  const refuse = (why: string): Failure =>
    new Failure('bad_request', { reason: `Invalid input received: Cannot reset volume ${id} to ${status}${why}.` });
  if (NOT_RESETTABLE.has(status)) throw refuse('');
  if (status === 'in-use' && (await attachmentsOf(writer, id)).length === 0) throw refuse(': it has no attachment');
  await resetStatus(writer, { table: 'volumes', id, status, nowUs: control.nowUs() });
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

/** How a driver in another process would report; here the daemon does the work and ends the status itself. */
const REPORTABLE: Readonly<Record<string, readonly string[]>> = {
  creating: ['creating', 'available', 'error'],
  deleting: ['deleting', 'error_deleting'],
};

export async function reportSnapshot(
  control: Control,
  caller: Caller,
  { id, status, progress }: { id: string; status: string; progress: string | null },
): Promise<void> {
  await control.catalog.write(async (writer) => {
    const row = await visibleSnapshot(writer, caller, id);
    const allowed = REPORTABLE[row.status];
    const refuse = (reason: string): Failure => new Failure('wrong_state', { reason: `Invalid snapshot: ${reason}` });
    if (allowed === undefined)
      throw refuse(`Snapshot ${id} status ${row.status} not allowed for update_snapshot_status.`);
    if (!allowed.includes(status))
      throw refuse(`Provided snapshot status ${status} not allowed for snapshot ${id} with status ${row.status}.`);
    if (status !== row.status) await resetStatus(writer, { table: 'snapshots', id, status, nowUs: control.nowUs() });
    if (progress !== null) await updateSnapshot(writer, id, { progress });
  });
}

/** There is one place for volumes; to move there is no move, and elsewhere there is nothing. */
export async function migrateVolume(
  control: Control,
  caller: Caller,
  { id, host, here }: { id: string; host: string; here: string },
): Promise<void> {
  const row = await visibleVolume(control.catalog.reader, caller, id);
  const backendOf = (name: string): string => name.split('#')[0] ?? '';
  if (backendOf(host) !== backendOf(here))
    throw new Failure('bad_request', { reason: `Invalid host: No available service named '${host}'` });
  const reason =
    `Invalid volume: Volume ${row.id} status must be available or in-use, must not be migrating, have snapshots, be ` +
    'replicated, be part of a group and destination host/cluster must be different than the current one';
  throw new Failure('wrong_state', { reason });
}

export async function volumeExists(control: Control, id: string): Promise<boolean> {
  return (await findVolume(control.catalog.reader, id)) !== undefined;
}
