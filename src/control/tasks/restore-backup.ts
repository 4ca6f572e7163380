/**
 * Writes a backup into a volume: a new one, or one whose data it replaces. Interrupted it begins again; the volume is
 * called available only when every byte is as it was backed up.
 */
import { Type } from 'typebox';
import { restoreBackup } from '../../backup/restore.ts';
import { Failure } from '../../base/errors.ts';
import { findBackup, updateBackup } from '../../catalog/backups.ts';
import { mergeMetadata } from '../../catalog/details.ts';
import { updateVolume } from '../../catalog/volumes.ts';
import { type Control, GIB } from '../control.ts';
import { applyLimits } from '../limits.ts';
import { requirePlace } from '../placement.ts';
import { finish } from '../states.ts';
import { taskKind } from './kind.ts';

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

  async run(control, { backupId, volumeId, sizeGib, isNew }) {
    const { backend, backups, catalog, exports, metrics } = control;
    const row = await findBackup(catalog.reader, backupId);
    if (row === undefined) throw new Failure('not_found', { kind: 'Backup', id: backupId });
    const repository = await backups.repository();
    const manifest = await repository.manifest(row.volume_id, backupId);
    if (manifest === null)
      throw new Failure('corrupt', {
        path: `backup ${backupId}`,
        reason: `it has no manifest in ${backups.container}`,
      });
    if (isNew) {
      await requirePlace(control, volumeId);
      await backend.createVolume({ id: volumeId, sizeBytes: sizeGib * GIB, sourceId: null });
    }
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
    await catalog.write(async (writer) => {
      await updateVolume(writer, volumeId, { bootable: manifest.about.bootable ? 1 : 0 });
      await mergeMetadata(writer, { id: volumeId, scope: 'image' }, Object.entries(manifest.about.image_metadata));
    });
    if (!isNew) return;
    await applyLimits(control, volumeId);
    await exports.publishVolume(volumeId);
  },

  async done(control, writer, args) {
    await end(control, writer, { args, outcome: 'done' });
  },

  async failed(control, writer, args, reason) {
    await end(control, writer, { args, outcome: 'failed' });
    await updateVolume(writer, args.volumeId, { failure: reason });
    await updateBackup(writer, args.backupId, { failure: reason });
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
  await finish(writer, { table: 'volumes', id: args.volumeId, action: args.action, nowUs, outcome });
  await finish(writer, { table: 'backups', id: args.backupId, action: 'restore', nowUs, outcome });
}
