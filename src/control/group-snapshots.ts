/**
 * Snapshots of groups: one snapshot of each volume, taken at one instant where the type of the group says so. They are
 * made and deleted together; each can be read and copied alone.
 */
import { Failure } from '../base/errors.ts';
import { findGroupType } from '../catalog/group-types.ts';
import {
  findGroupSnapshot,
  type GroupSnapshotColumn,
  groupsBeingMadeFrom,
  insertGroupSnapshot,
  listGroupSnapshots as listRows,
  snapshotsOfGroupSnapshot,
  volumesOfGroup,
} from '../catalog/groups.ts';
import type { Listing } from '../catalog/listing.ts';
import type { GroupSnapshotRow, Reader } from '../catalog/schema.ts';
import { type Control, refuseWhileConnected } from './control.ts';
import { refuseWhileFilling } from './fills.ts';
import { isConsistent } from './group-types.ts';
import { invalidGroup, visibleGroup } from './groups.ts';
import { addSnapshot } from './new-rows.ts';
import { type Caller, enforce } from './policy.ts';
import { begin, initialStatus, requireStatus, resetStatus } from './states.ts';
import { requireVisible } from './visibility.ts';

export type NewGroupSnapshot = {
  readonly groupId: string;
  readonly name: string | null;
  readonly description: string | null;
};

export async function createGroupSnapshot(
  control: Control,
  caller: Caller,
  wanted: NewGroupSnapshot,
): Promise<GroupSnapshotRow> {
  enforce(caller, 'group:create_group_snapshot');
  const accepted = await control.catalog.write(async (writer) => {
    const group = await visibleGroup(writer, caller, wanted.groupId);
    if (group.status !== 'available')
      throw invalidGroup(`Group ${group.id} status must be available, but current status is: ${group.status}.`);
    const type = await findGroupType(writer, group.group_type_id);
    const row: GroupSnapshotRow = {
      id: control.newId(),
      project_id: caller.projectId,
      user_id: caller.userId,
      group_id: group.id,
      group_type_id: group.group_type_id,
      name: wanted.name,
      description: wanted.description,
      status: initialStatus('group_snapshots'),
      previous_status: null,
      failure: null,
      created_at: control.nowUs(),
      updated_at: null,
    };
    await insertGroupSnapshot(writer, row);
    const members = [];
    const { name, description } = row;
    for (const volume of await volumesOfGroup(writer, group.id)) {
      requireStatus(volume, 'snapshot a volume in use');
      await refuseWhileFilling(control, writer, volume.id);
      const member = { volume, name, description, group_snapshot_id: row.id };
      members.push({ snapshotId: (await addSnapshot(control, writer, caller, member)).id, volumeId: volume.id });
    }
    const args = { groupSnapshotId: row.id, isAtOneInstant: type !== undefined && isConsistent(type), members };
    const order = { kind: 'create-group-snapshot', subject: row.id, args, caller } as const;
    return { row, task: await control.tasks.accept(writer, order) };
  });
  control.tasks.start(accepted.task);
  return accepted.row;
}

export async function visibleGroupSnapshot(reader: Reader, caller: Caller, id: string): Promise<GroupSnapshotRow> {
  return requireVisible(caller, await findGroupSnapshot(reader, id), { kind: 'GroupSnapshot', id });
}

export async function getGroupSnapshot(control: Control, caller: Caller, id: string): Promise<GroupSnapshotRow> {
  enforce(caller, 'group:get_group_snapshot');
  return visibleGroupSnapshot(control.catalog.reader, caller, id);
}

export async function listGroupSnapshots(
  control: Control,
  caller: Caller,
  listing: Listing<GroupSnapshotColumn>,
): Promise<GroupSnapshotRow[]> {
  enforce(caller, 'group:get_all_group_snapshots');
  const rows = await listRows(control.catalog.reader, listing);
  if (rows === null) throw new Failure('not_found', { kind: 'GroupSnapshot', id: listing.marker });
  return rows;
}

export async function deleteGroupSnapshot(control: Control, caller: Caller, id: string): Promise<void> {
  enforce(caller, 'group:delete_group_snapshot');
  const { reader } = control.catalog;
  await visibleGroupSnapshot(reader, caller, id);
  for (const { id: snapshotId } of await snapshotsOfGroupSnapshot(reader, id))
    await refuseWhileConnected(control, { kind: 'snapshot', id: snapshotId, ids: [snapshotId], code: 'wrong_state' });
  const task = await control.catalog.write(async (writer) => {
    await visibleGroupSnapshot(writer, caller, id);
    if ((await groupsBeingMadeFrom(writer, { column: 'group_snapshot_id', id })).length > 0) {
      const reason = `Invalid GroupSnapshot: a group is being created from group snapshot ${id}.`;
      throw new Failure('wrong_state', { reason });
    }
    const nowUs = control.nowUs();
    await begin(writer, { table: 'group_snapshots', id, action: 'delete', nowUs });
    const snapshots = await snapshotsOfGroupSnapshot(writer, id);
    for (const snapshot of snapshots)
      await begin(writer, { table: 'snapshots', id: snapshot.id, action: 'force-delete', nowUs });
    const args = { groupSnapshotId: id, snapshotIds: snapshots.map((snapshot) => snapshot.id) };
    return control.tasks.accept(writer, { kind: 'delete-group-snapshot', subject: id, args, caller });
  });
  control.tasks.start(task);
}

export async function resetGroupSnapshot(
  control: Control,
  caller: Caller,
  { id, status }: { id: string; status: string },
): Promise<void> {
  enforce(caller, 'group:reset_group_snapshot_status');
  await control.catalog.write(async (writer) => {
    await visibleGroupSnapshot(writer, caller, id);
    await resetStatus(writer, { table: 'group_snapshots', id, status, nowUs: control.nowUs() });
  });
}
