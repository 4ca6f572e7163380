/**
 * The verbs of volumes. Each checks, changes the status and accepts the work in one write, and answers before the work
 * is done. It knows neither HTTP nor SQL, and what a field is called on the wire.
 */
import { Failure } from '../base/errors.ts';
import { attachmentsOf, attachmentsOfAll, connectionsOf } from '../catalog/attachments.ts';
import { type Metadata, mergeMetadata, metadataOfAll, replaceMetadata } from '../catalog/details.ts';
import type { Listing } from '../catalog/listing.ts';
import type {
  AttachmentRow,
  ConnectionRow,
  Reader,
  SnapshotRow,
  TypeRow,
  VolumeRow,
  Writer,
} from '../catalog/schema.ts';
import { snapshotsOf } from '../catalog/snapshots.ts';
import { findType, listTypes } from '../catalog/types.ts';
import {
  findVolume,
  listVolumes as listRows,
  metadataOfVolumes,
  type Totals,
  totalVolumes,
  updateVolume as updateRow,
  type VolumeColumn,
} from '../catalog/volumes.ts';
import { acceptRestore } from './backups.ts';
import { refuseWhileConnectable } from './connections.ts';
import { type Control, METADATA_KEYS_MAX, refuseWhileConnected } from './control.ts';
import { refuseWhileFilling } from './fills.ts';
import { requireRoomInGroup } from './groups.ts';
import { addVolume } from './new-rows.ts';
import { requireAllowed } from './placement.ts';
import type { Caller } from './policy.ts';
import { charge } from './quotas.ts';
import { begin, requireStatus, visibleBackup, visibleSnapshot, visibleVolume } from './states.ts';
import { defaultType, defaultTypeOf, requireUsableType } from './types.ts';

export type Volume = {
  readonly row: VolumeRow;
  readonly typeName: string;
  readonly metadata: Metadata;
  readonly imageMetadata: Metadata;
  readonly attachments: readonly AttachmentRow[];
};

export type VolumeSource = { readonly kind: 'snapshot' | 'volume' | 'backup'; readonly id: string };

export type NewVolume = {
  readonly name: string | null;
  readonly description: string | null;
  /** Null: the source's. */
  readonly sizeGib: number | null;
  /** Name or id; null: the source's or the default. */
  readonly type: string | null;
  readonly availabilityZone: string | null;
  readonly metadata: Metadata;
  readonly source: VolumeSource | null;
  /** The group it is to be in. */
  readonly groupId?: string | null;
};

const NOTHING: Metadata = new Map();

export async function createVolume(control: Control, caller: Caller, wanted: NewVolume): Promise<Volume> {
  requireZone(control, wanted.availabilityZone);
  // By this clients see later where it came from.
  const metadata =
    wanted.source?.kind === 'backup'
      ? new Map([...wanted.metadata, ['src_backup_id', wanted.source.id] as const])
      : wanted.metadata;
  const accepted = await control.catalog.write(async (writer) => {
    const origin = wanted.source === null ? null : await originOf(control, writer, caller, wanted.source);
    const type = await typeFor(writer, caller, { asked: wanted.type, origin });
    const sizeGib = sizeFor(wanted.sizeGib, origin);
    await requireAllowed(control, writer, { type, sizeGib });
    const groupId = wanted.groupId ?? null;
    if (groupId !== null)
      await requireRoomInGroup(writer, caller, { groupId, type: wanted.type || origin ? type : null });
    const row = await addVolume(control, writer, caller, {
      type,
      sizeGib,
      name: wanted.name,
      description: wanted.description,
      bootable: origin?.bootable ?? 0,
      snapshotId: wanted.source?.kind === 'snapshot' ? wanted.source.id : null,
      sourceVolumeId: wanted.source?.kind === 'volume' ? wanted.source.id : null,
      groupId,
    });
    await mergeMetadata(writer, { id: row.id, scope: 'user' }, metadata);
    const args = { volumeId: row.id, sizeGib, sourceId: wanted.source?.id ?? null };
    const task =
      wanted.source?.kind === 'backup'
        ? await acceptRestore(control, writer, { backupId: wanted.source.id, volume: row, caller })
        : await control.tasks.accept(writer, { kind: 'create-volume', subject: row.id, args, caller });
    return { row, task, typeName: type.name };
  });
  control.tasks.start(accepted.task);
  // A second bearer of a name ends its publication.
  await control.exports.refreshName(wanted.name);
  const { row, typeName } = accepted;
  return { row, typeName, metadata, imageMetadata: NOTHING, attachments: [] };
}

type Origin = { readonly sizeGib: number; readonly typeId: string; readonly bootable: number; readonly what: string };

async function originOf(control: Control, writer: Writer, caller: Caller, source: VolumeSource): Promise<Origin> {
  if (source.kind === 'volume') {
    const row = await visibleVolume(writer, caller, source.id);
    requireStatus(row, 'clone a volume');
    await refuseWhileFilling(control, writer, row.id);
    return { sizeGib: row.size_gib, typeId: row.type_id, bootable: row.bootable, what: 'source volume' };
  }
  if (source.kind === 'backup') {
    const row = await visibleBackup(writer, caller, source.id);
    const volume = await findVolume(writer, row.volume_id);
    const typeId = volume?.type_id ?? (await defaultType(writer)).id;
    // Whether it is bootable its manifest says, when it has been read.
    return { sizeGib: row.size_gib, typeId, bootable: 0, what: 'backup' };
  }
  const row = await visibleSnapshot(writer, caller, source.id);
  requireStatus(row, 'create from a snapshot');
  // The volume may be another project's since, without its snapshots.
  const volume = await findVolume(writer, row.volume_id);
  return { sizeGib: row.size_gib, typeId: row.type_id, bootable: volume?.bootable ?? 0, what: 'snapshot' };
}

async function typeFor(
  reader: Reader,
  caller: Caller,
  { asked, origin }: { asked: string | null; origin: Origin | null },
): Promise<TypeRow> {
  if (asked !== null && asked !== '') return requireUsableType(reader, caller, asked);
  const inherited = origin === null ? undefined : await findType(reader, origin.typeId);
  return inherited ?? defaultTypeOf(reader, caller.projectId);
}

function sizeFor(asked: number | null, origin: Origin | null): number {
  if (asked === null) {
    if (origin !== null) return origin.sizeGib;
    const reason =
      'Invalid input received: Invalid volume size provided for create request: None (a size in GiB is needed).';
    throw new Failure('bad_request', { reason });
  }
  if (origin !== null && asked < origin.sizeGib) {
    const reason =
      `Invalid input received: Volume size '${asked}'GB cannot be smaller than the ${origin.what} size ` +
      `${origin.sizeGib}GB. They must be >= original ${origin.what} size.`;
    throw new Failure('bad_request', { reason });
  }
  return asked;
}

export function requireZone(control: Control, zone: string | null): void {
  if (zone === null || zone === control.settings.availabilityZone) return;
  throw new Failure('bad_request', { reason: `Invalid input received: Availability zone '${zone}' is invalid.` });
}

export async function getVolume(control: Control, caller: Caller, id: string): Promise<Volume> {
  const row = await visibleVolume(control.catalog.reader, caller, id);
  const [volume] = await withDetails(control, [row]);
  if (volume === undefined) throw new Failure('not_found', { kind: 'Volume', id });
  return volume;
}

/** Bare rows: for lists that show no more. */
export async function listVolumeRows(control: Control, listing: Listing<VolumeColumn>): Promise<VolumeRow[]> {
  const rows = await listRows(control.catalog.reader, listing);
  if (rows === null) throw new Failure('not_found', { kind: 'Volume', id: listing.marker });
  return rows;
}

export async function listVolumes(control: Control, listing: Listing<VolumeColumn>): Promise<Volume[]> {
  return withDetails(control, await listVolumeRows(control, listing));
}

type Matching = Pick<Listing<VolumeColumn>, 'projectId' | 'filters'>;

export async function countVolumes(control: Control, listing: Matching): Promise<Totals> {
  return totalVolumes(control.catalog.reader, listing);
}

export async function summarizeMetadata(control: Control, listing: Matching): Promise<Map<string, string[]>> {
  const found = new Map<string, string[]>();
  for (const { key, value } of await metadataOfVolumes(control.catalog.reader, listing))
    found.set(key, [...(found.get(key) ?? []), value]);
  return found;
}

async function withDetails(control: Control, rows: readonly VolumeRow[]): Promise<Volume[]> {
  const { reader } = control.catalog;
  const ids = rows.map((row) => row.id);
  const metadata = await metadataOfAll(reader, ids);
  const attachments = await attachmentsOfAll(reader, ids);
  const types = new Map((await listTypes(reader)).map((type) => [type.id, type.name]));
  return rows.map((row) => ({
    row,
    typeName: types.get(row.type_id) ?? row.type_id,
    metadata: metadata.user.get(row.id) ?? NOTHING,
    imageMetadata: metadata.image.get(row.id) ?? NOTHING,
    attachments: attachments.get(row.id) ?? [],
  }));
}

export type VolumeUpdate = {
  readonly name?: string | null;
  readonly description?: string | null;
  readonly metadata?: Metadata;
};

export async function updateVolume(
  control: Control,
  caller: Caller,
  { id, update }: { id: string; update: VolumeUpdate },
): Promise<Volume> {
  const before = await control.catalog.write(async (writer) => {
    const row = await visibleVolume(writer, caller, id);
    requireStatus(row, 'update a volume');
    await updateRow(writer, id, {
      ...(update.name !== undefined && { name: update.name }),
      ...(update.description !== undefined && { description: update.description }),
      updated_at: control.nowUs(),
    });
    if (update.metadata !== undefined) {
      requireFewKeys(update.metadata.size);
      await replaceMetadata(writer, { id, scope: 'user' }, update.metadata);
    }
    return row;
  });
  if (update.name !== undefined && update.name !== before.name) {
    await control.exports.refreshName(before.name);
    await control.exports.refreshVolume(id);
  }
  return getVolume(control, caller, id);
}

export async function deleteVolume(
  control: Control,
  caller: Caller,
  wanted: { id: string; cascade: boolean; force: boolean },
): Promise<void> {
  const { id, cascade } = wanted;
  const { reader } = control.catalog;
  await visibleVolume(reader, caller, id);
  const going = cascade ? (await snapshotsOf(reader, id)).map((row) => row.id) : [];
  await refuseWhileConnected(control, { kind: 'volume', id, ids: [id, ...going], code: 'wrong_state' });
  const task = await control.catalog.write(async (writer) => {
    const row = await visibleVolume(writer, caller, id);
    const attachments = await holding(writer, { id, force: wanted.force });
    const snapshots = await snapshotsOf(writer, id);
    const why = obstacleOf(row, { attachments, snapshots, cascade });
    if (why !== null) throw notDeletable(row, why);
    const nowUs = control.nowUs();
    const action = wanted.force ? 'force-delete' : 'delete';
    for (const snapshot of snapshots) await begin(writer, { table: 'snapshots', id: snapshot.id, action, nowUs });
    await begin(writer, { table: 'volumes', id, action, nowUs });
    const args = { volumeId: id, name: row.name, snapshotIds: snapshots.map((snapshot) => snapshot.id) };
    return control.tasks.accept(writer, { kind: 'delete-volume', subject: id, args, caller });
  });
  control.tasks.start(task);
}

/** What forbids the deletion of a volume whatever its status; null where nothing does. */
function obstacleOf(
  row: VolumeRow,
  about: { attachments: readonly unknown[]; snapshots: readonly SnapshotRow[]; cascade: boolean },
): string | null {
  const { attachments, snapshots, cascade } = about;
  if (attachments.length > 0) return 'it is attached';
  if (row.group_id !== null) return `it is in group ${row.group_id}`;
  if (snapshots.length > 0 && !cascade)
    return `it has ${snapshots.length} snapshot${snapshots.length === 1 ? '' : 's'}`;
  if (snapshots.some((snapshot) => snapshot.project_id !== row.project_id))
    return 'it has snapshots of another project';
  const grouped = snapshots.find((snapshot) => snapshot.group_snapshot_id !== null);
  return grouped === undefined ? null : `its snapshot ${grouped.id} is part of a group snapshot`;
}

/** What keeps a volume from being deleted; by force only what is in use or has an export. */
async function holding(
  writer: Writer,
  { id, force }: { id: string; force: boolean },
): Promise<(AttachmentRow | ConnectionRow)[]> {
  const attachments = await attachmentsOf(writer, id);
  const held = force ? attachments.filter(({ status }) => status === 'attached') : attachments;
  return [...held, ...(await connectionsOf(writer, id))];
}

function notDeletable(row: VolumeRow, why: string): Failure {
  const reason =
    'Invalid volume: Volume status must be available or error or error_restoring or error_extending or ' +
    'error_managing and must not be migrating, attached, belong to a group, have snapshots, awaiting a transfer, ' +
    `or be disassociated from snapshots after volume transfer. (Volume ${row.id}: status ${row.status}, ${why}.)`;
  return new Failure('wrong_state', { reason });
}

export async function extendVolume(
  control: Control,
  caller: Caller,
  wanted: { id: string; sizeGib: number; alsoInUse: boolean },
): Promise<void> {
  const { id, sizeGib } = wanted;
  const task = await control.catalog.write(async (writer) => {
    const row = await visibleVolume(writer, caller, id);
    const nowUs = control.nowUs();
    await begin(writer, { table: 'volumes', id, action: wanted.alsoInUse ? 'extend-in-use' : 'extend', nowUs });
    if (sizeGib <= row.size_gib) {
      const reason =
        'Invalid input received: New size for extend must be greater than current size. ' +
        `(current: ${row.size_gib}, extended: ${sizeGib}).`;
      throw new Failure('bad_request', { reason });
    }
    const type = (await findType(writer, row.type_id)) ?? (await defaultType(writer));
    await requireAllowed(control, writer, { type, sizeGib });
    await charge(control, writer, {
      projectId: row.project_id,
      type,
      volumes: 0,
      snapshots: 0,
      gigabytes: sizeGib - row.size_gib,
      volumeGib: sizeGib,
    });
    await updateRow(writer, id, { target_size_gib: sizeGib });
    const args = { volumeId: id, sizeGib };
    return control.tasks.accept(writer, { kind: 'extend-volume', subject: id, args, caller });
  });
  control.tasks.start(task);
}

export async function revertVolume(
  control: Control,
  caller: Caller,
  { id, snapshotId }: { id: string; snapshotId: string },
): Promise<void> {
  await visibleVolume(control.catalog.reader, caller, id);
  // A client that has the volume mounted would see it change under its feet.
  await refuseWhileConnected(control, { kind: 'volume', id, ids: [id], code: 'conflict' });
  const task = await control.catalog.write(async (writer) => {
    const row = await visibleVolume(writer, caller, id);
    const [newest] = await snapshotsOf(writer, id);
    const not = (reason: string): Failure =>
      new Failure('bad_request', { reason: `Invalid input received: ${reason}` });
    // Whatever else the id may be: nothing is told of snapshots of others.
    if (newest?.id !== snapshotId) throw not(`Snapshot ${snapshotId} is not the latest one of volume ${id}.`);
    if (newest.size_gib !== row.size_gib)
      throw not(
        `Volume ${id} has ${row.size_gib} GiB, its snapshot ${snapshotId} ${newest.size_gib} GiB: they must be equal.`,
      );
    await refuseWhileConnectable(writer, { id, code: 'conflict' });
    const nowUs = control.nowUs();
    await begin(writer, { table: 'volumes', id, action: 'revert', nowUs });
    await begin(writer, { table: 'snapshots', id: snapshotId, action: 'revert', nowUs });
    const args = { volumeId: id, snapshotId };
    return control.tasks.accept(writer, { kind: 'revert-volume', subject: id, args, caller });
  });
  control.tasks.start(task);
}

export function requireFewKeys(count: number): void {
  if (count <= METADATA_KEYS_MAX) return;
  const reason = `Invalid input received: ${count} metadata keys, but at most ${METADATA_KEYS_MAX} are allowed.`;
  throw new Failure('bad_request', { reason });
}
