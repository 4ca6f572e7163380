/**
 * Removes a snapshot of a group with all its parts.
 */
import { Type } from 'typebox';
import { removeGroupSnapshot, updateGroupSnapshot } from '../../catalog/groups.ts';
import { removeSnapshot, updateSnapshot } from '../../catalog/snapshots.ts';
import { noteFailure } from '../messages.ts';
import { finish } from '../states.ts';
import { taskKind } from './kind.ts';

export const DeleteGroupSnapshotArgs = Type.Object({
  groupSnapshotId: Type.String(),
  snapshotIds: Type.Array(Type.String()),
});

export const deleteGroupSnapshotTask = taskKind(DeleteGroupSnapshotArgs, {
  locks: ({ groupSnapshotId, snapshotIds }) => ({ writes: [groupSnapshotId, ...snapshotIds], reads: [] }),

  async run(control, { snapshotIds }) {
    for (const id of snapshotIds) {
      await control.exports.withdraw(id);
      await control.backend.delete(id);
    }
  },

  async done(_control, writer, { groupSnapshotId, snapshotIds }) {
    for (const id of snapshotIds) await removeSnapshot(writer, id);
    await removeGroupSnapshot(writer, groupSnapshotId);
  },

  async failed(control, writer, { groupSnapshotId, snapshotIds }, reason, requestId) {
    const nowUs = control.nowUs();
    for (const id of snapshotIds) {
      await finish(writer, { table: 'snapshots', id, action: 'delete', nowUs, outcome: 'failed' });
      await updateSnapshot(writer, id, { failure: reason });
    }
    const id = groupSnapshotId;
    await finish(writer, { table: 'group_snapshots', id, action: 'delete', nowUs, outcome: 'failed' });
    const row = await updateGroupSnapshot(writer, id, { failure: reason });
    if (row === undefined) return;
    await noteFailure(control, writer, {
      projectId: row.project_id,
      resource: 'VOLUME_GROUP_SNAPSHOT',
      resourceId: id,
      action: 'delete_group_snapshot',
      detail: 'snapshot_delete_failed',
      requestId,
    });
  },

  async after() {},
});
