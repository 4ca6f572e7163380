/**
 * A group as a copy of another group or of a snapshot of one: its volumes, and the room they need in the quotas, in the
 * commit that accepts the work.
 */
import { Failure } from '../base/errors.ts';
import { findGroupType } from '../catalog/group-types.ts';
import { insertGroup, snapshotsOfGroupSnapshot, volumesOfGroup, volumeTypesOfGroups } from '../catalog/groups.ts';
import type { GroupRow, Reader, VolumeRow, Writer } from '../catalog/schema.ts';
import { findType } from '../catalog/types.ts';
import { findVolume } from '../catalog/volumes.ts';
import type { Control } from './control.ts';
import { refuseWhileFilling } from './fills.ts';
import { visibleGroupSnapshot } from './group-snapshots.ts';
import { isConsistent } from './group-types.ts';
import { invalidGroup, newGroupRow, visibleGroup } from './groups.ts';
import { addVolume } from './new-rows.ts';
import { requireAllowed } from './placement.ts';
import { type Caller, enforce } from './policy.ts';
import { chargeGroup } from './quotas.ts';
import { requireStatus } from './states.ts';
import { defaultType } from './types.ts';

export type GroupSource = { readonly kind: 'group' | 'group-snapshot'; readonly id: string };

export type NewGroupFromSource = {
  readonly name: string | null;
  readonly description: string | null;
  readonly source: GroupSource;
};

type Member = {
  readonly sourceId: string;
  readonly sizeGib: number;
  readonly typeId: string;
  readonly bootable: number;
  readonly from: Pick<VolumeRow, 'snapshot_id' | 'source_volume_id'>;
};

type Origin = { readonly groupTypeId: string; readonly groupId: string; readonly members: readonly Member[] };

export async function createGroupFromSource(
  control: Control,
  caller: Caller,
  wanted: NewGroupFromSource,
): Promise<GroupRow> {
  enforce(caller, 'group:create');
  const { source } = wanted;
  const accepted = await control.catalog.write(async (writer) => {
    const origin = await originOf(control, writer, caller, source);
    if (origin.members.length === 0) {
      const what = source.kind === 'group' ? 'Source Group' : 'Group snapshot';
      throw invalidGroup(`${what} ${source.id} is empty. No group will be created.`);
    }
    const groupType = await findGroupType(writer, origin.groupTypeId);
    if (groupType === undefined) throw new Failure('not_found', { kind: 'Group type', id: origin.groupTypeId });
    await chargeGroup(control, writer, caller.projectId);
    const row = newGroupRow(control, caller, { ...wanted, groupTypeId: groupType.id });
    const known = (await volumeTypesOfGroups(writer, [origin.groupId])).get(origin.groupId) ?? [];
    const typeIds = new Set([...known, ...origin.members.map((member) => member.typeId)]);
    await insertGroup(writer, row, [...typeIds]);
    // Volumes that are written to meanwhile are copied by way of snapshots taken at one instant.
    const isAtOneInstant = source.kind === 'group' && isConsistent(groupType);
    const volumes = [];
    for (const member of origin.members) {
      const volumeId = await insertMember(control, writer, { caller, groupId: row.id, member });
      volumes.push({
        volumeId,
        sizeGib: member.sizeGib,
        sourceId: member.sourceId,
        temporaryId: isAtOneInstant ? control.newId() : null,
      });
    }
    const args = { groupId: row.id, volumes };
    const task = await control.tasks.accept(writer, { kind: 'create-group', subject: row.id, args, caller });
    return { row, task };
  });
  control.tasks.start(accepted.task);
  return accepted.row;
}

async function originOf(control: Control, reader: Reader, caller: Caller, source: GroupSource): Promise<Origin> {
  if (source.kind === 'group') {
    const group = await visibleGroup(reader, caller, source.id);
    if (group.status !== 'available') throw invalidGroup(notAvailable('Source group', group));
    const members: Member[] = [];
    for (const row of await volumesOfGroup(reader, group.id)) {
      requireStatus(row, 'clone a volume');
      await refuseWhileFilling(control, reader, row.id);
      const from = { snapshot_id: null, source_volume_id: row.id };
      members.push({ sourceId: row.id, sizeGib: row.size_gib, typeId: row.type_id, bootable: row.bootable, from });
    }
    return { groupTypeId: group.group_type_id, groupId: group.id, members };
  }
  const found = await visibleGroupSnapshot(reader, caller, source.id);
  if (found.status !== 'available') throw invalidGroup(notAvailable('Group snapshot', found));
  const members: Member[] = [];
  for (const row of await snapshotsOfGroupSnapshot(reader, found.id)) {
    requireStatus(row, 'create from a snapshot');
    const bootable = (await findVolume(reader, row.volume_id))?.bootable ?? 0;
    const from = { snapshot_id: row.id, source_volume_id: null };
    members.push({ sourceId: row.id, sizeGib: row.size_gib, typeId: row.type_id, bootable, from });
  }
  return { groupTypeId: found.group_type_id, groupId: found.group_id, members };
}

function notAvailable(what: string, { id, status }: { id: string; status: string }): string {
  return `${what} ${id} status must be available, but current status is: ${status}.`;
}

/** Returns its id. Each charge sees the volumes inserted before. */
async function insertMember(
  control: Control,
  writer: Writer,
  { caller, groupId, member }: { caller: Caller; groupId: string; member: Member },
): Promise<string> {
  const { sizeGib } = member;
  const type = (await findType(writer, member.typeId)) ?? (await defaultType(writer));
  await requireAllowed(control, writer, { type, sizeGib });
  const row = await addVolume(control, writer, caller, {
    type,
    sizeGib,
    name: null,
    description: null,
    bootable: member.bootable,
    snapshotId: member.from.snapshot_id,
    sourceVolumeId: member.from.source_volume_id,
    groupId,
  });
  return row.id;
}
