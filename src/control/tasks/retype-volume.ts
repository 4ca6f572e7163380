/**
 * Puts what a volume's new type says into force. The row has the new type from the beginning; if this pool does not offer
 * what the type wants, or the limits cannot be set, it gets the old one back.
 */
import { Type } from 'typebox';
import { updateVolume } from '../../catalog/volumes.ts';
import { applyLimits } from '../limits.ts';
import { noteFailure } from '../messages.ts';
import { requirePlace } from '../placement.ts';
import { finish } from '../states.ts';
import { taskKind } from './kind.ts';

export const RetypeVolumeArgs = Type.Object({
  volumeId: Type.String(),
  fromTypeId: Type.String(),
  fromMultiattach: Type.Integer(),
});

export const retypeVolumeTask = taskKind(RetypeVolumeArgs, {
  locks: ({ volumeId }) => ({ writes: [volumeId], reads: [] }),

  async run(control, { volumeId }) {
    await requirePlace(control, volumeId);
    await applyLimits(control, volumeId);
  },

  async done(control, writer, { volumeId }) {
    const nowUs = control.nowUs();
    await finish(writer, { table: 'volumes', id: volumeId, action: 'retype', nowUs, outcome: 'done' });
  },

  async failed(control, writer, { volumeId, fromTypeId, fromMultiattach }, reason, requestId, code) {
    const nowUs = control.nowUs();
    const old = { type_id: fromTypeId, multiattach: fromMultiattach };
    const row = await updateVolume(writer, volumeId, { ...old, failure: reason });
    await finish(writer, { table: 'volumes', id: volumeId, action: 'retype', nowUs, outcome: 'failed' });
    if (row === undefined) return;
    await noteFailure(control, writer, {
      projectId: row.project_id,
      resource: 'VOLUME',
      resourceId: volumeId,
      action: 'retype_volume',
      detail: code === 'no_backend' ? 'no_backend' : 'unknown',
      requestId,
    });
  },

  async after(control, { volumeId }) {
    control.limits.refresh([volumeId]);
  },
});
