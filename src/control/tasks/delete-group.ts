/**
 * Removes a group and its volumes, from the outside in: exports, backend, catalog.
 */
import { Type } from 'typebox';
import { forgetBases } from '../../catalog/backups.ts';
import { findGroup, removeGroup, updateGroup } from '../../catalog/groups.ts';
import { findVolume, removeVolume, updateVolume } from '../../catalog/volumes.ts';
import { noteFailure } from '../messages.ts';
import { finish } from '../states.ts';
import { taskKind } from './kind.ts';

export const DeleteGroupArgs = Type.Object({
  groupId: Type.String(),
  volumes: Type.Array(Type.Object({ volumeId: Type.String(), name: Type.Union([Type.String(), Type.Null()]) })),
});

export const deleteGroupTask = taskKind(DeleteGroupArgs, {
  locks: ({ groupId, volumes }) => ({ writes: [groupId, ...volumes.map(({ volumeId }) => volumeId)], reads: [] }),

  async run(control, { volumes }) {
    for (const { volumeId } of volumes) {
      await control.backups.removeBases(volumeId);
      await control.exports.withdraw(volumeId);
      await control.backend.delete(volumeId);
    }
  },

  async done(_control, writer, { groupId, volumes }) {
    for (const { volumeId } of volumes) {
      await forgetBases(writer, volumeId);
      await removeVolume(writer, volumeId);
    }
    await removeGroup(writer, groupId);
  },

  async failed(control, writer, { groupId, volumes }, reason, requestId) {
    const nowUs = control.nowUs();
    for (const { volumeId } of volumes) {
      if ((await findVolume(writer, volumeId)) === undefined) continue;
      await finish(writer, { table: 'volumes', id: volumeId, action: 'delete', nowUs, outcome: 'failed' });
      await updateVolume(writer, volumeId, { failure: reason });
    }
    if ((await findGroup(writer, groupId)) === undefined) return;
    await finish(writer, { table: 'groups', id: groupId, action: 'delete', nowUs, outcome: 'failed' });
    const row = await updateGroup(writer, groupId, { failure: reason });
    if (row === undefined) return;
    await noteFailure(control, writer, {
      projectId: row.project_id,
      resource: 'VOLUME_GROUP',
      resourceId: groupId,
      action: 'delete_group',
      detail: 'unknown',
      requestId,
    });
  },

  async after(control, { volumes }) {
    for (const { name } of volumes) await control.exports.refreshName(name);
  },
});
