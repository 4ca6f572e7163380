/** A pool that may promise no more, and one that fills up, as users and administrators of the API see it. */
import { expect, test } from 'vitest';
import { SILENT_LOG } from '../../src/base/log.ts';
import { tellLevel } from '../../src/control/pool-level.ts';
import { Api } from './api.ts';

const GIB = 2 ** 30;

const lastMessage = async (api: Api) => (await api.ask('GET', '/v3/messages', { minor: 71 })).body.messages[0];

test('a volume for which there is no room any more goes to error, with the message that no backend was found', async () => {
  await using api = await Api.open();
  api.world.backend.provisionedBytesMax = 5 * GIB;
  await api.createVolume({ size: 3 });
  const id = await api.createVolume({ size: 3 });
  expect(await api.status(id)).toBe('error');
  expect(await lastMessage(api)).toMatchObject({
    resource_uuid: id,
    event_id: 'VOLUME_VOLUME_001_003',
    user_message: 'schedule allocate volume:Could not find any available weighted backend.',
  });
  // It takes no room, and what fits is made as before.
  expect(await api.status(await api.createVolume({ size: 2 }))).toBe('available');
  expect((await api.ask('DELETE', `/v3/volumes/${id}`)).status).toBe(202);
});

test('a volume that cannot grow for want of room is what it was, and may grow later', async () => {
  await using api = await Api.open();
  api.world.backend.provisionedBytesMax = 5 * GIB;
  const id = await api.createVolume({ size: 3 });
  expect((await api.act(id, { 'os-extend': { new_size: 6 } })).status).toBe(202);
  expect((await api.ask('GET', `/v3/volumes/${id}`)).body.volume).toMatchObject({ status: 'available', size: 3 });
  expect(await lastMessage(api)).toMatchObject({
    resource_uuid: id,
    user_message: 'extend volume:Could not find any available weighted backend.',
  });
  expect((await api.act(id, { 'os-extend': { new_size: 5 } })).status).toBe(202);
  expect((await api.ask('GET', `/v3/volumes/${id}`)).body.volume).toMatchObject({ status: 'available', size: 5 });
});

test('pools, status and metrics tell what is promised and how full the pool is', async () => {
  await using api = await Api.open();
  await api.createVolume({ size: 3 });
  api.world.backend.level = 'critical';
  const { body } = await api.ask('GET', '/v3/scheduler-stats/get_pools?detail=true');
  expect(body.pools[0].capabilities).toMatchObject({
    max_over_subscription_ratio: '20.0',
    reserved_percentage: 0,
    provisioned_capacity_gb: 3,
    allocated_capacity_gb: 3,
  });
  expect((await api.ask('GET', '/v3/quarry/status')).body.pool).toMatchObject({
    provisioned_bytes: 3 * GIB,
    max_over_subscription_ratio: 20,
    reserved_percentage: 0,
    level: 'critical',
  });
  const metrics = (await api.ask('GET', '/metrics')).body;
  for (const line of [
    'quarry_pool_level 2',
    `quarry_pool_provisioned_bytes ${3 * GIB}`,
    `quarry_pool_provisioned_max_bytes ${20 * 1024 * GIB}`,
  ])
    expect(metrics).toContain(line);
});

test('the log says how urgent it is', () => {
  const lines: unknown[] = [];
  const say = (severity: string) => (fields: object, text: string) => lines.push([severity, fields, text]);
  const log = { ...SILENT_LOG, info: say('info'), warn: say('warn'), error: say('error') } as never;
  for (const level of ['low', 'critical', 'full', 'ok'] as const)
    tellLevel(log, { kind: 'pool-level', level, freeBytes: 7 });
  expect(lines).toEqual([
    ['warn', { level: 'low', freeBytes: 7 }, expect.stringContaining('filling up')],
    ['error', { level: 'critical', freeBytes: 7 }, expect.stringContaining('nearly full')],
    ['error', { level: 'full', freeBytes: 7 }, expect.stringContaining('ENOSPC')],
    ['info', { level: 'ok', freeBytes: 7 }, expect.stringContaining('enough space again')],
  ]);
});
