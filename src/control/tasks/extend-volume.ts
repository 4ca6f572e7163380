/**
 * Grows a volume. The new size is charged from the beginning (`target_size_gib`) and shown at the end.
 */
import { Type } from 'typebox';
import { updateVolume } from '../../catalog/volumes.ts';
import { GIB } from '../control.ts';
import { noteFailure } from '../messages.ts';
import { finish } from '../states.ts';
import { taskKind } from './kind.ts';

export const ExtendVolumeArgs = Type.Object({ volumeId: Type.String(), sizeGib: Type.Integer() });

export const extendVolumeTask = taskKind(ExtendVolumeArgs, {
  locks: ({ volumeId }) => ({ writes: [volumeId], reads: [] }),

  async run(control, { volumeId, sizeGib }) {
    await control.backend.resizeVolume({ id: volumeId, sizeBytes: sizeGib * GIB });
  },

  async done(control, writer, { volumeId, sizeGib }) {
    const nowUs = control.nowUs();
    await updateVolume(writer, volumeId, { size_gib: sizeGib, target_size_gib: null });
    await finish(writer, { table: 'volumes', id: volumeId, action: 'extend', nowUs, outcome: 'done' });
  },

  async failed(control, writer, { volumeId }, reason, requestId, code) {
    const nowUs = control.nowUs();
    // Where there is no room for it, nothing was tried: the volume is what it was.
    const outcome = code === 'no_backend' ? 'done' : 'failed';
    const row = await updateVolume(writer, volumeId, { target_size_gib: null, failure: reason });
    await finish(writer, { table: 'volumes', id: volumeId, action: 'extend', nowUs, outcome });
    if (row === undefined) return;
    await noteFailure(control, writer, {
      projectId: row.project_id,
      resource: 'VOLUME',
      resourceId: volumeId,
      action: 'extend_volume',
      detail: code === 'no_backend' ? 'no_backend' : 'extend_failed',
      requestId,
    });
  },

  async after(control, { volumeId }) {
    // Limits per GiB grow with the volume.
    control.limits.refresh([volumeId]);
  },
});
