/**
 * Removes a volume, and the snapshots that were to go with it, from the outside in: exports, backend, catalog.
 */
import { Type } from 'typebox';
import { forgetBases } from '../../catalog/backups.ts';
import { removeSnapshot, updateSnapshot } from '../../catalog/snapshots.ts';
import { findVolume, removeVolume, updateVolume } from '../../catalog/volumes.ts';
import { noteFailure } from '../messages.ts';
import { finish } from '../states.ts';
import { taskKind } from './kind.ts';

export const DeleteVolumeArgs = Type.Object({
  volumeId: Type.String(),
  name: Type.Union([Type.String(), Type.Null()]),
  snapshotIds: Type.Array(Type.String()),
});

export const deleteVolumeTask = taskKind(DeleteVolumeArgs, {
  locks: ({ volumeId, snapshotIds }) => ({ writes: [volumeId, ...snapshotIds], reads: [] }),

  async run(control, { volumeId, snapshotIds }) {
    await control.fills.cancel(volumeId);
    await control.backups.removeBases(volumeId);
    // Snapshots first: while one is left, so is the volume it belongs to.
    for (const id of [...snapshotIds, volumeId]) {
      await control.exports.withdraw(id);
      await control.backend.delete(id);
    }
    control.limits.forget(volumeId);
  },

  async done(_control, writer, { volumeId, snapshotIds }) {
    await forgetBases(writer, volumeId);
    for (const id of snapshotIds) await removeSnapshot(writer, id);
    await removeVolume(writer, volumeId);
  },

  async failed(control, writer, { volumeId, snapshotIds }, reason, requestId) {
    const nowUs = control.nowUs();
    for (const id of snapshotIds) {
      await finish(writer, { table: 'snapshots', id, action: 'delete', nowUs, outcome: 'failed' });
      await updateSnapshot(writer, id, { failure: reason });
    }
    if ((await findVolume(writer, volumeId)) === undefined) return;
    await finish(writer, { table: 'volumes', id: volumeId, action: 'delete', nowUs, outcome: 'failed' });
    const row = await updateVolume(writer, volumeId, { failure: reason });
    if (row === undefined) return;
    await noteFailure(control, writer, {
      projectId: row.project_id,
      resource: 'VOLUME',
      resourceId: volumeId,
      action: 'delete_volume',
      detail: 'unknown',
      requestId,
    });
  },

  async after(control, { volumeId, name }) {
    await control.fills.resume(volumeId);
    // Another volume may be the only bearer of the name now.
    await control.exports.refreshName(name);
  },
});
