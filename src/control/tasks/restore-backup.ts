/**
 * Writes a backup into a volume: a new one, or one whose data it replaces. Interrupted it begins again; the volume is
 * called available only when every byte is as it was backed up.
 */
import { Type } from 'typebox';
import { restoreBackup } from '../../backup/restore.ts';
import { Failure } from '../../base/errors.ts';
import { findBackup } from '../../catalog/backups.ts';
import { updateVolume } from '../../catalog/volumes.ts';
import { type Control, GIB } from '../control.ts';
import { applyLimits } from '../limits.ts';
import { noteFailure } from '../messages.ts';
import { requirePlace } from '../placement.ts';
import { finish, tryBegin } from '../states.ts';
import { taskKind } from './kind.ts';
import { describeRestored, noteFailedRestore } from './restored.ts';

export const RestoreBackupArgs = Type.Object({
  backupId: Type.String(),
  volumeId: Type.String(),
  sizeGib: Type.Integer(),
  isNew: Type.Boolean(),
  /** Under which action the volume is meanwhile. */
  action: Type.Union([Type.Literal('restore'), Type.Literal('create')]),
});

export const restoreBackupTask = taskKind(RestoreBackupArgs, {
  isLong: true,
  locks: ({ backupId, volumeId }) => ({ writes: [volumeId], reads: [backupId] }),

  async run(control, { backupId, volumeId, sizeGib, isNew, action }) {
    const { backend, backups, catalog, exports, metrics } = control;
    const row = await findBackup(catalog.reader, backupId);
    if (row === undefined) throw new Failure('not_found', { kind: 'Backup', id: backupId });
    const repository = await backups.repository();
    const manifest = await backups.manifest({ volumeId: row.volume_id, backupId });
    if (isNew) {
      await requirePlace(control, volumeId);
      await backend.createVolume({ id: volumeId, sizeBytes: sizeGib * GIB, sourceId: null });
    }
    if (action === 'create')
      await catalog.write((writer) =>
        tryBegin(writer, { table: 'volumes', id: volumeId, action: 'fill-from-backup', nowUs: control.nowUs() }),
      );
    const mapped = await backend.map(volumeId);
    await backups.tracked({ backupId, work: 'restore' }, (onProgress) =>
      backups.data.write(volumeId, (target) =>
        restoreBackup(repository, {
          manifest,
          target,
          targetBytes: sizeGib * GIB,
          mapped,
          signal: backups.signal,
          onProgress,
        }),
      ),
    );
    metrics.restoreBytes.inc(manifest.stored_bytes);
    await catalog.write((writer) => describeRestored(writer, volumeId, manifest));
    if (!isNew) return;
    await applyLimits(control, volumeId);
    await exports.publishVolume(volumeId);
  },

  async done(control, writer, args) {
    await end(control, writer, { args, outcome: 'done' });
  },

  async failed(control, writer, args, reason, requestId) {
    await end(control, writer, { args, outcome: 'failed' });
    const volume = await updateVolume(writer, args.volumeId, { failure: reason });
    await noteFailedRestore(control, writer, { backupId: args.backupId, reason, requestId });
    if (volume !== undefined && args.action === 'create')
      await noteFailure(control, writer, {
        projectId: volume.project_id,
        resource: 'VOLUME',
        resourceId: volume.id,
        action: 'create_volume',
        detail: 'create_failed',
        requestId,
      });
  },

  async after(control, { volumeId }) {
    await control.exports.refreshVolume(volumeId);
  },
});

async function end(
  control: Control,
  writer: Parameters<typeof finish>[0],
  ending: {
    args: { backupId: string; volumeId: string; action: 'restore' | 'create' };
    outcome: 'done' | 'failed';
  },
): Promise<void> {
  const { args, outcome } = ending;
  const nowUs = control.nowUs();
  const volume = { table: 'volumes', id: args.volumeId, nowUs, outcome } as const;
  if (args.action === 'restore') await finish(writer, { ...volume, action: 'restore' });
  // It may have failed before the volume was there to be filled.
  else
    (await finish(writer, { ...volume, action: 'fill-from-backup' })) ??
      (await finish(writer, { ...volume, action: 'create' }));
  await finish(writer, { table: 'backups', id: args.backupId, action: 'restore', nowUs, outcome });
}
