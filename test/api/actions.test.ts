import { describe, expect, test } from 'vitest';
import { Api } from './api.ts';

const UNKNOWN = 'aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee';

test.each([
  ['nothing', {}],
  ['two actions', { 'os-reserve': {}, 'os-unreserve': {} }],
  ['a list', []],
  ['an unknown one', { 'os-dance': {} }],
])('%s in an action body is 400', async (_what, body) => {
  await using api = await Api.open();
  const id = await api.createVolume();
  const reply = await api.act(id, body as Record<string, unknown>);
  expect(reply.status).toBe(400);
  if (JSON.stringify(body).includes('dance'))
    expect(reply.body.badRequest.message).toMatch(/^There is no such action: os-dance\./);
});

test('actions on a volume that does not exist are 404', async () => {
  await using api = await Api.open();
  for (const body of [{ 'os-extend': { new_size: 2 } }, { 'os-reserve': {} }, { 'os-force_delete': {} }])
    expect((await api.act(UNKNOWN, body)).status).toBe(404);
});

describe('os-extend', () => {
  test('grows a volume, and the new size is seen at the end', async () => {
    await using api = await Api.open();
    const id = await api.createVolume({ size: 1 });
    const reply = await api.act(id, { 'os-extend': { new_size: 3 } });
    expect([reply.status, reply.body]).toEqual([202, '']);
    const { body } = await api.ask('GET', `/v3/volumes/${id}`);
    expect(body.volume).toMatchObject({ size: 3, status: 'available' });
    expect((await api.world.backend.usage([id]))[0]?.sizeBytes).toBe(3 * 2 ** 30);
  });

  test.each([0, 1, -1, 'x', '', null, 65537, 1.5])('to %j is 400', async (size) => {
    await using api = await Api.open();
    const id = await api.createVolume({ size: 1 });
    expect((await api.act(id, { 'os-extend': { new_size: size } })).status).toBe(400);
    expect(await api.status(id)).toBe('available');
  });

  test('of a volume in use needs 3.42', async () => {
    await using api = await Api.open();
    const id = await api.createVolume();
    await api.act(id, { 'os-attach': { host_name: 'h', mountpoint: '/dev/vdb' } });
    const old = await api.act(id, { 'os-extend': { new_size: 2 } }, 41);
    expect(old.status).toBe(400);
    expect(old.body.badRequest.message).toContain('status must be available, but current status is: in-use');
    expect((await api.act(id, { 'os-extend': { new_size: 2 } }, 42)).status).toBe(202);
    expect(await api.status(id)).toBe('in-use');
  });

  test('that the backend refuses leads to error_extending', async () => {
    await using api = await Api.open();
    const id = await api.createVolume({ size: 1 });
    await api.world.backend.resizeVolume({ id, sizeBytes: 9 * 2 ** 30 });
    expect((await api.act(id, { 'os-extend': { new_size: 2 } })).status).toBe(202);
    expect(await api.status(id)).toBe('error_extending');
    const { body } = await api.ask('GET', `/v3/quarry/volumes/${id}/usage`);
    expect(body.usage.last_failure).toContain('cannot shrink');
  });
});

describe('attaching as a record', () => {
  test('goes the way of reserve, attach, begin_detaching, detach', async () => {
    await using api = await Api.open();
    const id = await api.createVolume();
    const go = async (body: Record<string, unknown>, status: string): Promise<void> => {
      expect((await api.act(id, body)).status).toBe(202);
      expect(await api.status(id)).toBe(status);
    };
    await go({ 'os-reserve': null }, 'attaching');
    expect((await api.act(id, { 'os-reserve': null })).status).toBe(400);
    await go({ 'os-unreserve': {} }, 'available');
    await go({ 'os-unreserve': {} }, 'available');
    await go({ 'os-reserve': {} }, 'attaching');
    await go({ 'os-attach': { instance_uuid: UNKNOWN, mountpoint: '/dev/vdc', mode: 'ro' } }, 'in-use');
    await go({ 'os-attach': { instance_uuid: UNKNOWN, mountpoint: '/dev/vdc', mode: 'ro' } }, 'in-use');
    const { body } = await api.ask('GET', `/v3/volumes/${id}`);
    expect(body.volume.metadata).toEqual({ attached_mode: 'ro' });
    expect(body.volume.attachments).toMatchObject([{ id, volume_id: id, server_id: UNKNOWN, device: '/dev/vdc' }]);
    expect((await api.ask('DELETE', `/v3/volumes/${id}`)).status).toBe(400);
    await go({ 'os-begin_detaching': {} }, 'detaching');
    await go({ 'os-roll_detaching': {} }, 'in-use');
    await go({ 'os-begin_detaching': {} }, 'detaching');
    await go({ 'os-detach': null }, 'available');
    expect((await api.act(id, { 'os-begin_detaching': {} })).status).toBe(400);
  });

  test('needs one of server and host', async () => {
    await using api = await Api.open();
    const id = await api.createVolume();
    for (const more of [{}, { instance_uuid: UNKNOWN, host_name: 'h' }, { host_name: 'h', mode: 'wo' }])
      expect((await api.act(id, { 'os-attach': { mountpoint: '/dev/vdb', ...more } })).status).toBe(400);
    expect(await api.status(id)).toBe('available');
  });
});

test('a read-only volume is published read-only and says so', async () => {
  await using api = await Api.open();
  const id = await api.createVolume({ name: 'logs' });
  expect((await api.act(id, { 'os-update_readonly_flag': { readonly: 'true' } })).status).toBe(202);
  const { body } = await api.ask('GET', `/v3/volumes/${id}`);
  expect(body.volume.metadata).toEqual({ readonly: 'True' });
  for (const name of [id, 'logs']) expect(api.world.backend.published().get(name)?.readOnly).toBe(true);
  const attach = { 'os-attach': { host_name: 'h', mountpoint: '/dev/vdb', mode: 'rw' } };
  expect((await api.act(id, attach)).status).toBe(400);
  await api.act(id, { 'os-update_readonly_flag': { readonly: false } });
  for (const name of [id, 'logs']) expect(api.world.backend.published().get(name)?.readOnly).toBe(false);
  api.world.backend.connect(id);
  expect((await api.act(id, { 'os-update_readonly_flag': { readonly: true } })).status).toBe(400);
});

test('bootable is a flag, answered with 200', async () => {
  await using api = await Api.open();
  const id = await api.createVolume();
  expect((await api.act(id, { 'os-set_bootable': { bootable: 'True' } })).status).toBe(200);
  expect((await api.ask('GET', `/v3/volumes/${id}`)).body.volume.bootable).toBe('true');
  expect((await api.act(id, { 'os-set_bootable': { bootable: 'perhaps' } })).status).toBe(400);
});

test('image metadata is set, shown and unset', async () => {
  await using api = await Api.open();
  const id = await api.createVolume();
  const set = await api.act(id, { 'os-set_image_metadata': { metadata: { os: 'linux', arch: 'x86' } } });
  expect([set.status, set.body]).toEqual([200, { metadata: { arch: 'x86', os: 'linux' } }]);
  expect((await api.act(id, { 'os-unset_image_metadata': { key: 'arch' } })).status).toBe(200);
  expect((await api.act(id, { 'os-unset_image_metadata': { key: 'arch' } })).status).toBe(404);
  expect((await api.act(id, { 'os-show_image_metadata': null })).body).toEqual({ metadata: { os: 'linux' } });
  const { body } = await api.ask('GET', `/v3/volumes/${id}`);
  expect(body.volume).toMatchObject({ volume_image_metadata: { os: 'linux' }, metadata: {} });
});

test('image metadata of a volume that has none is not found', async () => {
  await using api = await Api.open();
  const id = await api.createVolume();
  const shown = await api.act(id, { 'os-show_image_metadata': null });
  expect([shown.status, shown.body.itemNotFound.message]).toEqual([404, expect.stringContaining(id)]);
  await api.act(id, { 'os-set_image_metadata': { metadata: { os: 'linux' } } });
  await api.act(id, { 'os-unset_image_metadata': { key: 'os' } });
  expect((await api.act(id, { 'os-show_image_metadata': null })).status).toBe(404);
});

describe('os-reset_status', () => {
  test('sets what an administrator says, within limits', async () => {
    await using api = await Api.open();
    const id = await api.createVolume();
    expect((await api.act(id, { 'os-reset_status': { status: 'ERROR' } })).status).toBe(202);
    expect(await api.status(id)).toBe('error');
    for (const status of ['nonsense', 'reverting', 'deleting', 'in-use', 'detaching'])
      expect((await api.act(id, { 'os-reset_status': { status } })).status).toBe(400);
    expect((await api.act(id, { 'os-reset_status': {} })).status).toBe(400);
    await api.act(id, { 'os-reset_status': { status: 'available' } });
    await api.act(id, { 'os-attach': { host_name: 'h', mountpoint: '/dev/vdb' } });
    await api.act(id, { 'os-reset_status': { status: 'available', attach_status: 'detached' } });
    expect((await api.ask('GET', `/v3/volumes/${id}`)).body.volume).toMatchObject({
      status: 'available',
      attachments: [],
    });
  });

  test('leaves nothing that a forced deletion cannot remove', async () => {
    await using api = await Api.open();
    const id = await api.createVolume();
    await api.act(id, { 'os-reset_status': { status: 'maintenance' } });
    expect((await api.ask('DELETE', `/v3/volumes/${id}`)).status).toBe(400);
    expect((await api.act(id, { 'os-force_delete': {} })).status).toBe(202);
    expect(await api.status(id)).toBe(404);
  });
});

test('a volume changes its type neither to the one it has nor to one there is not', async () => {
  await using api = await Api.open();
  const id = await api.createVolume();
  const retype = (type: string) => api.act(id, { 'os-retype': { new_type: type, migration_policy: 'never' } });
  expect((await retype('__DEFAULT__')).status).toBe(400);
  expect((await retype('gold')).status).toBe(404);
  for (const body of [{ 'os-volume_upload_image': { image_name: 'x' } }, { 'os-extend_volume_completion': {} }])
    expect((await api.act(id, body)).status).toBe(400);
});

describe('snapshots', () => {
  test('are made, shown, changed and deleted', async () => {
    await using api = await Api.open();
    const volume = await api.createVolume({ size: 2 });
    const request = {
      snapshot: { volume_id: volume, name: 's', description: null, metadata: { a: 'b' }, force: false },
    };
    const created = await api.ask('POST', '/v3/snapshots', { body: request });
    expect(created.status).toBe(202);
    expect(created.body.snapshot).toMatchObject({
      status: 'creating',
      size: 2,
      volume_id: volume,
      metadata: { a: 'b' },
    });
    await api.settle();
    const { id } = created.body.snapshot;
    const shown = await api.ask('GET', `/v3/snapshots/${id}`, { minor: 71 });
    expect(shown.body.snapshot).toMatchObject({
      status: 'available',
      'os-extended-snapshot-attributes:progress': '100%',
      consumes_quota: true,
    });
    const changed = await api.ask('PUT', `/v3/snapshots/${id}`, { body: { snapshot: { name: 't' } } });
    expect([changed.status, changed.body.snapshot.name]).toEqual([200, 't']);
    expect((await api.ask('PUT', `/v3/snapshots/${id}`, { body: { snapshot: {} } })).status).toBe(400);
    const more = { body: { metadata: { c: 'd' } } };
    expect((await api.ask('POST', `/v3/snapshots/${id}/metadata`, more)).body.metadata).toEqual({ a: 'b', c: 'd' });
    expect((await api.ask('DELETE', `/v3/snapshots/${id}`)).status).toBe(202);
    await api.settle();
    expect((await api.ask('GET', `/v3/snapshots/${id}`)).status).toBe(404);
    expect(api.world.backend.ids()).toEqual([volume]);
  });

  test('of a volume in use need force before 3.66, and refuse force:false from there', async () => {
    await using api = await Api.open();
    const volume_id = await api.createVolume();
    await api.act(volume_id, { 'os-attach': { host_name: 'h', mountpoint: '/dev/vdb' } });
    const make = async (fields: object, minor: number) => {
      const { status } = await api.ask('POST', '/v3/snapshots', {
        body: { snapshot: { volume_id, ...fields } },
        minor,
      });
      return status;
    };
    expect(await make({}, 65)).toBe(400);
    expect(await make({ force: 'true' }, 65)).toBe(202);
    expect(await make({}, 66)).toBe(202);
    expect(await make({ force: true }, 66)).toBe(202);
    expect(await make({ force: false }, 66)).toBe(400);
    expect(await make({ force: 'perhaps' }, 65)).toBe(400);
    await api.settle();
  });

  test('of no volume are 404, of what is no id 400', async () => {
    await using api = await Api.open();
    const make = (volume_id: unknown) => api.ask('POST', '/v3/snapshots', { body: { snapshot: { volume_id } } });
    expect((await make(UNKNOWN)).status).toBe(404);
    expect((await make(null)).status).toBe(404);
    expect((await make('x')).status).toBe(400);
    expect((await make(undefined)).status).toBe(400);
  });

  test('can be reset and then deleted by force only', async () => {
    await using api = await Api.open();
    const id = await api.createSnapshot(await api.createVolume());
    const act = (body: object) => api.ask('POST', `/v3/snapshots/${id}/action`, { body });
    expect((await act({ 'os-reset_status': { status: 'updating' } })).status).toBe(202);
    const refused = await api.ask('DELETE', `/v3/snapshots/${id}`);
    expect(refused.body.badRequest.message).toMatch(/^Invalid snapshot: .*status must be available or error/);
    expect((await act({ 'os-reset_status': { status: 'nonsense' } })).status).toBe(400);
    expect((await act({ 'os-force_delete': {} })).status).toBe(202);
    await api.settle();
    expect((await api.ask('GET', `/v3/snapshots/${id}`)).status).toBe(404);
  });

  test('a volume made from one outlives it', async () => {
    await using api = await Api.open();
    const snapshot = await api.createSnapshot(await api.createVolume());
    const copy = await api.createVolume({ snapshot_id: snapshot });
    expect((await api.ask('DELETE', `/v3/snapshots/${snapshot}`)).status).toBe(202);
    await api.settle();
    const { body } = await api.ask('GET', `/v3/volumes/${copy}`);
    expect(body.volume).toMatchObject({ status: 'available', snapshot_id: snapshot });
  });
});

describe('revert', () => {
  test('brings a volume back to its newest snapshot', async () => {
    await using api = await Api.open();
    const id = await api.createVolume();
    api.world.backend.write(id, 0);
    const snapshot = await api.createSnapshot(id);
    api.world.backend.write(id, 65536);
    expect((await api.act(id, { revert: { snapshot_id: snapshot } }, 40)).status).toBe(202);
    expect(await api.status(id)).toBe('available');
    expect((await api.world.backend.usage([id]))[0]?.mappedBytes).toBe(65536);
  });

  test('refuses an older snapshot, another size, a foreign snapshot, and with 409 a wrong status or clients', async () => {
    await using api = await Api.open();
    const id = await api.createVolume();
    const older = await api.createSnapshot(id);
    const newer = await api.createSnapshot(id);
    const foreign = await api.createSnapshot(await api.createVolume());
    const revert = async (snapshot_id: string) => (await api.act(id, { revert: { snapshot_id } }, 40)).status;
    expect(await revert(older)).toBe(400);
    expect(await revert(foreign)).toBe(400);
    expect(await revert(UNKNOWN)).toBe(400);
    api.world.backend.connect(id);
    expect(await revert(newer)).toBe(409);
    api.world.backend.disconnect(id);
    await api.act(id, { 'os-attach': { host_name: 'h', mountpoint: '/dev/vdb' } });
    expect(await revert(newer)).toBe(409);
    await api.act(id, { 'os-detach': {} });
    await api.act(id, { 'os-extend': { new_size: 2 } });
    expect(await revert(newer)).toBe(400);
  });
});

test('of two requests that race for a volume one wins and the other is told the status', async () => {
  await using api = await Api.open();
  const id = await api.createVolume();
  const race = await Promise.all([
    api.ask('POST', `/v3/volumes/${id}/action`, { body: { 'os-extend': { new_size: 2 } } }),
    api.ask('POST', `/v3/volumes/${id}/action`, { body: { 'os-extend': { new_size: 3 } } }),
    api.ask('POST', `/v3/volumes/${id}/action`, { body: { 'os-extend': { new_size: 4 } } }),
  ]);
  expect(race.map(({ status }) => status).sort()).toEqual([202, 400, 400]);
  const loser = race.find(({ status }) => status === 400);
  expect(loser?.body.badRequest.message).toMatch(/Invalid volume: .*current status is: extending/);
  await api.settle();
});
