/**
 * Deletes a backup: its manifest first, then what no other backup of the volume needs.
 */
import { Type } from 'typebox';
import { deleteBackup } from '../../backup/collect.ts';
import { findBackup, removeBackup, updateBackup } from '../../catalog/backups.ts';
import { noteFailure } from '../messages.ts';
import { finish } from '../states.ts';
import { taskKind } from './kind.ts';

export const DeleteBackupArgs = Type.Object({ backupId: Type.String(), volumeId: Type.String() });

export const deleteBackupTask = taskKind(DeleteBackupArgs, {
  locks: ({ backupId }) => ({ writes: [backupId], reads: [] }),

  async run(control, { backupId, volumeId }) {
    const { backend, backups, catalog, exports } = control;
    const repository = await backups.repository();
    await deleteBackup(repository, { volume: volumeId, backup: backupId, signal: backups.signal });
    const row = await findBackup(catalog.reader, backupId);
    if (row === undefined || row.base_id === null) return;
    await exports.withdraw(row.base_id);
    await backend.delete(row.base_id);
  },

  async done(_control, writer, { backupId }) {
    await removeBackup(writer, backupId);
  },

  async failed(control, writer, { backupId }, reason, requestId) {
    const nowUs = control.nowUs();
    await finish(writer, { table: 'backups', id: backupId, action: 'delete', nowUs, outcome: 'failed' });
    const row = await updateBackup(writer, backupId, { failure: reason });
    if (row === undefined) return;
    await noteFailure(control, writer, {
      projectId: row.project_id,
      resource: 'VOLUME_BACKUP',
      resourceId: backupId,
      action: 'delete_backup',
      detail: 'backup_delete_failed',
      requestId,
    });
  },

  async after() {},
});
