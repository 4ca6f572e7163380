/**
 * The verbs of attachments: reserve a volume for a server, give it an export once the server's machine is known, say that
 * it is in use, end it. An attachment is `reserved` until there is an export, then `attaching` until it is complete, and so
 * is its volume. How an export comes and goes is in `connections.ts`.
 */
import { Failure } from '../base/errors.ts';
import {
  type AttachmentColumn,
  attachmentsOf,
  connectionsOf,
  connectionsOfAttachments,
  findAttachment,
  insertAttachment,
  insertConnection,
  listAttachments as listRows,
  removeAttachment,
  updateConnection,
  updateAttachment as updateRow,
} from '../catalog/attachments.ts';
import type { Listing } from '../catalog/listing.ts';
import type { AttachmentRow, ConnectionRow, Reader, VolumeRow, Writer } from '../catalog/schema.ts';
import { findVolumes } from '../catalog/volumes.ts';
import {
  type ConnectionInfo,
  type Connector,
  connectionInfo,
  connectionName,
  published,
  switched,
  textOf,
  withdrawn,
} from './connections.ts';
import type { Control } from './control.ts';
import type { Caller } from './policy.ts';
import { begin, followAttachments, isAllowedIn, requireAction, visibleVolume } from './states.ts';
import { isVisible } from './visibility.ts';

export type Mode = 'rw' | 'ro';
/** Not decided yet; clients know it by this word. */
const UNDECIDED = 'null';
/** Where a connector names no device: what clients know for it. */
const NO_DEVICE = 'na';

export type Attachment = { readonly row: AttachmentRow; readonly connection: ConnectionInfo | null };

export type NewAttachment = {
  readonly volumeId: string;
  readonly instanceId: string | null;
  /** Null: not known yet, the volume is only reserved. */
  readonly connector: Connector | null;
  /** Null: the connector's, or `rw`. */
  readonly mode: Mode | null;
};

/** Returns it as it is known to clients from this answer: still reserved. Who asks afterwards is told more. */
export async function createAttachment(control: Control, caller: Caller, wanted: NewAttachment): Promise<Attachment> {
  const { volumeId, connector } = wanted;
  const { reader } = control.catalog;
  await visibleVolume(reader, caller, volumeId);
  const id = await control.turns.take(volumeId, async () => {
    const volume = await visibleVolume(reader, caller, volumeId);
    const action = reservation(volume, await attachmentsOf(reader, volumeId), wanted.instanceId);
    const attachment = attachmentRow(control, volume, wanted);
    const connection =
      connector === null ? null : connectionRow(control, { volume, mode: attachment.mode, connector, attachment });
    const commit = (): Promise<string> =>
      control.catalog.write(async (writer) => {
        const nowUs = control.nowUs();
        await begin(writer, { table: 'volumes', id: volumeId, action, nowUs });
        await insertAttachment(writer, attachment);
        if (connection !== null) await connect(writer, connection, nowUs);
        return attachment.id;
      });
    return connection === null ? commit() : published(control, connection, commit);
  });
  const { row, connection } = await getAttachment(control, caller, id);
  return { row: { ...row, status: 'reserved' }, connection };
}

type Reservation = 'create-attachment' | 'create-attachment-multiattach' | 'create-another-attachment';

/** Refuses what cannot be reserved. */
function reservation(volume: VolumeRow, known: readonly AttachmentRow[], instanceId: string | null): Reservation {
  if (volume.status.includes('error')) {
    const reason =
      'Invalid volume: Volume attachments can not be created if the volume is in an error state. ' +
      `The Volume ${volume.id} currently has a status of: ${volume.status}`;
    throw new Failure('wrong_state', { reason });
  }
  const action = volume.multiattach === 1 ? 'create-attachment-multiattach' : 'create-attachment';
  // A server that is moved to another host has one for each until the old host lets go.
  const isMoving = instanceId !== null && known.some((one) => one.instance_id === instanceId);
  if (isMoving && isAllowedIn(volume, 'create-another-attachment') && !isAllowedIn(volume, action))
    return 'create-another-attachment';
  requireAction(volume, action);
  refuseSecond(volume, known);
  return action;
}

/** The status alone does not tell: an administrator may have called a volume available that is attached. */
export function refuseSecond(volume: VolumeRow, known: readonly AttachmentRow[]): void {
  const [first] = known;
  if (volume.multiattach === 1 || first === undefined) return;
  const whose = first.instance_id === null ? first.id : `for instance ${first.instance_id}`;
  const reason = `Invalid volume: Volume ${volume.id} already has an attachment ${whose}.`;
  throw new Failure('wrong_state', { reason });
}

function attachmentRow(control: Control, volume: VolumeRow, wanted: NewAttachment): AttachmentRow {
  const { connector } = wanted;
  const nowUs = control.nowUs();
  return {
    id: control.newId(),
    volume_id: volume.id,
    project_id: volume.project_id,
    instance_id: wanted.instanceId,
    host_name: connector === null ? null : textOf(connector, 'host'),
    device: connector === null ? null : (textOf(connector, 'mountpoint') ?? NO_DEVICE),
    mode: volume.read_only === 1 ? 'ro' : (wanted.mode ?? UNDECIDED),
    status: connector === null ? 'reserved' : 'attaching',
    attached_at: connector === null ? null : nowUs,
    created_at: nowUs,
    updated_at: null,
  };
}

type NewConnection = {
  readonly volume: VolumeRow;
  readonly attachment: AttachmentRow;
  /** Of the attachment. */
  readonly mode: string;
  readonly connector: Connector;
};

function connectionRow(control: Control, { volume, attachment, mode, connector }: NewConnection): ConnectionRow {
  return {
    name: connectionName(control),
    volume_id: volume.id,
    attachment_id: attachment.id,
    host: textOf(connector, 'host') ?? '',
    connector: JSON.stringify(connector),
    read_only: modeFor({ volume, mode, connector }) === 'ro' ? 1 : 0,
    created_at: control.nowUs(),
  };
}

/** A read-only volume is read-only to everybody; then the attachment's own mode counts, then the connector's. */
function modeFor(of: { volume: VolumeRow; mode: string; connector: Connector }): Mode {
  if (of.volume.read_only === 1) return 'ro';
  const mode = of.mode === UNDECIDED ? of.connector['mode'] : of.mode;
  return mode === 'ro' ? 'ro' : 'rw';
}

async function connect(writer: Writer, connection: ConnectionRow, nowUs: number): Promise<void> {
  await insertConnection(writer, connection);
  await begin(writer, { table: 'volumes', id: connection.volume_id, action: 'connect-attachment', nowUs });
}

/** Tells the machine that will use it; from now on there is an export. Status and mode of the answer are those from before. */
export async function updateAttachment(
  control: Control,
  caller: Caller,
  { id, connector }: { id: string; connector: Connector },
): Promise<Attachment> {
  const { reader } = control.catalog;
  const { volume_id: volumeId } = await visibleAttachment(reader, caller, id);
  const { status, mode } = await control.turns.take(volumeId, async () => {
    const attachment = await visibleAttachment(reader, caller, id);
    const volume = await visibleVolume(reader, caller, volumeId);
    const connections = await connectionsOf(reader, volumeId);
    requireUpdatable(volume, attachment, connections);
    const wanted = connectionRow(control, { volume, attachment, mode: attachment.mode, connector });
    const known = connections.find((one) => one.attachment_id === id);
    const commit = (): Promise<void> =>
      control.catalog.write((writer) => reconnect(control, writer, { id, wanted, known }));
    if (known === undefined) await published(control, wanted, commit);
    else if (known.read_only === wanted.read_only) await commit();
    else await switched(control, known, { readOnly: wanted.read_only === 1, commit });
    return attachment;
  });
  const { row, connection } = await getAttachment(control, caller, id);
  return { row: { ...row, status, mode }, connection };
}

function requireUpdatable(volume: VolumeRow, attachment: AttachmentRow, connections: readonly ConnectionRow[]): void {
  if (volume.status.includes('error')) {
    const reason =
      'Resource conflict: Volume attachments can not be updated if the volume is in an error state. ' +
      `The Volume ${volume.id} currently has a status of: ${volume.status}`;
    throw new Failure('conflict', { reason });
  }
  const isShared = connections.some(({ attachment_id: owner }) => owner !== null && owner !== attachment.id);
  if (isShared && volume.multiattach === 0)
    throw new Failure('conflict', {
      reason: `Resource conflict: duplicate connectors detected on volume ${volume.id}`,
    });
  if (attachment.status !== 'attached') requireAction(volume, 'connect-attachment');
}

type Reconnect = { readonly id: string; readonly wanted: ConnectionRow; readonly known: ConnectionRow | undefined };

async function reconnect(control: Control, writer: Writer, { id, wanted, known }: Reconnect): Promise<void> {
  const nowUs = control.nowUs();
  const { host, connector, read_only } = wanted;
  if (known !== undefined) await updateConnection(writer, known.name, { host, connector, read_only });
  const attachment = await findAttachment(writer, id);
  if (attachment === undefined) throw missing(id);
  const said = JSON.parse(connector) as Connector;
  await updateRow(writer, id, {
    host_name: textOf(said, 'host'),
    device: textOf(said, 'mountpoint') ?? attachment.device ?? NO_DEVICE,
    ...(attachment.status !== 'attached' && { status: 'attaching' }),
    ...(attachment.mode === UNDECIDED && { mode: read_only === 1 ? 'ro' : 'rw' }),
    attached_at: attachment.attached_at ?? nowUs,
    updated_at: nowUs,
  });
  if (known === undefined) await insertConnection(writer, wanted);
  if (attachment.status === 'attached') return;
  await begin(writer, { table: 'volumes', id: wanted.volume_id, action: 'connect-attachment', nowUs });
}

/** The server uses it now. */
export async function completeAttachment(control: Control, caller: Caller, id: string): Promise<void> {
  const { volume_id: volumeId } = await visibleAttachment(control.catalog.reader, caller, id);
  await control.turns.take(volumeId, () =>
    control.catalog.write(async (writer) => {
      const row = await visibleAttachment(writer, caller, id);
      const connection = (await connectionsOfAttachments(writer, [id])).get(id);
      const nowUs = control.nowUs();
      await updateRow(writer, id, {
        status: 'attached',
        mode: row.mode === UNDECIDED ? (connection?.read_only === 1 ? 'ro' : 'rw') : row.mode,
        attached_at: row.attached_at ?? nowUs,
        updated_at: nowUs,
      });
      await begin(writer, { table: 'volumes', id: volumeId, action: 'complete-attachment', nowUs });
    }),
  );
}

/** Ends it and its export; when this returns no client of it can do I/O any more. Those that are left. */
export async function deleteAttachment(control: Control, caller: Caller, id: string): Promise<AttachmentRow[]> {
  const { reader } = control.catalog;
  const { volume_id: volumeId } = await visibleAttachment(reader, caller, id);
  return control.turns.take(volumeId, async () => {
    const row = await visibleAttachment(reader, caller, id);
    const connection = (await connectionsOfAttachments(reader, [id])).get(id);
    requireMayEnd(control, caller, { attachment: row, connection });
    const isFailed = await isVolumeFailed(control, volumeId);
    return withdrawn(control, connection === undefined ? [] : [connection], () =>
      control.catalog.write(async (writer) => {
        await removeAttachment(writer, id);
        await followAttachments(writer, { id: volumeId, isFailed, nowUs: control.nowUs() });
        return attachmentsOf(writer, volumeId);
      }),
    );
  });
}

/**
 * A server whose volume is taken away behind its back keeps a dead device. So where the operator says so, only the
 * service that runs the server may.
 */
export function requireMayEnd(
  control: Control,
  caller: Caller,
  { attachment, connection }: { attachment: AttachmentRow; connection: ConnectionRow | undefined },
): void {
  if (!control.settings.requireServiceToken || caller.isService) return;
  if (attachment.instance_id === null || connection === undefined) return;
  const reason = `Detach volume from instance ${attachment.instance_id} using the Compute API`;
  throw new Failure('conflict', { reason });
}

export async function isVolumeFailed(control: Control, volumeId: string): Promise<boolean> {
  const [usage] = await control.backend.usage([volumeId]);
  return usage !== undefined && usage.failed !== null;
}

export async function getAttachment(control: Control, caller: Caller, id: string): Promise<Attachment> {
  const [found] = await withConnections(control, [await visibleAttachment(control.catalog.reader, caller, id)]);
  if (found === undefined) throw missing(id);
  return found;
}

/** Bare rows: for lists that show no more. */
export async function listAttachmentRows(
  control: Control,
  listing: Listing<AttachmentColumn>,
): Promise<AttachmentRow[]> {
  const rows = await listRows(control.catalog.reader, listing);
  if (rows === null) throw missing(listing.marker ?? '');
  return rows;
}

export async function listAttachments(control: Control, listing: Listing<AttachmentColumn>): Promise<Attachment[]> {
  return withConnections(control, await listAttachmentRows(control, listing));
}

async function withConnections(control: Control, rows: readonly AttachmentRow[]): Promise<Attachment[]> {
  const { reader } = control.catalog;
  const ids = rows.map((row) => row.id);
  const connections = await connectionsOfAttachments(reader, ids);
  const volumeIds = [...new Set([...connections.values()].map((connection) => connection.volume_id))];
  const volumes = new Map((await findVolumes(reader, volumeIds)).map((volume) => [volume.id, volume]));
  const found: Attachment[] = [];
  for (const row of rows) {
    const connection = connections.get(row.id);
    const volume = volumes.get(row.volume_id);
    const info = connection && volume ? await connectionInfo(control, volume, connection) : null;
    found.push({ row, connection: info });
  }
  return found;
}

async function visibleAttachment(reader: Reader, caller: Caller, id: string): Promise<AttachmentRow> {
  const row = await findAttachment(reader, id);
  if (!isVisible(caller, row)) throw missing(id);
  return row;
}

function missing(id: string): Failure {
  return new Failure('not_found', { kind: 'Volume attachment', id });
}
