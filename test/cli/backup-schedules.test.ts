/** `quarry backup schedule` on the real daemon, and that the daemon does what was scheduled. */
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { quarryFailing, quarryJson, quarryOn } from '../support/quarry.ts';

/** Looks at the command line's answer, each a process: no need for many. */
const WAIT = { interval: 200, timeout: 30_000 };

let daemon: Daemon;

beforeAll(async () => {
  daemon = await startDaemon();
});
afterAll(async () => {
  await daemon?.stop();
});

const schedule = (...args: string[]) => quarryOn(daemon, '-o', 'value', 'backup', 'schedule', ...args);

test('quarry backup schedule makes, lists, changes and deletes schedules, by id or name', async () => {
  await quarryOn(daemon, 'volume', 'create', 'web', '--size', '1');
  const keeps = ['--keep-daily', '7', '--keep-monthly', '12'];
  const times = ['--every', 'weekly', '--at', '02:30', '--on', 'friday'];
  await schedule('create', 'nightly', '--volume', 'web', ...times, ...keeps, '--full-every', '5');
  expect(await quarryJson(daemon, 'backup', 'schedule', 'show', 'nightly')).toMatchObject({
    when: { every: 'weekly', weekday: 5, hour: 2, minute: 30 },
    keep: { last: 0, hourly: 0, daily: 7, weekly: 0, monthly: 12 },
    ...{ full_every: 5, enabled: true },
  });
  const columns = ['-c', 'name', '-c', 'when', '-c', 'keep', '-c', 'enabled'];
  const line = (await schedule('list', ...columns)).trim();
  expect(line).toContain('weekly on friday at 02:30');
  expect(line).toContain('7 daily, 12 monthly');
  await schedule('set', 'nightly', '--every', 'monthly', '--on', '31', '--keep-daily', '0', '--disable');
  const changed = await quarryJson(daemon, 'backup', 'schedule', 'show', 'nightly');
  expect(changed).toMatchObject({
    when: { every: 'monthly', day: 31 },
    keep: { daily: 0, monthly: 12 },
    enabled: false,
  });
  await schedule('create', 'all', '--type', '__DEFAULT__', '--every', 'hourly', '--at', ':15');
  expect(await quarryJson(daemon, 'backup', 'schedule', 'show', 'all')).toMatchObject({
    when: { every: 'hourly', minute: 15 },
  });
  await schedule('delete', 'nightly', 'all');
  expect((await schedule('list')).trim()).toBe('');
});

test('quarry backup schedule says what is wrong, and which exit code it is', async () => {
  const failing = (...args: string[]) => quarryFailing(daemon, 'backup', 'schedule', ...args);
  expect(await failing('create', 'x', '--type', '__DEFAULT__')).toMatchObject({ code: 2 });
  expect(await failing('create', 'x', '--every', 'daily', '--at', 'noon')).toMatchObject({ code: 2 });
  expect(await failing('create', 'x', '--every', 'daily')).toMatchObject({ code: 2 });
  expect(await failing('create', 'x', '--every', 'daily', '--volume', 'nothing')).toMatchObject({ code: 3 });
  expect(await failing('set', 'nothing', '--enable')).toMatchObject({ code: 3 });
  expect(await failing('show', 'nothing')).toMatchObject({ code: 3 });
});

test('a daemon makes up for a run that was due while it was stopped', async () => {
  await using own = await startDaemon();
  await quarryOn(own, 'volume', 'create', 'web', '--size', '1');
  await quarryOn(own, 'backup', 'schedule', 'create', 'nightly', '--volume', 'web', '--every', 'daily');
  await own.kill('SIGTERM');
  // The night passes.
  const catalog = new Database(join(own.dataDir, 'catalog.db'));
  catalog.prepare('update backup_schedules set next_at = next_at - ?').run(48 * 3600 * 1e6);
  catalog.close();
  await own.start();
  const backups = await vi.waitUntil(async () => {
    const listed = (await quarryJson(own, 'backup', 'list')) as { name: string; status: string }[];
    return listed.some(({ status }) => status === 'available') && listed;
  }, WAIT);
  expect(backups).toHaveLength(1);
  expect(backups[0]?.name).toMatch(/^nightly-\d{8}T\d{6}Z$/);
});
