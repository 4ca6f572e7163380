/**
 * New volumes and snapshots in the catalog, however they come about: charged to the caller's project, and inserted as
 * what a task will make. Whether they may come about is the callers' to know.
 */
import type { SnapshotRow, TypeRow, VolumeRow, Writer } from '../catalog/schema.ts';
import { insertSnapshot } from '../catalog/snapshots.ts';
import { findType } from '../catalog/types.ts';
import { insertVolume } from '../catalog/volumes.ts';
import type { Control } from './control.ts';
import type { Caller } from './policy.ts';
import { charge } from './quotas.ts';
import { initialStatus, type VolumeStatus } from './states.ts';
import { defaultType, isMultiattach } from './types.ts';

export type VolumeToAdd = {
  readonly type: TypeRow;
  readonly sizeGib: number;
  readonly name: string | null;
  readonly description: string | null;
  readonly bootable: number;
  readonly snapshotId: string | null;
  readonly sourceVolumeId: string | null;
  readonly groupId: string | null;
  /** Where it is not that of every new volume. */
  readonly status?: VolumeStatus;
};

/** Each charge sees what was added before. */
export async function addVolume(
  control: Control,
  writer: Writer,
  caller: Caller,
  wanted: VolumeToAdd,
): Promise<VolumeRow> {
  const { type, sizeGib } = wanted;
  const { projectId, userId } = caller;
  await charge(control, writer, {
    projectId,
    type,
    volumes: 1,
    snapshots: 0,
    gigabytes: sizeGib,
    volumeGib: sizeGib,
  });
  return insertVolume(writer, {
    id: control.newId(),
    project_id: projectId,
    user_id: userId,
    name: wanted.name,
    description: wanted.description,
    size_gib: sizeGib,
    target_size_gib: null,
    status: wanted.status ?? initialStatus('volumes'),
    previous_status: null,
    failure: null,
    availability_zone: control.settings.availabilityZone,
    type_id: type.id,
    snapshot_id: wanted.snapshotId,
    source_volume_id: wanted.sourceVolumeId,
    bootable: wanted.bootable,
    read_only: null,
    multiattach: (await isMultiattach(writer, type)) ? 1 : 0,
    created_at: control.nowUs(),
    updated_at: null,
    group_id: wanted.groupId,
  });
}

/** Each charge sees what was added before. */
export async function addSnapshot(
  control: Control,
  writer: Writer,
  caller: Caller,
  wanted: Pick<SnapshotRow, 'name' | 'description' | 'group_snapshot_id'> & { readonly volume: VolumeRow },
): Promise<SnapshotRow> {
  const { volume, ...named } = wanted;
  const { projectId, userId } = caller;
  const type = (await findType(writer, volume.type_id)) ?? (await defaultType(writer));
  const gigabytes = volume.size_gib;
  await charge(control, writer, { projectId, type, volumes: 0, snapshots: 1, gigabytes, volumeGib: null });
  return insertSnapshot(writer, {
    ...named,
    id: control.newId(),
    project_id: projectId,
    user_id: userId,
    volume_id: volume.id,
    type_id: type.id,
    size_gib: gigabytes,
    status: initialStatus('snapshots'),
    previous_status: null,
    failure: null,
    progress: '0%',
    availability_zone: volume.availability_zone,
    created_at: control.nowUs(),
    updated_at: null,
  });
}
