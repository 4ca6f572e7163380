/**
 * Makes a snapshot in the backend and publishes it, read-only, before it is called available.
 */
import { Type } from 'typebox';
import { updateSnapshot } from '../../catalog/snapshots.ts';
import { noteFailure } from '../messages.ts';
import { finish } from '../states.ts';
import { taskKind } from './kind.ts';

export const CreateSnapshotArgs = Type.Object({ snapshotId: Type.String(), volumeId: Type.String() });

export const createSnapshotTask = taskKind(CreateSnapshotArgs, {
  locks: ({ snapshotId, volumeId }) => ({ writes: [snapshotId], reads: [volumeId] }),

  async run(control, { snapshotId, volumeId }) {
    await control.backend.createSnapshot({ id: snapshotId, volumeId });
    await control.exports.publishSnapshot(snapshotId);
  },

  async done(control, writer, { snapshotId }) {
    const nowUs = control.nowUs();
    await updateSnapshot(writer, snapshotId, { progress: '100%' });
    await finish(writer, { table: 'snapshots', id: snapshotId, action: 'create', nowUs, outcome: 'done' });
  },

  async failed(control, writer, { snapshotId }, reason, requestId) {
    const nowUs = control.nowUs();
    await finish(writer, { table: 'snapshots', id: snapshotId, action: 'create', nowUs, outcome: 'failed' });
    const row = await updateSnapshot(writer, snapshotId, { failure: reason });
    if (row === undefined) return;
    await noteFailure(control, writer, {
      projectId: row.project_id,
      resource: 'VOLUME_SNAPSHOT',
      resourceId: snapshotId,
      action: 'create_snapshot',
      detail: 'snapshot_create_failed',
      requestId,
    });
  },

  async after() {},
});
