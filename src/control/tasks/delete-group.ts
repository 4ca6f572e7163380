/**
 * Removes a group and its volumes, from the outside in: exports, backend, catalog.
 */
import { Type } from 'typebox';
import { forgetBases } from '../../catalog/backups.ts';
import { removeGroup } from '../../catalog/groups.ts';
import { removeVolume } from '../../catalog/volumes.ts';
import { failGroup } from './group-failure.ts';
import { taskKind } from './kind.ts';

export const DeleteGroupArgs = Type.Object({
  groupId: Type.String(),
  volumes: Type.Array(Type.Object({ volumeId: Type.String(), name: Type.Union([Type.String(), Type.Null()]) })),
});

export const deleteGroupTask = taskKind(DeleteGroupArgs, {
  locks: ({ groupId, volumes }) => ({ writes: [groupId, ...volumes.map(({ volumeId }) => volumeId)], reads: [] }),

  async run(control, { volumes }) {
    for (const { volumeId } of volumes) {
      await control.fills.cancel(volumeId);
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
    const partIds = volumes.map(({ volumeId }) => volumeId);
    const whole = { table: 'groups', id: groupId, partIds } as const;
    await failGroup(control, writer, { ...whole, action: 'delete', detail: 'unknown', reason, requestId });
  },

  async after(control, { volumes }) {
    for (const { volumeId, name } of volumes) {
      await control.fills.resume(volumeId);
      await control.exports.refreshName(name);
    }
  },
});
