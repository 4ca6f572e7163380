/**
 * Schedules over the memory backend and a clock that tests move: what is due is begun once, also across crashes, what was
 * missed is made up for once, and what has had its time goes.
 */
import { expect, test } from 'vitest';
import { backupsOfSchedule, findSchedule } from '../../src/catalog/backup-schedules.ts';
import { findBackup, updateBackup } from '../../src/catalog/backups.ts';
import type { BackupRow } from '../../src/catalog/schema.ts';
import {
  changeSchedule,
  createSchedule,
  deleteSchedule,
  getSchedule,
  type NewSchedule,
  SCHEDULES_PER_PROJECT_MAX,
} from '../../src/control/backup-schedules.ts';
import { createBackup, deleteBackup } from '../../src/control/backups.ts';
import { listMessages } from '../../src/control/messages.ts';
import { createType } from '../../src/control/types.ts';
import { deleteVolume } from '../../src/control/volumes.ts';
import { CALLER, NEW_BACKUP, World, type WorldOptions } from './world.ts';

const HOUR = 3600 * 1000;
const START = Date.parse('2026-11-24T10:10:00Z');
const NOTHING = { last: 0, hourly: 0, daily: 0, weekly: 0, monthly: 0 };
const HOURLY: Omit<NewSchedule, 'volumeId' | 'type'> = {
  name: 'often',
  when: { every: 'hourly', minute: 30, hour: 0, weekday: 1, monthDay: 1 },
  fullEvery: 0,
  retention: NOTHING,
  isEnabled: true,
};
const LISTING = { projectId: null, filters: [], order: [], limit: 100, offset: 0, marker: null };

class Time {
  ms = START;
  readonly now = (): number => this.ms;
}

async function open(options: WorldOptions = {}): Promise<{ world: World; time: Time }> {
  const time = new Time();
  return { world: await World.open({ ...options, now: time.now }), time };
}

/** Until neither schedules nor tasks have anything to do. */
async function look({ control }: World): Promise<void> {
  control.schedules.wake();
  await control.schedules.idle();
  await control.tasks.idle();
  await control.schedules.idle();
  await control.tasks.idle();
}

async function later(world: World, time: Time, ms: number): Promise<void> {
  time.ms += ms;
  await look(world);
}

const scheduled = (world: World, wanted: Partial<NewSchedule>) =>
  createSchedule(world.control, CALLER, { ...HOURLY, volumeId: null, type: null, ...wanted });

const made = async (world: World, scheduleId: string, volumeId: string | null = null): Promise<BackupRow[]> =>
  backupsOfSchedule(world.control.catalog.reader, { scheduleId, volumeId });

const at = (row: BackupRow): string => new Date(row.data_timestamp / 1000).toISOString().slice(11, 16);

test('a schedule makes a full backup when it is due, and incremental ones after it', async () => {
  const { world, time } = await open();
  await using _ = world;
  const volumeId = await world.volume({ name: 'disk' });
  world.backend.write(volumeId, 0);
  const { id, next_at } = await scheduled(world, { volumeId });
  expect(new Date(next_at / 1000).toISOString()).toBe('2026-11-24T10:30:00.000Z');
  await later(world, time, 19 * 60_000);
  expect(await made(world, id)).toEqual([]);
  await later(world, time, 60_000);
  await look(world);
  await later(world, time, HOUR);
  const rows = await made(world, id);
  expect(rows.map((row) => [row.status, row.parent_id !== null, at(row)])).toEqual([
    ['available', true, '11:30'],
    ['available', false, '10:30'],
  ]);
  expect(rows[0]).toMatchObject({
    project_id: CALLER.projectId,
    user_id: CALLER.userId,
    name: 'often-20261124T113000Z',
  });
  const row = await getSchedule(world.control, CALLER, id);
  expect(row).toMatchObject({ last_failure: null, next_at: (START + 2 * HOUR + 20 * 60_000) * 1000 });
});

test('every so many backups is a full one', async () => {
  const { world, time } = await open();
  await using _ = world;
  const volumeId = await world.volume();
  const { id } = await scheduled(world, { volumeId, fullEvery: 3 });
  for (let hour = 0; hour < 7; hour += 1) await later(world, time, HOUR);
  const kinds = (await made(world, id)).reverse().map((row) => (row.parent_id === null ? 'full' : 'incremental'));
  expect(kinds).toEqual(['full', 'incremental', 'incremental', 'full', 'incremental', 'incremental', 'full']);
});

test('of what a stopped daemon missed one run is made up for', async () => {
  const { world, time } = await open();
  await using _ = world;
  const volumeId = await world.volume();
  const { id } = await scheduled(world, { volumeId });
  await world.stop();
  time.ms += 50 * HOUR;
  await world.start({ now: time.now });
  await look(world);
  await look(world);
  expect(await made(world, id)).toHaveLength(1);
  await later(world, time, HOUR);
  expect(await made(world, id)).toHaveLength(2);
});

test('a crash between the beginning of a backup and the end of the run begins no second one', async () => {
  const { world, time } = await open();
  await using _ = world;
  const volumeId = await world.volume();
  const { id, next_at } = await scheduled(world, { volumeId });
  time.ms += HOUR;
  world.control.schedules.wake();
  await world.control.schedules.idle();
  expect(await made(world, id)).toHaveLength(1);
  await world.crash();
  // As it stands in the catalog after a crash that came before the run's end was written.
  await world.start({ now: time.now, isStarted: false });
  const { catalog } = world.control;
  await catalog.write((writer) =>
    writer.updateTable('backup_schedules').set({ next_at }).where('id', '=', id).execute(),
  );
  await world.control.start();
  await look(world);
  expect((await made(world, id)).map(({ status }) => status)).toEqual(['available']);
  expect((await findSchedule(catalog.reader, id))?.next_at).toBeGreaterThan(next_at);
});

test('all volumes of a type are backed up, a few at a time, each once', async () => {
  const { world, time } = await open();
  await using _ = world;
  await createType(world.control, CALLER, { name: 'gold', description: null, isPublic: true, extraSpecs: {} });
  const gold: string[] = [];
  for (let index = 0; index < 9; index += 1) gold.push(await world.volume({ type: 'gold' }));
  const other = await world.volume();
  const { id } = await scheduled(world, { type: 'gold' });
  time.ms += HOUR;
  world.control.schedules.wake();
  await world.control.schedules.idle();
  expect((await made(world, id)).length).toBeLessThanOrEqual(4);
  for (let round = 0; round < 6; round += 1) await look(world);
  const rows = await made(world, id);
  expect(rows.map((row) => row.volume_id).sort()).toEqual([...gold].sort());
  expect(rows.every(({ status }) => status === 'available')).toBe(true);
  expect(await made(world, id, other)).toEqual([]);
  expect((await getSchedule(world.control, CALLER, id)).last_failure).toBeNull();
});

test('what retention lets go is deleted, and nothing that somebody else made', async () => {
  const { world, time } = await open();
  await using _ = world;
  const volumeId = await world.volume();
  const own = await world.backup(volumeId);
  const { id } = await scheduled(world, { volumeId, retention: { ...NOTHING, last: 2, daily: 2 } });
  for (let hour = 0; hour < 40; hour += 1) await later(world, time, HOUR);
  const left = (await made(world, id)).map((row) => new Date(row.data_timestamp / 1000).toISOString().slice(5, 16));
  expect(left).toEqual(['11-26T02:10', '11-26T01:10', '11-25T23:10']);
  expect((await findBackup(world.control.catalog.reader, own))?.status).toBe('available');
});

test('the last good backup stays while newer ones fail, and the failed ones go when one is good again', async () => {
  let isBroken = false;
  const { world, time } = await open({
    aroundData: async () => {
      if (isBroken) throw new Error('the disk is gone');
    },
  });
  await using _ = world;
  const volumeId = await world.volume();
  world.backend.write(volumeId, 0);
  const { id } = await scheduled(world, { volumeId, fullEvery: 1, retention: { ...NOTHING, last: 1 } });
  await later(world, time, HOUR);
  const [good] = await made(world, id);
  isBroken = true;
  for (let hour = 0; hour < 3; hour += 1) await later(world, time, HOUR);
  expect((await made(world, id)).map(({ status }) => status)).toEqual(['error', 'error', 'error', 'available']);
  expect((await made(world, id)).at(-1)?.id).toBe(good?.id);
  isBroken = false;
  await later(world, time, HOUR);
  expect((await made(world, id)).map(({ status }) => status)).toEqual(['available']);
});

test('a backup that was found damaged counts as no good one', async () => {
  const { world, time } = await open();
  await using _ = world;
  const volumeId = await world.volume();
  const { id } = await scheduled(world, { volumeId });
  await later(world, time, HOUR);
  await later(world, time, HOUR);
  const [newest, older] = await made(world, id);
  const verified = JSON.stringify({ outcome: 'damaged' });
  await world.control.catalog.write((writer) => updateBackup(writer, newest?.id ?? '', { verified }));
  await changeSchedule(world.control, CALLER, { id, update: { retention: { last: 1 } } });
  await look(world);
  expect((await made(world, id)).map((row) => row.id)).toEqual([newest?.id, older?.id]);
  await later(world, time, HOUR);
  expect((await made(world, id)).map(at)).toEqual(['13:10']);
});

test('a volume that is busy is tried again for a while, and then there is a message', async () => {
  const { world, time } = await open();
  await using _ = world;
  const volumeId = await world.volume();
  const { id, next_at } = await scheduled(world, { volumeId });
  const become = (status: string) =>
    world.control.catalog.write((writer) =>
      writer.updateTable('volumes').set({ status }).where('id', '=', volumeId).execute(),
    );
  await become('maintenance');
  await later(world, time, 20 * 60_000);
  await later(world, time, 60_000);
  expect((await getSchedule(world.control, CALLER, id)).next_at).toBe(next_at);
  await become('available');
  await later(world, time, 60_000);
  expect(await made(world, id)).toHaveLength(1);
  await become('maintenance');
  await later(world, time, HOUR);
  await later(world, time, 16 * 60_000);
  const row = await getSchedule(world.control, CALLER, id);
  expect(row.next_at).toBeGreaterThan(next_at + HOUR);
  expect(row.last_failure).toContain(volumeId);
  const messages = await listMessages(world.control, CALLER, LISTING);
  expect(messages).toHaveLength(1);
  expect(messages[0]).toMatchObject({ event_id: 'VOLUME_VOLUME_013_027', resource_uuid: volumeId });
});

test('a quota that is used up is told once and not tried again before the next time', async () => {
  const { world, time } = await open({ quotaDefaults: { backups: 1 } });
  await using _ = world;
  const volumeId = await world.volume();
  const { id } = await scheduled(world, { volumeId });
  await later(world, time, HOUR);
  await later(world, time, HOUR);
  await later(world, time, 60_000);
  expect(await made(world, id)).toHaveLength(1);
  const messages = await listMessages(world.control, CALLER, LISTING);
  expect(messages.map((message) => message.event_id)).toEqual(['VOLUME_VOLUME_013_006']);
  expect((await getSchedule(world.control, CALLER, id)).last_failure).toContain('BackupLimitExceeded');
});

test('a schedule whose volume is gone is switched off, and says why', async () => {
  const { world, time } = await open();
  await using _ = world;
  const volumeId = await world.volume();
  const { id } = await scheduled(world, { volumeId, retention: { ...NOTHING, last: 1 } });
  await later(world, time, HOUR);
  await deleteVolume(world.control, CALLER, { id: volumeId, cascade: false, force: false });
  await world.control.tasks.idle();
  await later(world, time, HOUR);
  const row = await getSchedule(world.control, CALLER, id);
  expect(row).toMatchObject({ is_enabled: 0, last_failure: expect.stringContaining(volumeId) });
  expect(await made(world, id)).toHaveLength(1);
});

test('one that is switched off makes and deletes nothing, and switched on again counts from then', async () => {
  const { world, time } = await open();
  await using _ = world;
  const volumeId = await world.volume();
  const { id } = await scheduled(world, { volumeId, retention: { ...NOTHING, last: 1 } });
  await later(world, time, HOUR);
  await changeSchedule(world.control, CALLER, { id, update: { isEnabled: false } });
  await later(world, time, 5 * HOUR);
  await changeSchedule(world.control, CALLER, { id, update: { isEnabled: true } });
  await look(world);
  expect((await made(world, id)).map(at)).toEqual(['11:10']);
  await later(world, time, HOUR);
  expect((await made(world, id)).map(at)).toEqual(['17:10']);
});

test('backups of a deleted schedule stay, and belong to nobody', async () => {
  const { world, time } = await open();
  await using _ = world;
  const volumeId = await world.volume();
  const { id } = await scheduled(world, { volumeId, retention: { ...NOTHING, last: 1 } });
  await later(world, time, HOUR);
  const [backup] = await made(world, id);
  await deleteSchedule(world.control, CALLER, id);
  await later(world, time, 2 * HOUR);
  expect(await findBackup(world.control.catalog.reader, backup?.id ?? '')).toMatchObject({
    status: 'available',
    schedule_id: null,
  });
  await deleteBackup(world.control, CALLER, { id: backup?.id ?? '', force: false });
  await world.control.tasks.idle();
});

test('refuses what it cannot do: no volume, both, another project, and more than a project may have', async () => {
  const { world } = await open();
  await using _ = world;
  const volumeId = await world.volume();
  const refusal = async (wanted: Partial<NewSchedule>, caller = CALLER as Parameters<typeof createSchedule>[1]) =>
    createSchedule(world.control, caller, { ...HOURLY, volumeId: null, type: null, ...wanted }).catch(
      (error: { code: string }) => error.code,
    );
  expect(await refusal({})).toBe('bad_request');
  expect(await refusal({ volumeId, type: '__DEFAULT__' })).toBe('bad_request');
  expect(await refusal({ volumeId }, { ...CALLER, projectId: 'p2' })).toBe('bad_request');
  const stranger = { ...CALLER, projectId: 'p2', role: 'member', isAdmin: false } as const;
  expect(await refusal({ volumeId }, stranger)).toBe('not_found');
  expect(await refusal({ volumeId }, { ...CALLER, role: 'reader', isAdmin: false })).toBe('forbidden');
  expect(await refusal({ type: 'nothing' })).toBe('not_found');
  for (let count = 0; count < SCHEDULES_PER_PROJECT_MAX; count += 1) await scheduled(world, { volumeId });
  expect(await refusal({ volumeId })).toBe('over_quota');
});

test('somebody else’s backup of the volume is a base as good as an own one', async () => {
  const { world, time } = await open();
  await using _ = world;
  const volumeId = await world.volume();
  await createBackup(world.control, CALLER, { ...NEW_BACKUP, volumeId });
  await world.control.tasks.idle();
  const { id } = await scheduled(world, { volumeId });
  await later(world, time, HOUR);
  expect((await made(world, id))[0]?.parent_id).not.toBeNull();
});

/**
 * A machine started with a clock that was months ahead; then the clock was right. What ran under the wrong time had put the
 * next time, and the newest backup, into the future: the schedule looked alive and made nothing until then.
 */
test('a clock that was ahead and is right again stops no schedule', async () => {
  const { world, time } = await open();
  await using _ = world;
  const volumeId = await world.volume();
  const { id } = await scheduled(world, { volumeId });
  const [rightMs, aheadMs] = [time.ms, 90 * 24 * HOUR];
  await later(world, time, aheadMs);
  expect(await made(world, id)).toHaveLength(1);
  await world.stop();
  time.ms = rightMs;
  await world.start({ now: time.now });
  await look(world);
  await later(world, time, HOUR);
  await later(world, time, HOUR);
  expect((await made(world, id)).map(at).slice(1)).toEqual(['12:10', '11:10']);
});

test('a volume that was long in the queue, and busy when its turn came, is tried again as well', async () => {
  const { world, time } = await open();
  await using _ = world;
  const others = await Promise.all([1, 2, 3, 4].map(() => world.volume()));
  const volumeId = await world.volume();
  const { id, next_at } = await scheduled(world, { volumeId });
  const set = (table: 'backups' | 'volumes', ids: readonly string[], status: string) =>
    world.control.catalog.write((writer) => writer.updateTable(table).set({ status }).where('id', 'in', ids).execute());
  const backups: string[] = [];
  for (const other of others) backups.push(await world.backup(other));
  await set('backups', backups, 'creating');
  await later(world, time, 20 * 60_000);
  await later(world, time, 30 * 60_000);
  await set('volumes', [volumeId], 'maintenance');
  await set('backups', backups, 'available');
  await later(world, time, 60_000);
  expect(await listMessages(world.control, CALLER, LISTING)).toEqual([]);
  expect((await getSchedule(world.control, CALLER, id)).next_at).toBe(next_at);
  await set('volumes', [volumeId], 'available');
  await later(world, time, 60_000);
  expect(await made(world, id)).toHaveLength(1);
});
