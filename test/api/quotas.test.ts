import { describe, expect, test } from 'vitest';
import { quotaOf } from '../../src/daemon/config.ts';
import { Api } from './api.ts';

const PROJECT = '00000000000000000000000000000001';

async function use(api: Api): Promise<Record<string, { limit: number; in_use: number; reserved: number }>> {
  const { body } = await api.ask('GET', `/v3/os-quota-sets/${PROJECT}?usage=true`);
  return body.quota_set;
}

describe('quota sets', () => {
  test('have no limits at first, and count what there is', async () => {
    await using api = await Api.open();
    const { body } = await api.ask('GET', `/v3/os-quota-sets/${PROJECT}`);
    expect(body.quota_set).toMatchObject({ id: PROJECT, volumes: -1, gigabytes: -1, volumes___DEFAULT__: -1 });
    const volume = await api.createVolume({ size: 3 });
    await api.createSnapshot(volume);
    expect(await use(api)).toMatchObject({
      volumes: { limit: -1, in_use: 1, reserved: 0 },
      snapshots: { limit: -1, in_use: 1, reserved: 0 },
      gigabytes: { limit: -1, in_use: 6, reserved: 0 },
      gigabytes___DEFAULT__: { limit: -1, in_use: 6, reserved: 0 },
      per_volume_gigabytes: { limit: -1, in_use: 0, reserved: 0 },
    });
    const { limits } = (await api.ask('GET', '/v3/limits')).body;
    expect(limits.absolute).toMatchObject({ totalVolumesUsed: 1, totalGigabytesUsed: 6, maxTotalVolumes: -1 });
    expect(Object.keys(limits.absolute)).toHaveLength(10);
  });

  test('are changed, refused where they make no sense, and reset', async () => {
    await using api = await Api.open();
    const path = `/v3/os-quota-sets/${PROJECT}`;
    const put = (quota_set: object) => api.ask('PUT', path, { body: { quota_set } });
    await api.createVolume({ size: 2 });
    await api.createVolume({ size: 2 });
    const changed = await put({ volumes: '5', gigabytes: 10, tenant_id: PROJECT });
    expect([changed.status, changed.body.quota_set.volumes, changed.body.quota_set.id]).toEqual([200, 5, undefined]);
    for (const [wrong, message] of [
      [{ volumes: 1 }, 'Current usage is 2 and the requested limit is 1.'],
      [{ boats: 1 }, 'Bad key(s) in quota set: boats'],
      [{ volumes: -2 }, '-2 is less than the minimum of -1'],
      [{ volumes: 'many' }, 'volumes. Value: "many"'],
      [{}, 'does not have enough properties'],
    ] as const) {
      const reply = await put(wrong);
      expect(reply.status).toBe(400);
      expect(reply.body.badRequest.message).toContain(message);
    }
    expect((await api.ask('GET', `${path}?usage=maybe`)).status).toBe(400);
    expect((await api.ask('DELETE', path)).status).toBe(200);
    expect((await api.ask('GET', path)).body.quota_set.volumes).toBe(-1);
  });

  test('have defaults that the class `default` changes', async () => {
    await using api = await Api.open({ quotaDefaults: { volumes: 10 } });
    const path = '/v3/os-quota-class-sets/default';
    expect((await api.ask('GET', path)).body.quota_class_set).toMatchObject({ id: 'default', volumes: 10 });
    const put = await api.ask('PUT', path, { body: { quota_class_set: { volumes: 7 } } });
    expect(put.body.quota_class_set.volumes).toBe(7);
    expect((await api.ask('GET', '/v3/os-quota-sets/other/defaults')).body.quota_set).toMatchObject({
      id: 'other',
      volumes: 7,
    });
  });
});

describe('over quota', () => {
  test('is 413 with the words that clients look for, and nothing is left behind', async () => {
    await using api = await Api.open({
      quotaDefaults: { volumes: 2, snapshots: 1, gigabytes: 6, per_volume_gigabytes: 4 },
    });
    const post = (path: string, body: object) => api.ask('POST', path, { body });
    const tooLarge = await post('/v3/volumes', { volume: { size: 5 } });
    expect(tooLarge.body.overLimit.message).toBe(
      'VolumeSizeExceedsLimit: Requested volume size 5G is larger than maximum allowed limit 4G.',
    );
    const id = await api.createVolume({ size: 3 });
    const tooMuch = await post('/v3/volumes', { volume: { size: 4 } });
    expect(tooMuch.status).toBe(413);
    expect(tooMuch.headers['retry-after']).toBe('0');
    expect(tooMuch.body.overLimit).toEqual({
      code: 413,
      retryAfter: '0',
      message:
        'VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed gigabytes quota. ' +
        'Requested 4G, quota is 6G and 3G has been consumed.',
    });
    await api.createVolume({ size: 1 });
    const tooMany = await post('/v3/volumes', { volume: { size: 1 } });
    expect(tooMany.body.overLimit.message).toBe(
      "VolumeLimitExceeded: Maximum number of volumes allowed (2) exceeded for quota 'volumes'.",
    );
    expect((await post('/v3/snapshots', { snapshot: { volume_id: id } })).status).toBe(413);
    expect((await api.act(id, { 'os-extend': { new_size: 4 } })).status).toBe(202);
    expect((await api.act(id, { 'os-extend': { new_size: 5 } })).status).toBe(413);
    expect(await api.status(id)).toBe('available');
    expect((await use(api))['volumes']).toEqual({ limit: 2, in_use: 2, reserved: 0 });
    expect(api.world.backend.ids()).toHaveLength(2);
  });

  test('holds against requests that come together', async () => {
    await using api = await Api.open({ quotaDefaults: { volumes: 5 } });
    const body = { volume: { size: 1 } };
    const replies = await Promise.all(Array.from({ length: 20 }, () => api.ask('POST', '/v3/volumes', { body })));
    const accepted = replies.filter(({ status }) => status === 202);
    expect(accepted).toHaveLength(5);
    await api.settle();
    expect((await use(api))['volumes']?.in_use).toBe(5);
  });

  test('ends when something is deleted', async () => {
    await using api = await Api.open({ quotaDefaults: { volumes: 1 } });
    const id = await api.createVolume();
    const body = { volume: { size: 1 } };
    expect((await api.ask('POST', '/v3/volumes', { body })).status).toBe(413);
    await api.ask('DELETE', `/v3/volumes/${id}`);
    await api.settle();
    expect((await api.ask('POST', '/v3/volumes', { body })).status).toBe(202);
    await api.settle();
  });

  test('an extension under way is charged', async () => {
    await using api = await Api.open({ quotaDefaults: { gigabytes: 5 } });
    const id = await api.createVolume({ size: 1 });
    const [extended, seen] = await Promise.all([
      api.ask('POST', `/v3/volumes/${id}/action`, { body: { 'os-extend': { new_size: 5 } } }),
      api.ask('POST', '/v3/volumes', { body: { volume: { size: 1 } } }),
    ]);
    expect([extended.status, seen.status]).toEqual([202, 413]);
    await api.settle();
  });
});

describe('limits of a volume type', () => {
  const path = `/v3/os-quota-sets/${PROJECT}`;
  const keys = async (api: Api) => Object.keys((await api.ask('GET', path)).body.quota_set);

  test('appear with it, follow its name and vanish with it', async () => {
    await using api = await Api.open();
    const made = await api.ask('POST', '/v3/types', { body: { volume_type: { name: 'gold' } } });
    const type = `/v3/types/${made.body.volume_type.id}`;
    expect(await keys(api)).toEqual(expect.arrayContaining(['volumes_gold', 'gigabytes_gold', 'snapshots_gold']));
    await api.ask('PUT', path, { body: { quota_set: { volumes_gold: 1 } } });
    await api.ask('PUT', '/v3/os-quota-class-sets/default', { body: { quota_class_set: { gigabytes_gold: 5 } } });
    await api.ask('PUT', type, { body: { volume_type: { name: 'silver' } } });
    const renamed = (await api.ask('GET', path)).body.quota_set;
    expect(renamed).toMatchObject({ volumes_silver: 1, gigabytes_silver: 5, snapshots_silver: -1 });
    expect(renamed).not.toHaveProperty('volumes_gold');
    await api.createVolume({ volume_type: 'silver' });
    const second = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1, volume_type: 'silver' } } });
    expect(second.body.overLimit.message).toContain("exceeded for quota 'volumes_silver'");
    const other = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1 } } });
    expect(other.status).toBe(202);
    await api.settle();
    for (const { id } of (await api.ask('GET', '/v3/volumes')).body.volumes)
      await api.ask('DELETE', `/v3/volumes/${id}`);
    await api.settle();
    expect((await api.ask('DELETE', type)).status).toBe(202);
    expect((await keys(api)).some((key) => key.endsWith('_silver'))).toBe(false);
    await api.ask('POST', '/v3/types', { body: { volume_type: { name: 'silver' } } });
    expect((await api.ask('GET', path)).body.quota_set.volumes_silver).toBe(-1);
    const bad = await api.ask('PUT', path, { body: { quota_set: { volumes_gold: 1 } } });
    expect(bad.body.badRequest.message).toContain('Bad key(s) in quota set: volumes_gold');
  });
});

test('limits of another project are shown from 3.39', async () => {
  await using api = await Api.open({ quotaDefaults: { volumes: 10 } });
  await api.ask('PUT', '/v3/os-quota-sets/other', { body: { quota_set: { volumes: 3 } } });
  const volumes = async (minor: number) =>
    (await api.ask('GET', '/v3/limits?project_id=other', { minor })).body.limits.absolute.maxTotalVolumes;
  expect([await volumes(38), await volumes(39)]).toEqual([10, 3]);
});

test('without authentication nothing is limited; otherwise the usual limits hold where none is configured', () => {
  expect(quotaOf({}, 'none')).toMatchObject({ volumes: -1, gigabytes: -1, groups: -1 });
  expect(quotaOf({ volumes: 3 }, 'keystone')).toEqual({
    volumes: 3,
    snapshots: 10,
    gigabytes: 1000,
    backups: 10,
    backup_gigabytes: 1000,
    per_volume_gigabytes: -1,
    groups: 10,
  });
});
