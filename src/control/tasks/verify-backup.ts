/**
 * Reads a backup again and records what it found. The backup's status stays what it is.
 */
import { Type } from 'typebox';
import { DEPTHS, type Depth, verifyBackup } from '../../backup/verify.ts';
import { updateBackup } from '../../catalog/backups.ts';
import type { Writer } from '../../catalog/schema.ts';
import type { Control } from '../control.ts';
import { taskKind } from './kind.ts';

export const VerifyBackupArgs = Type.Object({
  backupId: Type.String(),
  volumeId: Type.String(),
  depth: Type.Unsafe<Depth>({ type: 'string', enum: [...DEPTHS] }),
});

export const verifyBackupTask = taskKind(VerifyBackupArgs, {
  isLong: true,
  locks: ({ backupId }) => ({ writes: [], reads: [backupId] }),

  async run(control, { backupId, volumeId, depth }) {
    const { backups } = control;
    const repository = await backups.repository();
    const report = await backups.tracked({ backupId, work: 'verify' }, (onProgress) =>
      verifyBackup(repository, { volume: volumeId, backup: backupId, depth, signal: backups.signal, onProgress }),
    );
    await control.catalog.write((writer) => record(control, writer, { backupId, report }));
  },

  async done() {},

  async failed(control, writer, { backupId, depth }, reason) {
    const problems = [{ key: `backup ${backupId}`, kind: 'unknown', reason }];
    const report = { depth, outcome: 'unknown', objects: 0, readBytes: 0, problemCount: 1, problems };
    await record(control, writer, { backupId, report });
  },

  async after() {},
});

async function record(control: Control, writer: Writer, found: { backupId: string; report: object }): Promise<void> {
  const verified = JSON.stringify({ ...found.report, endedAtUs: control.nowUs() });
  await updateBackup(writer, found.backupId, { verified });
}
