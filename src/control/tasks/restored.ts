/** What both kinds of restore leave in the catalog: what the backup says about its volume, and that it failed. */
import { updateBackup } from '../../catalog/backups.ts';
import { mergeMetadata } from '../../catalog/details.ts';
import type { Writer } from '../../catalog/schema.ts';
import { updateVolume } from '../../catalog/volumes.ts';
import type { Manifest } from '../../format/backup-manifest.ts';
import type { Control } from '../control.ts';
import { noteFailure } from '../messages.ts';

export async function describeRestored(writer: Writer, volumeId: string, { about }: Manifest): Promise<void> {
  await updateVolume(writer, volumeId, { bootable: about.bootable ? 1 : 0 });
  await mergeMetadata(writer, { id: volumeId, scope: 'image' }, Object.entries(about.image_metadata));
}

/** On the backup, and as a message to its project; the volume's part is its task's. */
export async function noteFailedRestore(
  control: Control,
  writer: Writer,
  { backupId, reason, requestId }: { backupId: string; reason: string; requestId: string | null },
): Promise<void> {
  const backup = await updateBackup(writer, backupId, { failure: reason });
  if (backup === undefined) return;
  await noteFailure(control, writer, {
    projectId: backup.project_id,
    resource: 'VOLUME_BACKUP',
    resourceId: backup.id,
    action: 'restore_backup',
    detail: 'backup_restore_failed',
    requestId,
  });
}
