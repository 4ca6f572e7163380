/**
 * Puts a volume back to what its newest snapshot holds.
 */
import { Type } from 'typebox';
import { updateVolume } from '../../catalog/volumes.ts';
import { noteFailure } from '../messages.ts';
import { finish } from '../states.ts';
import { taskKind } from './kind.ts';

export const RevertVolumeArgs = Type.Object({ volumeId: Type.String(), snapshotId: Type.String() });

export const revertVolumeTask = taskKind(RevertVolumeArgs, {
  locks: ({ volumeId, snapshotId }) => ({ writes: [volumeId], reads: [snapshotId] }),

  async run(control, { volumeId, snapshotId }) {
    await control.backend.revertVolume({ id: volumeId, snapshotId });
  },

  async done(control, writer, { volumeId, snapshotId }) {
    const nowUs = control.nowUs();
    await finish(writer, { table: 'volumes', id: volumeId, action: 'revert', nowUs, outcome: 'done' });
    await finish(writer, { table: 'snapshots', id: snapshotId, action: 'revert', nowUs, outcome: 'done' });
  },

  async failed(control, writer, { volumeId, snapshotId }, reason, requestId) {
    const nowUs = control.nowUs();
    await finish(writer, { table: 'volumes', id: volumeId, action: 'revert', nowUs, outcome: 'failed' });
    const row = await updateVolume(writer, volumeId, { failure: reason });
    await finish(writer, { table: 'snapshots', id: snapshotId, action: 'revert', nowUs, outcome: 'failed' });
    if (row === undefined) return;
    await noteFailure(control, writer, {
      projectId: row.project_id,
      resource: 'VOLUME',
      resourceId: volumeId,
      action: 'revert_volume',
      detail: 'unknown',
      requestId,
    });
  },

  async after() {},
});
