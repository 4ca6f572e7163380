/**
 * Takes the snapshots of a group's volumes, at one instant or one by one, and publishes them, read-only, before they
 * are called available. If one fails, there is none.
 */
import { Type } from 'typebox';
import { Failure } from '../../base/errors.ts';
import { updateSnapshot } from '../../catalog/snapshots.ts';
import { finish } from '../states.ts';
import { failGroup } from './group-failure.ts';
import { taskKind } from './kind.ts';
import { undo } from './undo.ts';

export const CreateGroupSnapshotArgs = Type.Object({
  groupSnapshotId: Type.String(),
  isAtOneInstant: Type.Boolean(),
  members: Type.Array(Type.Object({ snapshotId: Type.String(), volumeId: Type.String() })),
});

export const createGroupSnapshotTask = taskKind(CreateGroupSnapshotArgs, {
  locks: ({ groupSnapshotId, members }) => ({
    writes: [groupSnapshotId, ...members.map(({ snapshotId }) => snapshotId)],
    reads: members.map(({ volumeId }) => volumeId),
  }),

  async run(control, { isAtOneInstant, members }) {
    const wanted = members.map(({ snapshotId, volumeId }) => ({ id: snapshotId, volumeId }));
    try {
      if (isAtOneInstant && wanted.length > 0) await control.backend.createSnapshots(wanted);
      else for (const one of wanted) await control.backend.createSnapshot(one);
      for (const { id } of wanted) await control.exports.publishSnapshot(id);
    } catch (error) {
      if (error instanceof Failure && error.code !== 'shutting_down')
        await undo(
          control,
          wanted.map(({ id }) => id),
        );
      throw error;
    }
  },

  async done(control, writer, { groupSnapshotId, members }) {
    const nowUs = control.nowUs();
    for (const { snapshotId } of members) {
      await updateSnapshot(writer, snapshotId, { progress: '100%' });
      await finish(writer, { table: 'snapshots', id: snapshotId, action: 'create', nowUs, outcome: 'done' });
    }
    const id = groupSnapshotId;
    await finish(writer, { table: 'group_snapshots', id, action: 'create', nowUs, outcome: 'done' });
  },

  async failed(control, writer, { groupSnapshotId, members }, reason, requestId) {
    const partIds = members.map(({ snapshotId }) => snapshotId);
    const whole = { table: 'group_snapshots', id: groupSnapshotId, partIds } as const;
    const detail = 'snapshot_create_failed';
    await failGroup(control, writer, { ...whole, action: 'create', detail, reason, requestId });
  },

  async after() {},
});
