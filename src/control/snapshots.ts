/**
 * The verbs of snapshots, made like those of volumes.
 */
import { Failure } from '../base/errors.ts';
import { type Metadata, mergeMetadata, metadataOfAll } from '../catalog/details.ts';
import type { Listing } from '../catalog/listing.ts';
import type { SnapshotRow } from '../catalog/schema.ts';
import {
  listSnapshots as listRows,
  type SnapshotColumn,
  totalSnapshots,
  updateSnapshot as updateRow,
} from '../catalog/snapshots.ts';
import type { Totals } from '../catalog/volumes.ts';
import { type Control, refuseWhileConnected } from './control.ts';
import { refuseWhileFilling } from './fills.ts';
import { addSnapshot } from './new-rows.ts';
import type { Caller } from './policy.ts';
import { begin, requireStatus, visibleSnapshot, visibleVolume } from './states.ts';

export type Snapshot = { readonly row: SnapshotRow; readonly metadata: Metadata };

export type NewSnapshot = {
  readonly volumeId: string;
  readonly name: string | null;
  readonly description: string | null;
  readonly metadata: Metadata;
  /** Also of a volume in use. */
  readonly alsoInUse: boolean;
};

export async function createSnapshot(control: Control, caller: Caller, wanted: NewSnapshot): Promise<Snapshot> {
  const { volumeId } = wanted;
  const { row, task } = await control.catalog.write(async (writer) => {
    const volume = await visibleVolume(writer, caller, volumeId);
    requireStatus(volume, wanted.alsoInUse ? 'snapshot a volume in use' : 'snapshot a volume');
    await refuseWhileFilling(control, writer, volumeId);
    const { name, description } = wanted;
    const inserted = await addSnapshot(control, writer, caller, { volume, name, description, group_snapshot_id: null });
    await mergeMetadata(writer, { id: inserted.id, scope: 'user' }, wanted.metadata);
    const args = { snapshotId: inserted.id, volumeId };
    const accepted = await control.tasks.accept(writer, {
      kind: 'create-snapshot',
      subject: inserted.id,
      args,
      caller,
    });
    return { row: inserted, task: accepted };
  });
  control.tasks.start(task);
  return { row, metadata: wanted.metadata };
}

export async function getSnapshot(control: Control, caller: Caller, id: string): Promise<Snapshot> {
  const row = await visibleSnapshot(control.catalog.reader, caller, id);
  const [snapshot] = await withMetadata(control, [row]);
  if (snapshot === undefined) throw new Failure('not_found', { kind: 'Snapshot', id });
  return snapshot;
}

export async function listSnapshots(control: Control, listing: Listing<SnapshotColumn>): Promise<Snapshot[]> {
  const rows = await listRows(control.catalog.reader, listing);
  if (rows === null) throw new Failure('not_found', { kind: 'Snapshot', id: listing.marker });
  return withMetadata(control, rows);
}

export async function countSnapshots(
  control: Control,
  listing: Pick<Listing<SnapshotColumn>, 'projectId' | 'filters'>,
): Promise<Totals> {
  return totalSnapshots(control.catalog.reader, listing);
}

async function withMetadata(control: Control, rows: readonly SnapshotRow[]): Promise<Snapshot[]> {
  const ids = rows.map((row) => row.id);
  const metadata = await metadataOfAll(control.catalog.reader, ids);
  return rows.map((row) => ({ row, metadata: metadata.user.get(row.id) ?? new Map<string, string>() }));
}

export async function updateSnapshot(
  control: Control,
  caller: Caller,
  wanted: { id: string; update: { readonly name?: string | null; readonly description?: string | null } },
): Promise<Snapshot> {
  const { id, update } = wanted;
  await control.catalog.write(async (writer) => {
    await visibleSnapshot(writer, caller, id);
    await updateRow(writer, id, {
      ...(update.name !== undefined && { name: update.name }),
      ...(update.description !== undefined && { description: update.description }),
      updated_at: control.nowUs(),
    });
  });
  return getSnapshot(control, caller, id);
}

export async function deleteSnapshot(
  control: Control,
  caller: Caller,
  { id, force }: { id: string; force: boolean },
): Promise<void> {
  await visibleSnapshot(control.catalog.reader, caller, id);
  await refuseWhileConnected(control, { kind: 'snapshot', id, ids: [id], code: 'wrong_state' });
  const task = await control.catalog.write(async (writer) => {
    const row = await visibleSnapshot(writer, caller, id);
    if (row.group_snapshot_id !== null) {
      const reason =
        'Invalid snapshot: Snapshot status must be available or error, and the snapshot must not be part of a group ' +
        `snapshot. (Snapshot ${id}: delete group snapshot ${row.group_snapshot_id} instead.)`;
      throw new Failure('wrong_state', { reason });
    }
    const action = force ? 'force-delete' : 'delete';
    await begin(writer, { table: 'snapshots', id, action, nowUs: control.nowUs() });
    const args = { snapshotId: id, volumeId: row.volume_id };
    return control.tasks.accept(writer, { kind: 'delete-snapshot', subject: id, args, caller });
  });
  control.tasks.start(task);
}
