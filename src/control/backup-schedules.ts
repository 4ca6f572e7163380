/**
 * The verbs of schedules of backups: of one volume, or of all volumes of a type that a project has. What they say is
 * kept here; `schedule-runner.ts` does it.
 */
import { Failure } from '../base/errors.ts';
import {
  findSchedule,
  insertSchedule,
  listSchedules,
  removeSchedule,
  updateSchedule,
} from '../catalog/backup-schedules.ts';
import type { BackupScheduleRow, Reader } from '../catalog/schema.ts';
import type { Control } from './control.ts';
import { type Caller, enforce } from './policy.ts';
import type { Retention } from './retention.ts';
import { nextTimeUs, type When } from './schedule-times.ts';
import { visibleVolume } from './states.ts';
import { requireUsableType } from './types.ts';
import { requireVisible } from './visibility.ts';

export const SCHEDULES_PER_PROJECT_MAX = 256;

export type ScheduleSettings = {
  readonly name: string;
  readonly when: When;
  /** Every so many backups of a volume is a full one; 0: only the first. */
  readonly fullEvery: number;
  readonly retention: Retention;
  readonly isEnabled: boolean;
};
export type NewSchedule = ScheduleSettings & {
  /** Exactly one of the two; a type by its id or name. */
  readonly volumeId: string | null;
  readonly type: string | null;
};
export type ScheduleUpdate = {
  readonly [Key in Exclude<keyof ScheduleSettings, 'when' | 'retention'>]?: ScheduleSettings[Key];
} & { readonly when?: Partial<When>; readonly retention?: Partial<Retention> };

export const whenOf = (row: BackupScheduleRow): When => ({
  every: row.frequency,
  minute: row.minute,
  hour: row.hour,
  weekday: row.weekday,
  monthDay: row.month_day,
});

export const retentionOf = (row: BackupScheduleRow): Retention => ({
  last: row.keep_last,
  hourly: row.keep_hourly,
  daily: row.keep_daily,
  weekly: row.keep_weekly,
  monthly: row.keep_monthly,
});

export async function createSchedule(
  control: Control,
  caller: Caller,
  wanted: NewSchedule,
): Promise<BackupScheduleRow> {
  enforce(caller, 'quarry:backup_schedules:change');
  control.backups.requireConfigured();
  if ((wanted.volumeId === null) === (wanted.type === null))
    throw new Failure('bad_request', {
      reason: 'A schedule is for a volume or for a volume type: give one of the two.',
    });
  return control.catalog.write(async (writer) => {
    const others = await listSchedules(writer, { projectId: caller.projectId, name: null });
    if (others.length >= SCHEDULES_PER_PROJECT_MAX) {
      const reason = `The project has ${others.length} schedules of backups already: delete one first.`;
      throw new Failure('over_quota', { reason });
    }
    const nowUs = control.nowUs();
    const row: BackupScheduleRow = {
      id: control.newId(),
      project_id: caller.projectId,
      user_id: caller.userId,
      ...(await targetOf(writer, caller, wanted)),
      ...columnsOf(wanted),
      next_at: nextTimeUs(wanted.when, nowUs),
      last_at: null,
      last_failure: null,
      created_at: nowUs,
      updated_at: null,
    };
    await insertSchedule(writer, row);
    return row;
  });
}

async function targetOf(
  reader: Reader,
  caller: Caller,
  { volumeId, type }: NewSchedule,
): Promise<Pick<BackupScheduleRow, 'volume_id' | 'type_id'>> {
  if (volumeId === null) return { volume_id: null, type_id: (await requireUsableType(reader, caller, type ?? '')).id };
  const volume = await visibleVolume(reader, caller, volumeId);
  // An administrator sees it; but its backups would be those of the wrong project.
  if (volume.project_id !== caller.projectId) {
    const reason = `Volume ${volumeId} belongs to project ${volume.project_id}: make its schedule in that project.`;
    throw new Failure('bad_request', { reason });
  }
  return { volume_id: volumeId, type_id: null };
}

function columnsOf({ name, when, fullEvery, retention, isEnabled }: ScheduleSettings) {
  return {
    name,
    is_enabled: isEnabled ? 1 : 0,
    frequency: when.every,
    minute: when.minute,
    hour: when.hour,
    weekday: when.weekday,
    month_day: when.monthDay,
    full_every: fullEvery,
    keep_last: retention.last,
    keep_hourly: retention.hourly,
    keep_daily: retention.daily,
    keep_weekly: retention.weekly,
    keep_monthly: retention.monthly,
  };
}

export async function getSchedule(control: Control, caller: Caller, id: string): Promise<BackupScheduleRow> {
  enforce(caller, 'quarry:backup_schedules:get');
  return visibleSchedule(control.catalog.reader, caller, id);
}

async function visibleSchedule(reader: Reader, caller: Caller, id: string): Promise<BackupScheduleRow> {
  return requireVisible(caller, await findSchedule(reader, id), { kind: 'Backup schedule', id });
}

export async function allSchedules(
  control: Control,
  caller: Caller,
  wanted: { allProjects: boolean; name: string | null },
): Promise<BackupScheduleRow[]> {
  enforce(caller, 'quarry:backup_schedules:get');
  const projectId = wanted.allProjects && caller.isAdmin ? null : caller.projectId;
  return listSchedules(control.catalog.reader, { projectId, name: wanted.name });
}

/** Other times, and being enabled again, count from now on: what would have been due before is not made up for. */
export async function changeSchedule(
  control: Control,
  caller: Caller,
  { id, update }: { id: string; update: ScheduleUpdate },
): Promise<BackupScheduleRow> {
  enforce(caller, 'quarry:backup_schedules:change');
  return control.catalog.write(async (writer) => {
    const row = await visibleSchedule(writer, caller, id);
    const settings: ScheduleSettings = {
      name: update.name ?? row.name,
      when: { ...whenOf(row), ...update.when },
      fullEvery: update.fullEvery ?? row.full_every,
      retention: { ...retentionOf(row), ...update.retention },
      isEnabled: update.isEnabled ?? row.is_enabled === 1,
    };
    const nowUs = control.nowUs();
    const isNewTime = update.when !== undefined || (settings.isEnabled && row.is_enabled === 0);
    const changes = {
      ...columnsOf(settings),
      ...(isNewTime && { next_at: nextTimeUs(settings.when, nowUs) }),
      updated_at: nowUs,
    };
    await updateSchedule(writer, id, changes);
    return { ...row, ...changes };
  });
}

/** What it has made stays. */
export async function deleteSchedule(control: Control, caller: Caller, id: string): Promise<void> {
  enforce(caller, 'quarry:backup_schedules:change');
  await control.catalog.write(async (writer) => {
    await visibleSchedule(writer, caller, id);
    await removeSchedule(writer, id);
  });
}
