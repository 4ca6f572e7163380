/**
 * Makes the volumes of a group that is a copy. With temporary ids, snapshots of all sources are taken at one instant,
 * the volumes are made from those, and they go again; repeated after a crash, what is there stays as it is.
 */
import { Type } from 'typebox';
import { Failure } from '../../base/errors.ts';
import { GIB } from '../control.ts';
import { applyLimits } from '../limits.ts';
import { requirePlace } from '../placement.ts';
import { finish } from '../states.ts';
import { failGroup } from './group-failure.ts';
import { taskKind } from './kind.ts';
import { undo } from './undo.ts';

export const CreateGroupArgs = Type.Object({
  groupId: Type.String(),
  volumes: Type.Array(
    Type.Object({
      volumeId: Type.String(),
      sizeGib: Type.Integer(),
      sourceId: Type.String(),
      temporaryId: Type.Union([Type.String(), Type.Null()]),
    }),
  ),
});

export const createGroupTask = taskKind(CreateGroupArgs, {
  locks: ({ groupId, volumes }) => ({
    writes: [groupId, ...volumes.map(({ volumeId }) => volumeId)],
    reads: [...new Set(volumes.map(({ sourceId }) => sourceId))],
  }),

  async run(control, { volumes }) {
    const temporary = volumes.flatMap(({ temporaryId, sourceId }) =>
      temporaryId === null ? [] : [{ id: temporaryId, volumeId: sourceId }],
    );
    const temporaryIds = temporary.map(({ id }) => id);
    for (const { volumeId } of volumes) await requirePlace(control, volumeId);
    try {
      // The snapshots go when all volumes are there: taken again by then, they would show another instant.
      const made = await control.backend.usage(volumes.map(({ volumeId }) => volumeId));
      if (temporary.length > 0 && made.length < volumes.length) await control.backend.createSnapshots(temporary);
      for (const { volumeId, sizeGib, sourceId, temporaryId } of volumes) {
        const from = temporaryId ?? sourceId;
        if (!made.some(({ id }) => id === volumeId))
          await control.backend.createVolume({ id: volumeId, sizeBytes: sizeGib * GIB, sourceId: from });
        await applyLimits(control, volumeId);
        await control.exports.publishVolume(volumeId);
      }
      for (const id of temporaryIds) await control.backend.delete(id);
    } catch (error) {
      if (error instanceof Failure && error.code !== 'shutting_down')
        await undo(control, [...volumes.map(({ volumeId }) => volumeId), ...temporaryIds]);
      throw error;
    }
  },

  async done(control, writer, { groupId, volumes }) {
    const nowUs = control.nowUs();
    for (const { volumeId } of volumes)
      await finish(writer, { table: 'volumes', id: volumeId, action: 'create', nowUs, outcome: 'done' });
    await finish(writer, { table: 'groups', id: groupId, action: 'create', nowUs, outcome: 'done' });
  },

  async failed(control, writer, { groupId, volumes }, reason, requestId, code) {
    const partIds = volumes.map(({ volumeId }) => volumeId);
    const whole = { table: 'groups', id: groupId, partIds } as const;
    const detail = code === 'no_backend' ? 'no_backend' : 'create_failed';
    await failGroup(control, writer, { ...whole, action: 'create', detail, reason, requestId });
  },

  async after(control, { volumes }) {
    for (const { volumeId } of volumes) await control.exports.refreshVolume(volumeId);
  },
});
