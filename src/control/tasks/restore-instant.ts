/**
 * Makes a volume that is served at once and filled from a backup meanwhile. Ends when the volume can be used; what is left
 * is the fill's, which knows from the catalog what it has to do.
 */
import { Type } from 'typebox';
import { fillRanges } from '../../backup/fill.ts';
import { keysOf } from '../../backup/restore.ts';
import { findFill, removeFill, updateFill } from '../../catalog/fills.ts';
import { updateVolume } from '../../catalog/volumes.ts';
import { type Control, GIB } from '../control.ts';
import { applyLimits } from '../limits.ts';
import { requirePlace } from '../placement.ts';
import { finish } from '../states.ts';
import { taskKind } from './kind.ts';
import { describeRestored, noteFailedRestore } from './restored.ts';

export const RestoreInstantArgs = Type.Object({
  backupId: Type.String(),
  volumeId: Type.String(),
  sizeGib: Type.Integer(),
});

export const restoreInstantTask = taskKind(RestoreInstantArgs, {
  locks: ({ backupId, volumeId }) => ({ writes: [volumeId], reads: [backupId] }),

  async run(control, { backupId, volumeId, sizeGib }) {
    const { backend, exports, fills } = control;
    await requirePlace(control, volumeId);
    await backend.createVolume({ id: volumeId, sizeBytes: sizeGib * GIB, sourceId: null });
    // None: it was filled before a crash that this repeats.
    const row = await prepared(control, { backupId, volumeId });
    if (row !== undefined) await fills.begin(row);
    await applyLimits(control, volumeId);
    await exports.publishVolume(volumeId);
  },

  async done(control, writer, { backupId, volumeId }) {
    const end = { nowUs: control.nowUs(), outcome: 'done' } as const;
    await finish(writer, { table: 'volumes', id: volumeId, action: 'create', ...end });
    await finish(writer, { table: 'backups', id: backupId, action: 'restore', ...end });
  },

  async failed(control, writer, { backupId, volumeId }, reason, requestId) {
    const end = { nowUs: control.nowUs(), outcome: 'failed' } as const;
    await finish(writer, { table: 'volumes', id: volumeId, action: 'create', ...end });
    await finish(writer, { table: 'backups', id: backupId, action: 'restore', ...end });
    await removeFill(writer, volumeId);
    await updateVolume(writer, volumeId, { failure: reason });
    await noteFailedRestore(control, writer, { backupId, reason, requestId });
  },

  async after(control, { volumeId }) {
    if ((await findFill(control.catalog.reader, volumeId)) === undefined) await control.fills.cancel(volumeId);
    await control.exports.refreshVolume(volumeId);
  },
});

/** What the fill has to know while the store is away. Whether the backup can be read at all is found out now. */
async function prepared(control: Control, { backupId, volumeId }: { backupId: string; volumeId: string }) {
  const { backups, catalog } = control;
  const row = await findFill(catalog.reader, volumeId);
  if (row === undefined || row.ranges !== null) return row;
  const repository = await backups.repository();
  const manifest = await backups.manifest({ volumeId: row.source_volume_id, backupId });
  await keysOf(repository, manifest);
  const ranges = fillRanges(manifest).map(({ offset, length }) => [offset, length]);
  return catalog.write(async (writer) => {
    await describeRestored(writer, volumeId, manifest);
    return updateFill(writer, volumeId, { ranges: JSON.stringify(ranges), total_bytes: manifest.stored_bytes });
  });
}
