/**
 * What has no task to end it: statuses that a crash or an administrator left in passing, and failures of the backend.
 * After this, every status that users see ends by itself or can be ended by them.
 */
import type { BackendEvent } from '../backend/backend.ts';
import { backupsInStatus, updateBackup } from '../catalog/backups.ts';
import { groupSnapshotsInStatus, groupsInStatus, updateGroup, updateGroupSnapshot } from '../catalog/groups.ts';
import { findSnapshot, snapshotsInStatus, updateSnapshot } from '../catalog/snapshots.ts';
import { findVolume, updateVolume, volumesInStatus } from '../catalog/volumes.ts';
import type { Control } from './control.ts';
import { endPassing, passing, tryBegin } from './states.ts';
import type { Task } from './tasks.ts';

const LEFT_BEHIND = 'the work was interrupted and nothing is left that could end it';

export async function settleLeftovers(control: Control, resumed: readonly Task[]): Promise<void> {
  const driven = new Set(resumed.flatMap((task) => idsOf(task)));
  const { catalog, log } = control;
  const nowUs = control.nowUs();
  const volumes = await volumesInStatus(catalog.reader, [...passing('volumes').keys()]);
  const snapshots = await snapshotsInStatus(catalog.reader, [...passing('snapshots').keys()]);
  const groups = await groupsInStatus(catalog.reader, [...passing('groups').keys()]);
  const groupSnapshots = await groupSnapshotsInStatus(catalog.reader, [...passing('group_snapshots').keys()]);
  const backups = await backupsInStatus(catalog.reader, [...passing('backups').keys()]);
  const left = {
    groups: groups.filter((row) => !driven.has(row.id)),
    groupSnapshots: groupSnapshots.filter((row) => !driven.has(row.id)),
    backups: backups.filter((row) => !driven.has(row.id)),
    volumes: volumes.filter((row) => !driven.has(row.id)),
    snapshots: snapshots.filter((row) => !driven.has(row.id)),
  };
  if (Object.values(left).some((rows) => rows.length > 0)) {
    await catalog.write(async (writer) => {
      for (const row of left.groups) {
        const to = await endPassing(writer, { table: 'groups', row, nowUs });
        await updateGroup(writer, row.id, { failure: LEFT_BEHIND });
        log.warn({ id: row.id, from: row.status, to }, 'a group was left in a passing status');
      }
      for (const row of left.groupSnapshots) {
        const to = await endPassing(writer, { table: 'group_snapshots', row, nowUs });
        await updateGroupSnapshot(writer, row.id, { failure: LEFT_BEHIND });
        log.warn({ id: row.id, from: row.status, to }, 'a group snapshot was left in a passing status');
      }
      for (const row of left.volumes) {
        const to = await endPassing(writer, { table: 'volumes', row, nowUs });
        await updateVolume(writer, row.id, { failure: LEFT_BEHIND, target_size_gib: null });
        log.warn({ id: row.id, from: row.status, to }, 'a volume was left in a passing status');
      }
      for (const row of left.snapshots) {
        const to = await endPassing(writer, { table: 'snapshots', row, nowUs });
        await updateSnapshot(writer, row.id, { failure: LEFT_BEHIND });
        log.warn({ id: row.id, from: row.status, to }, 'a snapshot was left in a passing status');
      }
      for (const row of left.backups) {
        const to = await endPassing(writer, { table: 'backups', row, nowUs });
        await updateBackup(writer, row.id, { failure: LEFT_BEHIND });
        log.warn({ id: row.id, from: row.status, to }, 'a backup was left in a passing status');
      }
    });
  }
  for (const usage of await control.backend.usage(null))
    if (usage.failed !== null) await failObject(control, { kind: 'volume-failed', id: usage.id, reason: usage.failed });
}

/** A volume or snapshot whose I/O is refused is shown as `error`. */
export async function failObject(control: Control, event: BackendEvent & { kind: 'volume-failed' }): Promise<void> {
  const nowUs = control.nowUs();
  const { id, reason } = event;
  await control.catalog.write(async (writer) => {
    if ((await findVolume(writer, id)) !== undefined) {
      await tryBegin(writer, { table: 'volumes', id, action: 'fail', nowUs });
      await updateVolume(writer, id, { failure: reason });
    } else if ((await findSnapshot(writer, id)) !== undefined) {
      await tryBegin(writer, { table: 'snapshots', id, action: 'fail', nowUs });
      await updateSnapshot(writer, id, { failure: reason });
    }
  });
}

function idsOf({ kind, args }: Task): string[] {
  const { writes, reads } = kind.locks(args);
  return [...writes, ...reads];
}
