/**
 * Removes a snapshot of a group with all its parts.
 */
import { Type } from 'typebox';
import { removeGroupSnapshot } from '../../catalog/groups.ts';
import { removeSnapshot } from '../../catalog/snapshots.ts';
import { failGroup } from './group-failure.ts';
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
    const whole = { table: 'group_snapshots', id: groupSnapshotId, partIds: snapshotIds } as const;
    const detail = 'snapshot_delete_failed';
    await failGroup(control, writer, { ...whole, action: 'delete', detail, reason, requestId });
  },

  async after() {},
});
