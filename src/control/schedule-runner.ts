/**
 * Does what schedules of backups say: begins what is due, and deletes what retention lets go. All that has to outlive a
 * crash stands in the catalog: a schedule is due until its run has ended, and a volume whose backup was made since then
 * is not backed up again. So a run happens once, and of several that were missed one is made up for. It has no clock:
 * somebody wakes it from time to time, and the end of each backup does.
 */
import { Failure } from '../base/errors.ts';
import { backupsOfSchedule, enabledSchedules, endScheduleRun, volumesOfType } from '../catalog/backup-schedules.ts';
import { backupsInStatus, newestBackup } from '../catalog/backups.ts';
import type { BackupRow, BackupScheduleRow, VolumeRow } from '../catalog/schema.ts';
import { findType } from '../catalog/types.ts';
import { findVolume } from '../catalog/volumes.ts';
import { retentionOf, whenOf } from './backup-schedules.ts';
import { createBackup, deleteBackup } from './backups.ts';
import type { Control } from './control.ts';
import { type MessageDetail, noteFailure } from './messages.ts';
import type { Caller } from './policy.ts';
import { keepsEverything, surplus } from './retention.ts';
import { nextTimeUs } from './schedule-times.ts';

/** Between two looks at what is due. */
export const SCHEDULE_TICK_MS = 15_000;
/** Backups under way, whoever asked for them, beyond which a schedule begins none: a volume that waits is `backing-up`. */
const UNDER_WAY_MAX = 4;
/** For so long a volume that is busy is tried again. */
const RETRY_US = 15 * 60 * 1e6;
const FAILURE_CHARS_MAX = 1000;

/** A run that has begun and not ended, in this process: by volume, since when it was found busy, and why it has no backup. */
type Run = {
  readonly dueUs: number;
  readonly busySinceUs: Map<string, number>;
  readonly refused: Map<string, string>;
};

export class ScheduleRunner {
  readonly #control: Control;
  readonly #runs = new Map<string, Run>();
  #isStopped = false;
  #isAsked = false;
  #working: Promise<void> | null = null;

  constructor(control: Control) {
    this.#control = control;
  }

  /** Looks at all schedules, once more if a look is under way. */
  wake(): void {
    if (this.#isStopped || !this.#control.backups.isConfigured) return;
    this.#isAsked = true;
    this.#working ??= this.#work().finally(() => {
      this.#working = null;
    });
  }

  /** Resolves when no look is under way. */
  async idle(): Promise<void> {
    while (this.#working !== null) await this.#working;
  }

  stop(): void {
    this.#isStopped = true;
  }

  async close(): Promise<void> {
    this.stop();
    await this.idle();
  }

  async #work(): Promise<void> {
    while (this.#isAsked && !this.#isStopped) {
      this.#isAsked = false;
      try {
        await this.#look();
      } catch (error) {
        if (!this.#isStopped) this.#control.log.error({ err: error }, 'schedules of backups: a look at them failed');
      }
    }
  }

  async #look(): Promise<void> {
    const { reader } = this.#control.catalog;
    const nowUs = this.#control.nowUs();
    const enabled = await enabledSchedules(reader);
    const due = enabled.filter((schedule) => schedule.next_at <= nowUs);
    const ids = new Set(due.map(({ id }) => id));
    for (const id of this.#runs.keys()) if (!ids.has(id)) this.#runs.delete(id);
    for (const schedule of enabled) {
      if (this.#isStopped) return;
      if (ids.has(schedule.id)) await this.#run(schedule, nowUs);
      else await this.#correct(schedule, nowUs);
    }
    for (const schedule of enabled) {
      if (this.#isStopped) return;
      if (!keepsEverything(retentionOf(schedule))) await this.#prune(schedule);
    }
  }

  /** The next time is never later than the next one from now, unless the clock was ahead when it was computed. */
  async #correct(schedule: BackupScheduleRow, nowUs: number): Promise<void> {
    const { id, next_at: dueUs } = schedule;
    const nextUs = nextTimeUs(whenOf(schedule), nowUs);
    if (dueUs <= nextUs) return;
    this.#control.log.warn({ schedule: id }, 'the clock was ahead: a schedule of backups gets its next time again');
    await this.#control.catalog.write((writer) => endScheduleRun(writer, { id, dueUs }, { next_at: nextUs }));
  }

  async #run(schedule: BackupScheduleRow, nowUs: number): Promise<void> {
    let run = this.#runs.get(schedule.id);
    if (run === undefined || run.dueUs !== schedule.next_at)
      run = { dueUs: schedule.next_at, busySinceUs: new Map(), refused: new Map() };
    this.#runs.set(schedule.id, run);
    const volumes = await this.#volumesOf(schedule);
    if (typeof volumes === 'string') {
      this.#control.log.warn({ schedule: schedule.id, reason: volumes }, 'a schedule of backups is switched off');
      await this.#end(schedule, { failure: volumes, isEnabled: false, nowUs });
      return;
    }
    let isPostponed = false;
    for (const volume of volumes) {
      if (this.#isStopped) return;
      if (run.refused.has(volume.id) || (await this.#isMade(schedule, volume.id, nowUs))) continue;
      if ((await backupsInStatus(this.#control.catalog.reader, ['creating'])).length >= UNDER_WAY_MAX) return;
      const sinceUs = run.busySinceUs.get(volume.id) ?? nowUs;
      const outcome = await this.#begin(schedule, volume, { mayWait: nowUs - sinceUs < RETRY_US });
      if (outcome === 'postponed') {
        isPostponed = true;
        run.busySinceUs.set(volume.id, sinceUs);
      } else if (outcome !== 'begun') run.refused.set(volume.id, outcome);
    }
    if (isPostponed) return;
    const failure = [...run.refused].map(([id, reason]) => `${id}: ${reason}`).join(' ');
    await this.#end(schedule, { failure: failure.slice(0, FAILURE_CHARS_MAX) || null, isEnabled: true, nowUs });
  }

  /** Or why there will never be one. */
  async #volumesOf(schedule: BackupScheduleRow): Promise<readonly VolumeRow[] | string> {
    const { reader } = this.#control.catalog;
    const { project_id: projectId, volume_id: volumeId, type_id: typeId } = schedule;
    if (volumeId !== null) {
      const volume = await findVolume(reader, volumeId);
      return volume?.project_id === projectId ? [volume] : `Volume ${volumeId} is not in the project any more.`;
    }
    if (typeId === null || (await findType(reader, typeId)) === undefined)
      return `The volume type ${typeId} does not exist any more.`;
    return volumesOfType(reader, { projectId, typeId });
  }

  /** What seems to be of the future was made by a clock that was ahead. */
  async #isMade(schedule: BackupScheduleRow, volumeId: string, nowUs: number): Promise<boolean> {
    const made = await backupsOfSchedule(this.#control.catalog.reader, { scheduleId: schedule.id, volumeId });
    return made.some(({ created_at }) => created_at >= schedule.next_at && created_at <= nowUs);
  }

  async #begin(
    schedule: BackupScheduleRow,
    volume: VolumeRow,
    { mayWait }: { mayWait: boolean },
  ): Promise<'begun' | 'postponed' | string> {
    const { log } = this.#control;
    try {
      const { row } = await createBackup(this.#control, callerOf(schedule), {
        volumeId: volume.id,
        snapshotId: null,
        name: nameOf(schedule, volume, this.#control.nowUs()),
        description: null,
        container: null,
        isIncremental: await this.#isIncremental(schedule, volume.id),
        force: true,
        metadata: new Map(),
        availabilityZone: null,
        scheduleId: schedule.id,
      });
      log.info({ schedule: schedule.id, volumeId: volume.id, backup: row.id }, 'a scheduled backup begins');
      return 'begun';
    } catch (error) {
      const fields = { schedule: schedule.id, volumeId: volume.id };
      if (!(error instanceof Failure)) log.error({ ...fields, err: error }, 'a scheduled backup did not begin');
      else if (mayWait && (error.code === 'wrong_state' || error.code === 'objects_unavailable')) return 'postponed';
      else log.warn({ ...fields, reason: error.message }, 'a scheduled backup did not begin');
      const reason = error instanceof Failure ? error.message : 'internal error; the log of the daemon says more';
      await this.#note(volume, error);
      return reason;
    }
  }

  async #isIncremental(schedule: BackupScheduleRow, volumeId: string): Promise<boolean> {
    const { catalog } = this.#control;
    const made = await backupsOfSchedule(catalog.reader, { scheduleId: schedule.id, volumeId });
    const sound = made.filter(isGood);
    const sinceFull = sound.findIndex((backup) => backup.parent_id === null);
    const changes = sinceFull === -1 ? sound.length : sinceFull;
    if (schedule.full_every > 0 && changes + 1 >= schedule.full_every) return false;
    const about = { projectId: schedule.project_id, volumeId, beforeUs: this.#control.nowUs() };
    return (await newestBackup(catalog.reader, about)) !== undefined;
  }

  async #note(volume: VolumeRow, error: unknown): Promise<void> {
    await this.#control.catalog.write((writer) =>
      noteFailure(this.#control, writer, {
        projectId: volume.project_id,
        resource: 'VOLUME',
        resourceId: volume.id,
        action: 'create_backup',
        detail: detailOf(error),
        requestId: null,
      }),
    );
  }

  async #end(
    schedule: BackupScheduleRow,
    { failure, isEnabled, nowUs }: { failure: string | null; isEnabled: boolean; nowUs: number },
  ): Promise<void> {
    const { id, next_at: dueUs } = schedule;
    await this.#control.catalog.write((writer) =>
      endScheduleRun(
        writer,
        { id, dueUs },
        {
          next_at: nextTimeUs(whenOf(schedule), nowUs),
          last_at: nowUs,
          last_failure: failure,
          is_enabled: isEnabled ? 1 : 0,
        },
      ),
    );
    this.#runs.delete(id);
  }

  /** Only what the schedule has made. What is of no use goes too, once there is something newer that is good. */
  async #prune(schedule: BackupScheduleRow): Promise<void> {
    const all = await backupsOfSchedule(this.#control.catalog.reader, { scheduleId: schedule.id, volumeId: null });
    for (const made of byVolume(all).values()) {
      const good = made.filter(isGood);
      const [newest] = good;
      if (newest === undefined) continue;
      const gone = new Set(
        surplus(
          good.map((backup) => ({ id: backup.id, atUs: backup.data_timestamp })),
          retentionOf(schedule),
        ),
      );
      for (const backup of made) {
        const isUseless =
          !isGood(backup) && DELETABLE.has(backup.status) && backup.data_timestamp < newest.data_timestamp;
        if ((gone.has(backup.id) && backup.status === 'available') || isUseless) await this.#delete(schedule, backup);
      }
    }
  }

  async #delete(schedule: BackupScheduleRow, backup: BackupRow): Promise<void> {
    const fields = { schedule: schedule.id, backup: backup.id };
    try {
      await deleteBackup(this.#control, callerOf(schedule), { id: backup.id, force: false });
      this.#control.log.info(fields, 'a scheduled backup has had its time');
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      // Somebody was quicker: it is restored, or deleted.
      this.#control.log.debug({ ...fields, reason: error.message }, 'a scheduled backup is not deleted now');
    }
  }
}

/** What may be deleted by an ordinary request. */
const DELETABLE: ReadonlySet<string> = new Set(['available', 'error']);

/** One that can be restored, as far as is known. */
function isGood({ status, verified }: BackupRow): boolean {
  if (status !== 'available' && status !== 'restoring') return false;
  return verified === null || (JSON.parse(verified) as { outcome?: unknown }).outcome !== 'damaged';
}

function byVolume(backups: readonly BackupRow[]): ReadonlyMap<string, BackupRow[]> {
  const found = new Map<string, BackupRow[]>();
  for (const backup of backups) {
    const others = found.get(backup.volume_id);
    if (others === undefined) found.set(backup.volume_id, [backup]);
    else others.push(backup);
  }
  return found;
}

/** In whose name its work is done. */
function callerOf(schedule: BackupScheduleRow): Caller {
  return {
    projectId: schedule.project_id,
    userId: schedule.user_id,
    role: 'member',
    isAdmin: false,
    isService: false,
  };
}

/** Unique enough to be named on a command line. */
function nameOf(schedule: BackupScheduleRow, volume: VolumeRow, nowUs: number): string {
  const stamp = new Date(nowUs / 1000).toISOString().replace(/[-:]|\.\d+/g, '');
  const which = schedule.type_id === null ? '' : `-${volume.id.slice(0, 8)}`;
  return `${schedule.name}${which}-${stamp}`;
}

function detailOf(error: unknown): MessageDetail {
  if (!(error instanceof Failure)) return 'unknown';
  if (error.code === 'over_quota') return 'over_quota';
  if (error.code === 'wrong_state') return 'volume_invalid_state';
  return error.code === 'objects_unavailable' ? 'backup_service_down' : 'backup_create_failed';
}
