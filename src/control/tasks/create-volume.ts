/**
 * Makes a volume in the backend, empty or as a copy, and publishes it before it is called available. If that fails,
 * what came into being is removed again.
 */
import { Type } from 'typebox';
import { Failure } from '../../base/errors.ts';
import { updateVolume } from '../../catalog/volumes.ts';
import { GIB } from '../control.ts';
import { applyLimits } from '../limits.ts';
import { noteFailure } from '../messages.ts';
import { requirePlace } from '../placement.ts';
import { finish } from '../states.ts';
import { taskKind } from './kind.ts';
import { undo } from './undo.ts';

export const CreateVolumeArgs = Type.Object({
  volumeId: Type.String(),
  sizeGib: Type.Integer(),
  sourceId: Type.Union([Type.String(), Type.Null()]),
});

export const createVolumeTask = taskKind(CreateVolumeArgs, {
  locks: ({ volumeId, sourceId }) => ({ writes: [volumeId], reads: sourceId === null ? [] : [sourceId] }),

  async run(control, { volumeId, sizeGib, sourceId }) {
    await requirePlace(control, volumeId);
    try {
      await control.backend.createVolume({ id: volumeId, sizeBytes: sizeGib * GIB, sourceId });
      await applyLimits(control, volumeId);
      await control.exports.publishVolume(volumeId);
    } catch (error) {
      if (error instanceof Failure && error.code !== 'shutting_down') await undo(control, [volumeId]);
      throw error;
    }
  },

  async done(control, writer, { volumeId }) {
    const nowUs = control.nowUs();
    await finish(writer, { table: 'volumes', id: volumeId, action: 'create', nowUs, outcome: 'done' });
  },

  async failed(control, writer, { volumeId }, reason, requestId, code) {
    const nowUs = control.nowUs();
    await finish(writer, { table: 'volumes', id: volumeId, action: 'create', nowUs, outcome: 'failed' });
    const row = await updateVolume(writer, volumeId, { failure: reason });
    if (row === undefined) return;
    await noteFailure(control, writer, {
      projectId: row.project_id,
      resource: 'VOLUME',
      resourceId: volumeId,
      ...(code === 'no_backend'
        ? { action: 'schedule_allocate_volume', detail: 'no_backend' }
        : { action: 'create_volume', detail: 'create_failed' }),
      requestId,
    });
  },

  async after(control, { volumeId }) {
    await control.exports.refreshVolume(volumeId);
  },
});
