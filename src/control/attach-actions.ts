/**
 * The older way to attach, as actions of a volume: reserve, initialize a connection, attach, and back. They work on the
 * same records as `attachments.ts`; the difference is that the export comes first and gets its attachment afterwards.
 */
import { Failure } from '../base/errors.ts';
import {
  attachmentsOf,
  connectionsOf,
  insertAttachment,
  insertConnection,
  removeAttachment,
  removeConnections,
  updateAttachment,
  updateConnection,
} from '../catalog/attachments.ts';
import type { AttachmentRow, ConnectionRow, VolumeRow, Writer } from '../catalog/schema.ts';
import { isVolumeFailed, type Mode, refuseSecond, requireMayEnd } from './attachments.ts';
import {
  type ConnectionInfo,
  type Connector,
  connectionInfo,
  connectionName,
  isReadOnly,
  published,
  switched,
  textOf,
  withdrawn,
} from './connections.ts';
import type { Control } from './control.ts';
import type { Caller } from './policy.ts';
import { begin, followAttachments, requireAction, requireStatus, tryBegin, visibleVolume } from './states.ts';

export type Move = 'reserve' | 'unreserve' | 'begin-detaching' | 'roll-detaching';

/** Reserve and begin-detaching refuse in a wrong status; their opposites then change nothing. */
export async function moveVolume(
  control: Control,
  caller: Caller,
  { id, action }: { id: string; action: Move },
): Promise<void> {
  await control.catalog.write(async (writer) => {
    const row = await visibleVolume(writer, caller, id);
    const step = { table: 'volumes', id, nowUs: control.nowUs() } as const;
    if (action === 'reserve') {
      await begin(writer, { ...step, action: row.multiattach === 1 ? 'reserve-multiattach' : 'reserve' });
    } else if (action === 'begin-detaching') await begin(writer, { ...step, action });
    else await tryBegin(writer, { ...step, action });
  });
}

export type Attach = {
  readonly id: string;
  readonly instanceId: string | null;
  readonly hostName: string | null;
  readonly device: string;
  readonly mode: Mode | null;
};

export async function attachVolume(control: Control, caller: Caller, wanted: Attach): Promise<void> {
  const { id } = wanted;
  const { reader } = control.catalog;
  await visibleVolume(reader, caller, id);
  await control.turns.take(id, async () => {
    const volume = await visibleVolume(reader, caller, id);
    const attachments = await attachmentsOf(reader, id);
    const known = attachments.find(
      (one) =>
        one.instance_id === wanted.instanceId && (wanted.instanceId !== null || one.host_name === wanted.hostName),
    );
    if (known?.status !== 'attached') requireAction(volume, attaching(volume, known));
    if (known === undefined) refuseSecond(volume, attachments);
    const mode = modeFor(volume, wanted.mode, known);
    const connection = await connectionFor(control, wanted, known);
    const commit = (): Promise<void> =>
      control.catalog.write((writer) => attach(control, writer, { volume, wanted, mode, known, connection }));
    // A read-only attachment is a read-only export, also when the export came first.
    const isAttached = known?.status === 'attached';
    if (isAttached || connection === undefined || (connection.read_only === 1) === (mode === 'ro')) return commit();
    return switched(control, connection, { readOnly: mode === 'ro', commit });
  });
}

/** What was reserved read-only stays so unless it is asked for otherwise. */
function modeFor(volume: VolumeRow, asked: Mode | null, known: AttachmentRow | undefined): Mode {
  if (volume.read_only !== 1) return asked ?? (known?.mode === 'ro' ? 'ro' : 'rw');
  if (asked !== 'rw') return 'ro';
  const reason = `Invalid input received: Invalid attaching mode 'rw' for volume ${volume.id}: it is read-only.`;
  throw new Failure('bad_request', { reason });
}

/** One that was reserved for it before needs no free volume. */
function attaching(
  volume: VolumeRow,
  known: AttachmentRow | undefined,
): 'attach' | 'attach-multiattach' | 'complete-attachment' {
  if (known !== undefined) return 'complete-attachment';
  return volume.multiattach === 1 ? 'attach-multiattach' : 'attach';
}

/** Its own; else the one that was made for this host, or the latest without an attachment where only a server is named. */
async function connectionFor(
  control: Control,
  { id, hostName }: Attach,
  known: AttachmentRow | undefined,
): Promise<ConnectionRow | undefined> {
  const connections = await connectionsOf(control.catalog.reader, id);
  const own = connections.find((one) => known !== undefined && one.attachment_id === known.id);
  if (own !== undefined) return own;
  const free = connections.filter((one) => one.attachment_id === null);
  return hostName === null ? free.at(-1) : free.findLast((one) => one.host === hostName);
}

type Attaching = {
  readonly volume: VolumeRow;
  readonly wanted: Attach;
  readonly mode: Mode;
  readonly known: AttachmentRow | undefined;
  /** Becomes the attachment's. */
  readonly connection: ConnectionRow | undefined;
};

async function attach(control: Control, writer: Writer, about: Attaching): Promise<void> {
  const { volume, wanted, mode, known, connection } = about;
  if (known?.status === 'attached') return;
  const nowUs = control.nowUs();
  await begin(writer, { table: 'volumes', id: volume.id, action: attaching(volume, known), nowUs });
  const id = known?.id ?? control.newId();
  if (known !== undefined) {
    const attached_at = known.attached_at ?? nowUs;
    await updateAttachment(writer, id, {
      status: 'attached',
      device: wanted.device,
      mode,
      attached_at,
      updated_at: nowUs,
    });
  } else {
    await insertAttachment(writer, {
      id,
      volume_id: volume.id,
      project_id: volume.project_id,
      instance_id: wanted.instanceId,
      host_name: wanted.hostName,
      device: wanted.device,
      mode,
      status: 'attached',
      attached_at: nowUs,
      created_at: nowUs,
      updated_at: null,
    });
  }
  if (connection === undefined) return;
  await updateConnection(writer, connection.name, { attachment_id: id, read_only: mode === 'ro' ? 1 : 0 });
}

export type Detach = { readonly id: string; readonly attachmentId: string | null };

/** The attachment with its export; with the last one also exports that no attachment has. */
export async function detachVolume(control: Control, caller: Caller, { id, attachmentId }: Detach): Promise<void> {
  const { reader } = control.catalog;
  await visibleVolume(reader, caller, id);
  await control.turns.take(id, async () => {
    const volume = await visibleVolume(reader, caller, id);
    const attachments = await attachmentsOf(reader, id);
    const going = attachmentToEnd(volume, attachments, attachmentId);
    const connections = await connectionsOf(reader, id);
    const own = connections.find((one) => going !== undefined && one.attachment_id === going.id);
    if (going !== undefined) requireMayEnd(control, caller, { attachment: going, connection: own });
    const isLast = attachments.length <= 1;
    const ending = connections.filter((one) => one === own || (isLast && one.attachment_id === null));
    const isFailed = await isVolumeFailed(control, id);
    await withdrawn(control, ending, () =>
      control.catalog.write(async (writer) => {
        const names = ending.map(({ name }) => name);
        await removeConnections(writer, names);
        if (going !== undefined) await removeAttachment(writer, going.id);
        await followAttachments(writer, { id, isFailed, nowUs: control.nowUs() });
      }),
    );
  });
}

function attachmentToEnd(
  volume: VolumeRow,
  known: readonly AttachmentRow[],
  attachmentId: string | null,
): AttachmentRow | undefined {
  const refuse = (reason: string): Failure => new Failure('wrong_state', { reason: `Invalid volume: ${reason}` });
  if (volume.status === 'maintenance') throw refuse('The volume cannot be detached in maintenance mode.');
  if (attachmentId === null && known.length > 1)
    throw refuse(`Volume ${volume.id} has ${known.length} attachments: name the attachment_id of one.`);
  const going = attachmentId === null ? known[0] : known.find((one) => one.id === attachmentId);
  if (attachmentId !== null && going === undefined)
    throw refuse(`Volume ${volume.id} has no attachment ${attachmentId}.`);
  return going;
}

/** The same host again gets the export it has. */
export async function initializeConnection(
  control: Control,
  caller: Caller,
  { id, connector }: { id: string; connector: Connector },
): Promise<ConnectionInfo> {
  const { reader } = control.catalog;
  await visibleVolume(reader, caller, id);
  return control.turns.take(id, async () => {
    const volume = await visibleVolume(reader, caller, id);
    requireStatus(volume, 'initialize a connection');
    const host = textOf(connector, 'host') ?? '';
    const readOnly = isReadOnly(volume, await attachmentsOf(reader, id));
    const known = (await connectionsOf(reader, id)).find((one) => one.host === host);
    const wanted: ConnectionRow = {
      name: known?.name ?? connectionName(control),
      volume_id: id,
      attachment_id: known?.attachment_id ?? null,
      host,
      connector: JSON.stringify(connector),
      read_only: readOnly ? 1 : 0,
      created_at: control.nowUs(),
    };
    if (known === undefined) {
      await published(control, wanted, () =>
        control.catalog.write(async (writer) => {
          requireStatus(await visibleVolume(writer, caller, id), 'initialize a connection');
          await insertConnection(writer, wanted);
        }),
      );
    } else if (known.attachment_id === null && known.read_only !== wanted.read_only) {
      const commit = (): Promise<void> =>
        control.catalog.write((writer) => updateConnection(writer, known.name, { read_only: wanted.read_only }));
      await switched(control, known, { readOnly, commit });
    }
    // What an attachment has is as its own mode says.
    return connectionInfo(control, volume, known?.attachment_id == null ? wanted : known);
  });
}

/** Ends the exports of that host; of every host where none is named. */
export async function terminateConnection(
  control: Control,
  caller: Caller,
  { id, connector }: { id: string; connector: Connector | null },
): Promise<void> {
  const { reader } = control.catalog;
  await visibleVolume(reader, caller, id);
  await control.turns.take(id, async () => {
    const host = connector === null ? null : textOf(connector, 'host');
    const ending = (await connectionsOf(reader, id)).filter((one) => host === null || one.host === host);
    for (const attachment of await attachmentsOf(reader, id)) {
      const connection = ending.find((one) => one.attachment_id === attachment.id);
      requireMayEnd(control, caller, { attachment, connection });
    }
    const names = ending.map(({ name }) => name);
    await withdrawn(control, ending, () =>
      control.catalog.write(async (writer) => {
        await removeConnections(writer, names);
        await tryBegin(writer, { table: 'volumes', id, action: 'unreserve', nowUs: control.nowUs() });
      }),
    );
  });
}
