/**
 * The verbs of groups: volumes of one project that are snapshotted and deleted together. Which volumes a group has is
 * a fact of the catalog alone; only its deletion touches the backend.
 */
import { Failure } from '../base/errors.ts';
import { attachmentsOf } from '../catalog/attachments.ts';
import {
  findGroup,
  type GroupColumn,
  groupSnapshotsOf,
  groupsBeingMadeFrom,
  insertGroup,
  listGroups as listRows,
  setGroupOf,
  updateGroup as updateRow,
  volumeIdsOfGroups,
  volumesOfGroup,
  volumeTypesOfGroups,
} from '../catalog/groups.ts';
import type { Listing } from '../catalog/listing.ts';
import type { GroupRow, Reader, TypeRow, VolumeRow, Writer } from '../catalog/schema.ts';
import { snapshotsOf } from '../catalog/snapshots.ts';
import { findVolume } from '../catalog/volumes.ts';
import { refuseWhileConnectable } from './connections.ts';
import { type Control, refuseWhileConnected } from './control.ts';
import { RESERVED_TYPE_NAME, requireGroupType } from './group-types.ts';
import { type Caller, enforce } from './policy.ts';
import { chargeGroup } from './quotas.ts';
import { begin, initialStatus, resetStatus } from './states.ts';
import { requireType } from './types.ts';
import { requireVisible } from './visibility.ts';
import { requireZone } from './volumes.ts';

export type Group = {
  readonly row: GroupRow;
  readonly volumeTypeIds: readonly string[];
  /** Null where nobody asked. */
  readonly volumeIds: readonly string[] | null;
};

export type NewGroup = {
  readonly name: string | null;
  readonly description: string | null;
  /** Id or name. */
  readonly groupType: string;
  readonly volumeTypes: readonly string[];
  readonly availabilityZone: string | null;
};

export const invalidGroup = (reason: string): Failure =>
  new Failure('wrong_state', { reason: `Invalid Group: ${reason}` });

export async function createGroup(control: Control, caller: Caller, wanted: NewGroup): Promise<GroupRow> {
  enforce(caller, 'group:create');
  requireZone(control, wanted.availabilityZone);
  return control.catalog.write(async (writer) => {
    const type = await requireGroupType(writer, caller, wanted.groupType);
    if (type.name === RESERVED_TYPE_NAME) {
      const reason = `Group_type ${type.id} (${type.name}) is reserved: no group can be of it.`;
      throw new Failure('bad_request', { reason });
    }
    const volumeTypes: TypeRow[] = [];
    for (const name of wanted.volumeTypes) volumeTypes.push(await requireType(writer, name));
    await chargeGroup(control, writer, caller.projectId);
    const row = newGroupRow(control, caller, {
      name: wanted.name,
      description: wanted.description,
      groupTypeId: type.id,
      source: null,
    });
    await insertGroup(writer, row, [...new Set(volumeTypes.map(({ id }) => id))]);
    return row;
  });
}

export function newGroupRow(
  control: Control,
  caller: Caller,
  wanted: {
    name: string | null;
    description: string | null;
    groupTypeId: string;
    source: { kind: 'group' | 'group-snapshot'; id: string } | null;
  },
): GroupRow {
  const { source } = wanted;
  return {
    id: control.newId(),
    project_id: caller.projectId,
    user_id: caller.userId,
    name: wanted.name,
    description: wanted.description,
    status: source === null ? 'available' : initialStatus('groups'),
    previous_status: null,
    failure: null,
    availability_zone: control.settings.availabilityZone,
    group_type_id: wanted.groupTypeId,
    group_snapshot_id: source?.kind === 'group-snapshot' ? source.id : null,
    source_group_id: source?.kind === 'group' ? source.id : null,
    created_at: control.nowUs(),
    updated_at: null,
  };
}

export async function visibleGroup(reader: Reader, caller: Caller, id: string): Promise<GroupRow> {
  return requireVisible(caller, await findGroup(reader, id), { kind: 'Group', id });
}

export async function getGroup(
  control: Control,
  caller: Caller,
  { id, withVolumes }: { id: string; withVolumes: boolean },
): Promise<Group> {
  enforce(caller, 'group:get');
  const row = await visibleGroup(control.catalog.reader, caller, id);
  const [group] = await withDetails(control.catalog.reader, [row], { withVolumes });
  if (group === undefined) throw new Failure('not_found', { kind: 'Group', id });
  return group;
}

export async function listGroups(
  control: Control,
  caller: Caller,
  { listing, withVolumes }: { listing: Listing<GroupColumn>; withVolumes: boolean },
): Promise<Group[]> {
  enforce(caller, 'group:get_all');
  const rows = await listRows(control.catalog.reader, listing);
  if (rows === null) throw new Failure('not_found', { kind: 'Group', id: listing.marker });
  return withDetails(control.catalog.reader, rows, { withVolumes });
}

async function withDetails(
  reader: Reader,
  rows: readonly GroupRow[],
  { withVolumes }: { withVolumes: boolean },
): Promise<Group[]> {
  const ids = rows.map((row) => row.id);
  const types = await volumeTypesOfGroups(reader, ids);
  const volumes = withVolumes ? await volumeIdsOfGroups(reader, ids) : null;
  return rows.map((row) => ({
    row,
    volumeTypeIds: types.get(row.id) ?? [],
    volumeIds: volumes === null ? null : (volumes.get(row.id) ?? []),
  }));
}

export type GroupUpdate = {
  readonly name?: string | null;
  readonly description?: string | null;
  readonly addVolumes: readonly string[];
  readonly removeVolumes: readonly string[];
};

export async function updateGroup(
  control: Control,
  caller: Caller,
  { id, update }: { id: string; update: GroupUpdate },
): Promise<void> {
  enforce(caller, 'group:update');
  await control.catalog.write(async (writer) => {
    const group = await visibleGroup(writer, caller, id);
    const both = update.addVolumes.filter((volumeId) => update.removeVolumes.includes(volumeId));
    if (both.length > 0) throw invalidVolume(`UUIDs ${both.join(', ')} are in both add and remove volume list.`);
    const members = await volumesOfGroup(writer, id);
    const known = new Set(members.map((row) => row.id));
    const adding = update.addVolumes.filter((volumeId) => !known.has(volumeId));
    const name = update.name === group.name ? undefined : (update.name ?? undefined);
    const description = update.description === group.description ? undefined : (update.description ?? undefined);
    const isMoving = adding.length + update.removeVolumes.length > 0;
    if (name === undefined && description === undefined && !isMoving)
      throw invalidGroup(
        `Cannot update group ${id} because no valid name, description, add_volumes, or remove_volumes were provided.`,
      );
    if (isMoving && group.status !== 'available')
      throw invalidGroup(`Group status must be available, but current status of ${id} is: ${group.status}.`);
    const nowUs = control.nowUs();
    const types = (await volumeTypesOfGroups(writer, [id])).get(id) ?? [];
    for (const volumeId of adding) {
      refuseToAdd(group, types, { id: volumeId, row: await findVolume(writer, volumeId) });
      await setGroupOf(writer, volumeId, { groupId: id, nowUs });
    }
    for (const volumeId of update.removeVolumes) {
      refuseToRemove(group, { id: volumeId, row: members.find((row) => row.id === volumeId) });
      await setGroupOf(writer, volumeId, { groupId: null, nowUs });
    }
    await updateRow(writer, id, {
      ...(name !== undefined && { name }),
      ...(description !== undefined && { description }),
      updated_at: nowUs,
    });
  });
}

const invalidVolume = (reason: string): Failure => new Failure('wrong_state', { reason: `Invalid volume: ${reason}` });

const ADDABLE: readonly string[] = ['available', 'in-use'];
const REMOVABLE: readonly string[] = ['available', 'in-use', 'error', 'error_deleting'];

type Named = { readonly id: string; readonly row: VolumeRow | undefined };

function refuseToAdd(group: GroupRow, typeIds: readonly string[], { id, row }: Named): void {
  const refuse = (why: string): Failure =>
    invalidVolume(`Cannot add volume ${id} to group ${group.id} because ${why}.`);
  // Another project's volume is said not to be there, whoever asks.
  if (row === undefined || row.project_id !== group.project_id) throw refuse('volume cannot be found');
  if (row.group_id !== null) throw refuse(`it is already in group ${row.group_id}`);
  if (!typeIds.includes(row.type_id)) throw refuse(`volume type ${row.type_id} is not supported by the group`);
  if (!ADDABLE.includes(row.status))
    throw refuse(`volume is in an invalid state: ${row.status}. Valid states are: ${ADDABLE.join(', ')}`);
}

function refuseToRemove(group: GroupRow, { id, row }: Named): void {
  const refuse = (why: string): Failure =>
    invalidVolume(`Cannot remove volume ${id} from group ${group.id} because ${why}.`);
  if (row === undefined) throw refuse('it is not in the group');
  if (!REMOVABLE.includes(row.status))
    throw refuse(`volume is in an invalid state: ${row.status}. Valid states are: ${REMOVABLE.join(', ')}`);
}

/** What a volume needs that is created in a group. */
export async function requireRoomInGroup(
  reader: Reader,
  caller: Caller,
  { groupId, type }: { groupId: string; type: TypeRow | null },
): Promise<void> {
  const group = await visibleGroup(reader, caller, groupId);
  const refuse = (reason: string): Failure =>
    new Failure('bad_request', { reason: `Invalid input received: ${reason}` });
  if (group.project_id !== caller.projectId) throw new Failure('not_found', { kind: 'Group', id: groupId });
  if (group.status !== 'available' && group.status !== 'creating')
    throw refuse(`Group ${groupId} must be available or creating, but current status is: ${group.status}.`);
  if (type === null) throw refuse('volume_type must be provided when creating a volume in a group.');
  const types = (await volumeTypesOfGroups(reader, [groupId])).get(groupId) ?? [];
  if (!types.includes(type.id))
    throw refuse(`Invalid volume_type provided: ${type.name} (requested type must be supported by this group).`);
}

export async function deleteGroup(
  control: Control,
  caller: Caller,
  { id, withVolumes }: { id: string; withVolumes: boolean },
): Promise<void> {
  enforce(caller, 'group:delete');
  await visibleGroup(control.catalog.reader, caller, id);
  for (const { id: volumeId } of await volumesOfGroup(control.catalog.reader, id))
    await refuseWhileConnected(control, { kind: 'volume', id: volumeId, ids: [volumeId], code: 'wrong_state' });
  const task = await control.catalog.write(async (writer) => {
    await visibleGroup(writer, caller, id);
    const volumes = await volumesOfGroup(writer, id);
    await refuseDeletion(writer, { id, volumes, withVolumes });
    const nowUs = control.nowUs();
    const action = withVolumes ? 'delete-with-volumes' : 'delete';
    await begin(writer, { table: 'groups', id, action, nowUs });
    for (const volume of volumes)
      await begin(writer, { table: 'volumes', id: volume.id, action: 'force-delete', nowUs });
    const args = { groupId: id, volumes: volumes.map((volume) => ({ volumeId: volume.id, name: volume.name })) };
    return control.tasks.accept(writer, { kind: 'delete-group', subject: id, args, caller });
  });
  control.tasks.start(task);
}

async function refuseDeletion(
  writer: Writer,
  { id, volumes, withVolumes }: { id: string; volumes: readonly VolumeRow[]; withVolumes: boolean },
): Promise<void> {
  if ((await groupSnapshotsOf(writer, id)).length > 0) throw invalidGroup(`Group ${id} has existing snapshots.`);
  if ((await groupsBeingMadeFrom(writer, { column: 'source_group_id', id })).length > 0)
    throw invalidGroup(`Cannot delete group ${id}: it is the source for an ongoing group creation.`);
  if (volumes.length > 0 && !withVolumes)
    throw invalidGroup(`Group ${id} still contains volumes. The delete-volumes flag is required to delete it.`);
  for (const volume of volumes) {
    if ((await attachmentsOf(writer, volume.id)).length > 0 || volume.status === 'in-use')
      throw invalidGroup(`Volume ${volume.id} in group ${id} is attached. Need to detach first.`);
    await refuseWhileConnectable(writer, { id: volume.id, code: 'wrong_state' });
    if ((await snapshotsOf(writer, volume.id)).length > 0)
      throw invalidGroup(`Volume ${volume.id} in group ${id} still has dependent snapshots.`);
  }
}

export async function resetGroup(
  control: Control,
  caller: Caller,
  { id, status }: { id: string; status: string },
): Promise<void> {
  enforce(caller, 'group:reset_status');
  await control.catalog.write(async (writer) => {
    await visibleGroup(writer, caller, id);
    await resetStatus(writer, { table: 'groups', id, status, nowUs: control.nowUs() });
  });
}
