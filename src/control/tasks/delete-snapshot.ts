/**
 * Removes a snapshot. Volumes made from it keep their data; that is the backend's business.
 */
import { Type } from 'typebox';
import { removeSnapshot, updateSnapshot } from '../../catalog/snapshots.ts';
import { noteFailure } from '../messages.ts';
import { finish } from '../states.ts';
import { taskKind } from './kind.ts';

export const DeleteSnapshotArgs = Type.Object({ snapshotId: Type.String(), volumeId: Type.String() });

export const deleteSnapshotTask = taskKind(DeleteSnapshotArgs, {
  locks: ({ snapshotId, volumeId }) => ({ writes: [snapshotId], reads: [volumeId] }),

  async run(control, { snapshotId }) {
    await control.exports.withdraw(snapshotId);
    await control.backend.delete(snapshotId);
  },

  async done(_control, writer, { snapshotId }) {
    await removeSnapshot(writer, snapshotId);
  },

  async failed(control, writer, { snapshotId }, reason, requestId) {
    const nowUs = control.nowUs();
    await finish(writer, { table: 'snapshots', id: snapshotId, action: 'delete', nowUs, outcome: 'failed' });
    const row = await updateSnapshot(writer, snapshotId, { failure: reason });
    if (row === undefined) return;
    await noteFailure(control, writer, {
      projectId: row.project_id,
      resource: 'VOLUME_SNAPSHOT',
      resourceId: snapshotId,
      action: 'delete_snapshot',
      detail: 'snapshot_delete_failed',
      requestId,
    });
  },

  async after() {},
});
