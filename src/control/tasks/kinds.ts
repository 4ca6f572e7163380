/** All kinds of task by the name they have in the catalog. */
import type { Static } from 'typebox';
import { type CreateBackupArgs, createBackupTask } from './create-backup.ts';
import { type CreateGroupArgs, createGroupTask } from './create-group.ts';
import { type CreateGroupSnapshotArgs, createGroupSnapshotTask } from './create-group-snapshot.ts';
import { type CreateSnapshotArgs, createSnapshotTask } from './create-snapshot.ts';
import { type CreateVolumeArgs, createVolumeTask } from './create-volume.ts';
import { type DeleteBackupArgs, deleteBackupTask } from './delete-backup.ts';
import { type DeleteGroupArgs, deleteGroupTask } from './delete-group.ts';
import { type DeleteGroupSnapshotArgs, deleteGroupSnapshotTask } from './delete-group-snapshot.ts';
import { type DeleteSnapshotArgs, deleteSnapshotTask } from './delete-snapshot.ts';
import { type DeleteVolumeArgs, deleteVolumeTask } from './delete-volume.ts';
import { type ExtendVolumeArgs, extendVolumeTask } from './extend-volume.ts';
import type { TaskKind } from './kind.ts';
import { type RestoreBackupArgs, restoreBackupTask } from './restore-backup.ts';
import { type RestoreInstantArgs, restoreInstantTask } from './restore-instant.ts';
import { type RetypeVolumeArgs, retypeVolumeTask } from './retype-volume.ts';
import { type RevertVolumeArgs, revertVolumeTask } from './revert-volume.ts';
import { type VerifyBackupArgs, verifyBackupTask } from './verify-backup.ts';

export const KINDS = {
  'create-volume': createVolumeTask,
  'delete-volume': deleteVolumeTask,
  'extend-volume': extendVolumeTask,
  'revert-volume': revertVolumeTask,
  'retype-volume': retypeVolumeTask,
  'create-snapshot': createSnapshotTask,
  'delete-snapshot': deleteSnapshotTask,
  'create-group': createGroupTask,
  'delete-group': deleteGroupTask,
  'create-group-snapshot': createGroupSnapshotTask,
  'delete-group-snapshot': deleteGroupSnapshotTask,
  'create-backup': createBackupTask,
  'delete-backup': deleteBackupTask,
  'restore-backup': restoreBackupTask,
  'restore-instant': restoreInstantTask,
  'verify-backup': verifyBackupTask,
} as const satisfies Record<string, TaskKind>;

export type TaskKindName = keyof typeof KINDS;

export type TaskArgs = {
  'create-volume': Static<typeof CreateVolumeArgs>;
  'delete-volume': Static<typeof DeleteVolumeArgs>;
  'extend-volume': Static<typeof ExtendVolumeArgs>;
  'revert-volume': Static<typeof RevertVolumeArgs>;
  'retype-volume': Static<typeof RetypeVolumeArgs>;
  'create-snapshot': Static<typeof CreateSnapshotArgs>;
  'delete-snapshot': Static<typeof DeleteSnapshotArgs>;
  'create-group': Static<typeof CreateGroupArgs>;
  'delete-group': Static<typeof DeleteGroupArgs>;
  'create-group-snapshot': Static<typeof CreateGroupSnapshotArgs>;
  'delete-group-snapshot': Static<typeof DeleteGroupSnapshotArgs>;
  'create-backup': Static<typeof CreateBackupArgs>;
  'delete-backup': Static<typeof DeleteBackupArgs>;
  'restore-backup': Static<typeof RestoreBackupArgs>;
  'restore-instant': Static<typeof RestoreInstantArgs>;
  'verify-backup': Static<typeof VerifyBackupArgs>;
};
