/** Schedules of backups as the API shows and takes them. */
import { expect, test } from 'vitest';
import { Api } from './api.ts';

const PATH = '/v3/quarry/backup-schedules';

const daily = (fields: Record<string, unknown>) => ({
  body: { schedule: { name: 'nightly', when: { every: 'daily', hour: 2, minute: 5 }, ...fields } },
});

test('a schedule is made, shown, listed, changed and deleted', async () => {
  await using api = await Api.open({ now: () => Date.parse('2026-11-24T10:00:00Z') });
  const volumeId = await api.createVolume();
  const made = await api.ask('POST', PATH, daily({ volume_id: volumeId, keep: { last: 3, monthly: 2 } }));
  expect(made.status, JSON.stringify(made.body)).toBe(201);
  const { schedule } = made.body;
  expect(schedule).toMatchObject({
    ...{ name: 'nightly', volume_id: volumeId, volume_type_id: null, enabled: true, full_every: 0 },
    when: { every: 'daily', hour: 2, minute: 5 },
    keep: { last: 3, hourly: 0, daily: 0, weekly: 0, monthly: 2 },
    ...{ next_at: '2026-11-25T02:05:00.000000', last_at: null, last_failure: null },
  });
  const url = `${PATH}/${schedule.id}`;
  expect((await api.ask('GET', url)).body.schedule).toEqual(schedule);
  expect((await api.ask('GET', `${PATH}?name=nightly`)).body.schedules).toEqual([schedule]);
  expect((await api.ask('GET', `${PATH}?name=other`)).body.schedules).toEqual([]);
  const change = { schedule: { when: { every: 'weekly', weekday: 5 }, keep: { last: 0 }, full_every: 7 } };
  const changed = await api.ask('PUT', url, { body: change });
  expect(changed.body.schedule).toMatchObject({
    when: { every: 'weekly', weekday: 5, hour: 2, minute: 5 },
    keep: { last: 0, monthly: 2 },
    ...{ full_every: 7, next_at: '2026-11-27T02:05:00.000000' },
  });
  const off = await api.ask('PUT', url, { body: { schedule: { enabled: false } } });
  expect(off.body.schedule).toMatchObject({ enabled: false, next_at: null });
  expect((await api.ask('DELETE', url)).status).toBe(204);
  expect((await api.ask('GET', url)).status).toBe(404);
});

test('a schedule of a type takes the type by its name, and other projects see neither', async () => {
  await using api = await Api.open();
  const made = await api.ask('POST', PATH, daily({ volume_type: '__DEFAULT__' }));
  expect(made.body.schedule).toMatchObject({ volume_id: null, volume_type_id: expect.any(String) });
  expect((await api.ask('GET', `/v3/p2/quarry/backup-schedules`)).body.schedules).toEqual([]);
  expect((await api.ask('GET', `/v3/p2/quarry/backup-schedules?all_tenants=1`)).body.schedules).toHaveLength(1);
});

test.each([
  ['nothing to back up', {}],
  ['a volume and a type', { volume_id: 'VOLUME', volume_type: '__DEFAULT__' }],
  ['no such frequency', { volume_id: 'VOLUME', when: { every: 'yearly' } }],
  ['an hour that no day has', { volume_id: 'VOLUME', when: { every: 'daily', hour: 24 } }],
  ['a weekday of a daily one', { volume_id: 'VOLUME', when: { every: 'daily', weekday: 1 } }],
  ['an hour of an hourly one', { volume_id: 'VOLUME', when: { every: 'hourly', hour: 1 } }],
  ['a day of a weekly one', { volume_id: 'VOLUME', when: { every: 'weekly', day: 1 } }],
  ['less than nothing kept', { volume_id: 'VOLUME', keep: { last: -1 } }],
  ['a word that is not there', { volume_id: 'VOLUME', keep: { yearly: 1 } }],
  ['an empty name', { volume_id: 'VOLUME', name: '' }],
])('refuses %s and makes nothing', async (_, fields) => {
  await using api = await Api.open();
  const volumeId = await api.createVolume();
  const given = JSON.parse(JSON.stringify(fields).replace('VOLUME', volumeId));
  const { status, body } = await api.ask('POST', PATH, daily(given));
  expect(status, JSON.stringify(body)).toBe(400);
  expect((await api.ask('GET', PATH)).body.schedules).toEqual([]);
});

test('without a place for backups there are no schedules', async () => {
  await using api = await Api.open({ hasNoBackups: true });
  const volumeId = await api.createVolume();
  expect((await api.ask('POST', PATH, daily({ volume_id: volumeId }))).status).toBe(503);
});
