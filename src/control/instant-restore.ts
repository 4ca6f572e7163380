/**
 * The restore that is served at once: to a new volume, which is filled meanwhile. What a restore is otherwise, stands in
 * `backups.ts`.
 */
import { insertFill } from '../catalog/fills.ts';
import { newVolume, type Restored } from './backups.ts';
import type { Control } from './control.ts';
import type { Caller } from './policy.ts';
import { requireBackupService } from './services.ts';
import { begin, visibleBackup } from './states.ts';

export async function restoreInstantly(
  control: Control,
  caller: Caller,
  { id, name }: { id: string; name: string | null },
): Promise<Restored> {
  await requireBackupService(control);
  const { volume, task } = await control.catalog.write(async (writer) => {
    const row = await visibleBackup(writer, caller, id);
    const nowUs = control.nowUs();
    // Not `restoring-backup`: that is served, and nothing may be before the fill is begun.
    const named = { name: name ?? `restore_backup_${id}`, status: 'creating' } as const;
    const volume = await newVolume(control, writer, { caller, row, ...named });
    await begin(writer, { table: 'backups', id, action: 'restore', nowUs });
    await insertFill(writer, {
      volume_id: volume.id,
      backup_id: id,
      source_volume_id: row.volume_id,
      // The task reads it in the manifest.
      ranges: null,
      total_bytes: row.stored_bytes,
      failure: null,
      created_at: nowUs,
    });
    const args = { backupId: id, volumeId: volume.id, sizeGib: volume.size_gib };
    return {
      volume,
      task: await control.tasks.accept(writer, { kind: 'restore-instant', subject: volume.id, args, caller }),
    };
  });
  control.tasks.start(task);
  await control.exports.refreshName(volume.name);
  return { backupId: id, volumeId: volume.id, volumeName: volume.name };
}
