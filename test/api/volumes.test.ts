import { describe, expect, test } from 'vitest';
import { Api } from './api.ts';

const UNKNOWN = 'aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee';

describe('creating a volume', () => {
  test('answers 202 with the status creating, and the volume becomes available', async () => {
    await using api = await Api.open();
    const { status, body } = await api.ask('POST', '/v3/volumes', {
      body: { volume: { size: 2, name: ' data ', metadata: { a: 'b' }, snapshot_id: null, imageRef: null } },
    });
    expect(status).toBe(202);
    expect(body.volume).toMatchObject({
      status: 'creating',
      size: 2,
      name: 'data',
      volume_type: '__DEFAULT__',
      availability_zone: 'nova',
      bootable: 'false',
      metadata: { a: 'b' },
      attachments: [],
      updated_at: null,
    });
    expect(body.volume).not.toHaveProperty('os-vol-host-attr:host');
    await api.settle();
    const shown = await api.ask('GET', `/v3/volumes/${body.volume.id}`);
    expect(shown.body.volume).toMatchObject({ status: 'available', 'os-vol-host-attr:host': 'here@pool#pool' });
    expect(shown.body.volume.created_at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$/);
    expect(api.world.backend.ids()).toEqual([body.volume.id]);
  });

  test.each([
    [{ size: 0 }, 'size. Value: 0. 0 is less than the minimum of 1'],
    [{ size: -1 }, 'size. Value: -1. -1 is less than the minimum of 1'],
    [{ size: '0' }, 'size. Value: 0. 0 is less than the minimum of 1'],
    [{ size: 'big' }, 'size. Value: "big".'],
    [{ size: '' }, 'size. Value: "".'],
    [{ size: 1.5 }, "size. Value: 1.5. 1.5 is not of type 'integer', 'string', 'null'"],
    [{ size: 65537 }, 'size. Value: 65537. 65537 is greater than the maximum of 65536'],
    [{ size: '65537' }, '65537 is greater than the maximum of 65536'],
    [{}, 'volume size'],
    [{ size: 1, name: 'x'.repeat(256) }, 'name. Value: "xxx'],
    [{ size: 1, name: 'a\nb' }, 'name. Value: "a\\nb".'],
    [{ size: 1, metadata: { a: 1 } }, 'a. Value: 1. 1 is not of type'],
    [{ size: 1, metadata: { 'a?': 'b' } }, "the key 'a?' does not match"],
    [{ size: 1, snapshot_id: 'no-uuid' }, 'snapshot_id. Value: "no-uuid".'],
    [{ size: 1, availability_zone: 'mars' }, "Availability zone 'mars' is invalid."],
    [{ size: 1, multiattach: true }, 'multiattach'],
    [{ size: 1, imageRef: 'x' }, 'Invalid image identifier'],
    [{ size: 1, snapshot_id: UNKNOWN, source_volid: UNKNOWN }, 'Only one of'],
  ])('refuses %j, naming field and value', async (volume, message) => {
    await using api = await Api.open();
    const { status, body } = await api.ask('POST', '/v3/volumes', { body: { volume } });
    expect(status).toBe(400);
    expect(body.badRequest.code).toBe(400);
    expect(body.badRequest.message).toContain(message);
  });

  test('the largest and the smallest size are accepted, also as digits', async () => {
    await using api = await Api.open();
    for (const size of [1, 65536, '1', '65536']) {
      const id = await api.createVolume({ size });
      expect(await api.status(id)).toBe('available');
    }
  });

  test('unknown fields are ignored before 3.53 and refused from there', async () => {
    await using api = await Api.open();
    const body = { volume: { size: 1, shape: 'round' } };
    expect((await api.ask('POST', '/v3/volumes', { body, minor: 52 })).status).toBe(202);
    const refused = await api.ask('POST', '/v3/volumes', { body, minor: 53 });
    expect(refused.status).toBe(400);
    expect(refused.body.badRequest.message).toContain("'shape' was unexpected");
    const outer = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1 }, more: 1 } });
    expect(outer.status).toBe(400);
  });

  test('sources, types and backups that do not exist are 404', async () => {
    await using api = await Api.open();
    for (const fields of [{ snapshot_id: UNKNOWN }, { source_volid: UNKNOWN }, { volume_type: 'gold' }]) {
      const { status, body } = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1, ...fields } } });
      expect(status).toBe(404);
      expect(body.itemNotFound.message).toContain('could not be found');
    }
    const backup = { body: { volume: { size: 1, backup_id: UNKNOWN } }, minor: 47 };
    expect((await api.ask('POST', '/v3/volumes', backup)).status).toBe(404);
  });

  test('a copy takes its size and type from the source, may be larger and not smaller', async () => {
    await using api = await Api.open();
    const source = await api.createVolume({ size: 3 });
    const snapshot = await api.createSnapshot(source);
    for (const from of [{ source_volid: source }, { snapshot_id: snapshot }]) {
      const same = await api.createVolume({ size: null, ...from });
      const shown = await api.ask('GET', `/v3/volumes/${same}`);
      expect(shown.body.volume).toMatchObject({ size: 3, status: 'available', ...from });
      const larger = await api.createVolume({ size: 5, ...from });
      expect((await api.world.backend.usage([larger]))[0]?.sizeBytes).toBe(5 * 2 ** 30);
      const smaller = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 2, ...from } } });
      expect(smaller.status).toBe(400);
      expect(smaller.body.badRequest.message).toContain("Volume size '2'GB cannot be smaller than");
    }
  });
});

describe('deleting a volume', () => {
  test('answers 202, then it is gone from show and lists', async () => {
    await using api = await Api.open();
    const id = await api.createVolume();
    const { status, body, headers } = await api.ask('DELETE', `/v3/volumes/${id}`);
    expect([status, body, headers['content-length'], headers['content-type']]).toEqual([202, '', '0', undefined]);
    await api.settle();
    expect(await api.status(id)).toBe(404);
    expect((await api.ask('GET', '/v3/volumes')).body).toEqual({ volumes: [] });
    expect(api.world.backend.ids()).toEqual([]);
  });

  test('is refused while it has snapshots, unless they go with it', async () => {
    await using api = await Api.open();
    const id = await api.createVolume();
    const snapshot = await api.createSnapshot(id);
    const refused = await api.ask('DELETE', `/v3/volumes/${id}`);
    expect(refused.status).toBe(400);
    expect(refused.body.badRequest.message).toMatch(/^Invalid volume: /);
    expect((await api.ask('DELETE', `/v3/volumes/${id}?cascade=true`)).status).toBe(202);
    await api.settle();
    expect(await api.status(id)).toBe(404);
    expect((await api.ask('GET', `/v3/snapshots/${snapshot}`)).status).toBe(404);
    expect(api.world.backend.ids()).toEqual([]);
  });

  test('is refused while clients are connected', async () => {
    await using api = await Api.open();
    const id = await api.createVolume();
    api.world.backend.connect(id);
    for (const path of [`/v3/volumes/${id}`, `/v3/volumes/${id}?cascade=true`]) {
      const { status, body } = await api.ask('DELETE', path);
      expect(status).toBe(400);
      expect(body.badRequest.message).toContain('1 NBD client is connected');
    }
    api.world.backend.disconnect(id);
    expect((await api.ask('DELETE', `/v3/volumes/${id}`)).status).toBe(202);
  });

  test('of what does not exist is 404, whatever the id looks like', async () => {
    await using api = await Api.open();
    for (const id of [UNKNOWN, 'my-volume', '!@%23$%25%5E&*()', '%E2%82%AC', 'x'.repeat(300)])
      expect((await api.ask('DELETE', `/v3/volumes/${id}`)).status).toBe(404);
    expect((await api.ask('DELETE', '/v3/volumes/')).status).toBe(404);
    expect((await api.ask('GET', '/v3/volumes/%zz')).status).toBe(404);
  });
});

describe('updating a volume', () => {
  test('changes name, description and metadata', async () => {
    await using api = await Api.open();
    const id = await api.createVolume({ name: 'a', metadata: { x: '1' } });
    const volume = { name: 'b', description: 'text', metadata: { y: '2' } };
    const { status, body } = await api.ask('PUT', `/v3/volumes/${id}`, { body: { volume } });
    expect(status).toBe(200);
    expect(body.volume).toMatchObject(volume);
    expect(body.volume).not.toHaveProperty('os-vol-tenant-attr:tenant_id');
    expect(body.volume.updated_at).not.toBeNull();
    const nothing = { body: { volume: {} }, minor: 53 };
    expect((await api.ask('PUT', `/v3/volumes/${id}`, nothing)).status).toBe(400);
  });

  test('metadata is merged by POST, replaced by PUT, changed and removed key by key', async () => {
    await using api = await Api.open();
    const id = await api.createVolume({ metadata: { a: '1' } });
    const path = `/v3/volumes/${id}/metadata`;
    const set = (method: string, metadata: object) => api.ask(method, path, { body: { metadata } });
    expect((await set('POST', { b: '2' })).body).toEqual({ metadata: { a: '1', b: '2' } });
    expect((await set('PUT', { c: '3', __proto: 'x' })).body).toEqual({ metadata: { __proto: 'x', c: '3' } });
    expect((await api.ask('GET', `${path}/c`)).body).toEqual({ meta: { c: '3' } });
    expect((await api.ask('PUT', `${path}/c`, { body: { meta: { c: '4' } } })).body).toEqual({ meta: { c: '4' } });
    expect((await api.ask('PUT', `${path}/c`, { body: { meta: { d: '4' } } })).status).toBe(400);
    expect((await api.ask('DELETE', `${path}/c`)).status).toBe(200);
    expect((await api.ask('DELETE', `${path}/c`)).status).toBe(404);
    expect((await api.ask('GET', `${path}/c`)).status).toBe(404);
    expect((await set('POST', { '': 'x' })).status).toBe(400);
    expect((await set('POST', { k: 'x'.repeat(256) })).status).toBe(400);
    const raw = '{"metadata":{"__proto__":"kept"}}';
    expect((await api.ask('PUT', path, { body: raw })).status).toBe(200);
    expect(JSON.stringify((await api.ask('GET', path)).body)).toBe(raw);
  });
});

test('the summary counts and adds up', async () => {
  await using api = await Api.open();
  await api.createVolume({ size: 2, metadata: { k: 'a' } });
  await api.createVolume({ size: 3, metadata: { k: 'b' } });
  const { body } = await api.ask('GET', '/v3/volumes/summary', { minor: 36 });
  expect(body).toEqual({ 'volume-summary': { total_count: 2, total_size: 5, metadata: { k: ['a', 'b'] } } });
  expect((await api.ask('GET', '/v3/volumes/summary', { minor: 11 })).status).toBe(404);
});
