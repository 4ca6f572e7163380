/**
 * What the daemon is and does, in one look; and what the backend says about single volumes and snapshots.
 */
import type { ByteRange, PoolStats, VolumeSpace, VolumeUsage } from '../backend/backend.ts';
import { Failure } from '../base/errors.ts';
import { findFill } from '../catalog/fills.ts';
import type { SnapshotRow, TaskRow, VolumeRow } from '../catalog/schema.ts';
import { unfinishedTasks } from '../catalog/tasks.ts';
import { countByStatus, type StatusCount } from '../catalog/volumes.ts';
import { type Control, GIB } from './control.ts';
import type { Export } from './exports.ts';
import type { FillProgress } from './filling.ts';
import type { Caller } from './policy.ts';
import { visibleSnapshot, visibleVolume } from './states.ts';

/** Tasks shown at most. */
const TASKS_SHOWN_MAX = 1000;

export type Status = {
  readonly pool: PoolStats;
  readonly volumes: readonly StatusCount[];
  readonly snapshots: readonly StatusCount[];
  readonly backups: readonly StatusCount[];
  readonly tasks: readonly TaskRow[];
};

export async function status(control: Control): Promise<Status> {
  const { reader } = control.catalog;
  return {
    pool: await control.backend.stats(),
    volumes: await countByStatus(reader, 'volumes'),
    snapshots: await countByStatus(reader, 'snapshots'),
    backups: await countByStatus(reader, 'backups'),
    tasks: await unfinishedTasks(reader, TASKS_SHOWN_MAX),
  };
}

export type PoolSpace = {
  /** Extents in use that several share; what deleted objects still hold is among them until it is given back. */
  readonly sharedBytes: number;
  /** Extents in use that one volume or snapshot has for itself. */
  readonly exclusiveBytes: number;
  readonly objects: readonly VolumeSpace[];
};

export async function poolSpace({ backend }: Control): Promise<PoolSpace> {
  const objects = await backend.space(null);
  const { mappedBytes } = await backend.stats();
  const alone = objects.reduce((sum, { exclusiveBytes }) => sum + (exclusiveBytes ?? 0), 0);
  const exclusiveBytes = Math.min(alone, mappedBytes);
  return { sharedBytes: mappedBytes - exclusiveBytes, exclusiveBytes, objects };
}

export type Target = { readonly kind: 'volume' | 'snapshot'; readonly id: string };

async function requireTarget(control: Control, caller: Caller, { kind, id }: Target): Promise<VolumeRow | SnapshotRow> {
  const { reader } = control.catalog;
  return kind === 'volume' ? visibleVolume(reader, caller, id) : visibleSnapshot(reader, caller, id);
}

export type Usage = VolumeUsage &
  Pick<VolumeSpace, 'sharedBytes' | 'exclusiveBytes'> & {
    readonly lastFailure: string | null;
    readonly filling: FillProgress | null;
  };

/** What the backend says, and why the last work on it failed. An object that has no data (yet) uses nothing. */
export async function usage(control: Control, caller: Caller, target: Target): Promise<Usage> {
  const row = await requireTarget(control, caller, target);
  const [found] = await control.backend.usage([target.id]);
  const { kind, id } = target;
  const none = { mappedBytes: 0, connections: 0, throttledSeconds: 0, failed: null };
  const nothing = { id, kind, sizeBytes: row.size_gib * GIB, ...none };
  const [space] = await control.backend.space([target.id]);
  const { sharedBytes, exclusiveBytes } = space ?? { sharedBytes: 0, exclusiveBytes: 0 };
  const filling = await fillingOf(control, id);
  return { ...(found ?? nothing), sharedBytes, exclusiveBytes, lastFailure: row.failure, filling };
}

/** A fill that did not begin yet, or could not, is shown as well. */
async function fillingOf({ catalog, fills }: Control, id: string): Promise<FillProgress | null> {
  const row = await findFill(catalog.reader, id);
  if (row === undefined) return null;
  const { backup_id: backupId, total_bytes: totalBytes, failure } = row;
  return fills.progressOf(id) ?? { backupId, totalBytes, doneBytes: 0, failure };
}

export async function map(control: Control, caller: Caller, target: Target): Promise<ByteRange[]> {
  await requireTarget(control, caller, target);
  return control.backend.map(target.id);
}

export async function diff(
  control: Control,
  caller: Caller,
  { target, fromId }: { target: Target; fromId: string | null },
): Promise<ByteRange[]> {
  await requireTarget(control, caller, target);
  if (fromId !== null) await requireEither(control, caller, fromId);
  return control.backend.diff({ fromId, toId: target.id });
}

async function requireEither(control: Control, caller: Caller, id: string): Promise<void> {
  try {
    await visibleSnapshot(control.catalog.reader, caller, id);
  } catch (error) {
    if (!(error instanceof Failure && error.code === 'not_found')) throw error;
    await visibleVolume(control.catalog.reader, caller, id).catch(() => {
      throw new Failure('not_found', { kind: 'Snapshot or volume', id });
    });
  }
}

export async function exportsOf(control: Control, caller: Caller, target: Target): Promise<Export[]> {
  await requireTarget(control, caller, target);
  return control.exports.exportsOf(target.id);
}
