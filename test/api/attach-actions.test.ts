/**
 * The older way to attach, as actions of a volume, retype, and the actions that one backend cannot carry out.
 */
import { randomUUID } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { Failure } from '../../src/base/errors.ts';
import { addType } from '../control/types.ts';
import { Api, type Reply } from './api.ts';

const HOST = { host: 'compute1', initiator: 'iqn.1993-08.org.debian:01:a' };

function unlisted(api: Api): string[] {
  return [...api.world.backend.published()].filter(([, { isListed }]) => !isListed).map(([name]) => name);
}

function readOnly(api: Api): (boolean | undefined)[] {
  return unlisted(api).map((name) => api.world.backend.published().get(name)?.readOnly);
}

const initialize = (api: Api, id: string, connector: unknown = HOST): Promise<Reply> =>
  api.act(id, { 'os-initialize_connection': { connector } });
const terminate = (api: Api, id: string, connector: unknown = HOST): Promise<Reply> =>
  api.act(id, { 'os-terminate_connection': { connector } });
const attach = (api: Api, id: string, fields: object = { host_name: 'compute1' }): Promise<Reply> =>
  api.act(id, { 'os-attach': { mountpoint: '/dev/vdb', ...fields } });

describe('the older way to attach', () => {
  test('makes an export, then its attachment, and ends both', async () => {
    await using api = await Api.open();
    const id = await api.createVolume();
    await api.act(id, { 'os-reserve': {} });
    const initialized = await initialize(api, id);
    expect(initialized.status).toBe(200);
    const { connection_info } = initialized.body;
    const [name = ''] = unlisted(api);
    expect(name).toMatch(/^att-[0-9a-f]{32}$/);
    expect(connection_info).toMatchObject({
      driver_volume_type: 'nbd',
      data: { name, export_name: name, volume_id: id, access_mode: 'rw', hosts: [], unix_socket: '/nowhere/nbd.sock' },
    });
    // The same host again gets what it has.
    expect((await initialize(api, id)).body).toEqual(initialized.body);
    expect((await attach(api, id)).status).toBe(202);
    expect(await api.status(id)).toBe('in-use');
    const { attachments } = (await api.ask('GET', '/v3/attachments/detail', { minor: 27 })).body;
    expect(attachments).toMatchObject([
      { status: 'attached', attach_mode: 'rw', volume_id: id, connection_info: { name, driver_volume_type: 'nbd' } },
    ]);
    await api.act(id, { 'os-begin_detaching': null });
    expect((await terminate(api, id)).status).toBe(202);
    expect(unlisted(api)).toEqual([]);
    expect(await api.status(id)).toBe('detaching');
    await api.act(id, { 'os-detach': { attachment_id: attachments[0].id } });
    expect(await api.status(id)).toBe('available');
    expect((await api.ask('GET', '/v3/attachments', { minor: 27 })).body).toEqual({ attachments: [] });
  });

  test('ends the export with the attachment when nobody terminated it', async () => {
    await using api = await Api.open();
    const id = await api.createVolume();
    await initialize(api, id);
    await initialize(api, id, { host: 'compute2' });
    await attach(api, id);
    expect(unlisted(api)).toHaveLength(2);
    expect((await api.act(id, { 'os-detach': {} })).status).toBe(202);
    expect(unlisted(api)).toEqual([]);
  });

  test('gives up again: terminating frees what was reserved, of the named host alone', async () => {
    await using api = await Api.open();
    const id = await api.createVolume();
    await api.act(id, { 'os-reserve': {} });
    await initialize(api, id);
    await initialize(api, id, { host: 'compute2' });
    expect((await terminate(api, id, { host: 'compute3' })).status).toBe(202);
    expect(unlisted(api)).toHaveLength(2);
    await terminate(api, id);
    expect(unlisted(api)).toHaveLength(1);
    await terminate(api, id, null);
    expect(unlisted(api)).toEqual([]);
    expect(await api.status(id)).toBe('available');
  });

  test('is read-only where the volume or the attachment is', async () => {
    await using api = await Api.open();
    const id = await api.createVolume();
    await initialize(api, id);
    expect(readOnly(api)).toEqual([false]);
    await attach(api, id, { host_name: 'compute1', mode: 'ro' });
    expect(readOnly(api)).toEqual([true]);
    expect((await initialize(api, id)).body.connection_info.data.access_mode).toBe('ro');
    await api.act(id, { 'os-detach': {} });
    await api.act(id, { 'os-update_readonly_flag': { readonly: true } });
    expect((await initialize(api, id)).body.connection_info.data.access_mode).toBe('ro');
    expect(readOnly(api)).toEqual([true]);
  });

  test('needs a volume that can be attached, and a connector that is one', async () => {
    await using api = await Api.open();
    const id = await api.createVolume();
    for (const connector of ['x', 7, null]) expect((await initialize(api, id, connector)).status).toBe(400);
    for (const status of ['maintenance', 'error', 'extending']) {
      await api.act(id, { 'os-reset_status': { status } });
      expect((await initialize(api, id)).status).toBe(400);
    }
    expect((await initialize(api, randomUUID())).status).toBe(404);
    expect(unlisted(api)).toEqual([]);
  });

  test('keeps a volume from being deleted as long as somebody was given an export', async () => {
    await using api = await Api.open();
    const id = await api.createVolume();
    await initialize(api, id);
    const refused = await api.ask('DELETE', `/v3/volumes/${id}`);
    expect(refused.status).toBe(400);
    await terminate(api, id);
    expect((await api.ask('DELETE', `/v3/volumes/${id}`)).status).toBe(202);
    await api.settle();
  });

  test('completes what the attachments API reserved for the same server', async () => {
    await using api = await Api.open();
    const id = await api.createVolume();
    const instance_uuid = randomUUID();
    const attachment = { volume_uuid: id, instance_uuid };
    await api.ask('POST', '/v3/attachments', { body: { attachment }, minor: 27 });
    expect((await attach(api, id, { instance_uuid })).status).toBe(202);
    const { attachments } = (await api.ask('GET', '/v3/attachments', { minor: 27 })).body;
    expect(attachments).toMatchObject([{ status: 'attached', instance: instance_uuid }]);
    expect(await api.status(id)).toBe('in-use');
    await api.act(id, { 'os-detach': {} });
    // With its export, whose mode follows.
    await api.ask('POST', '/v3/attachments', { body: { attachment: { ...attachment, connector: HOST } }, minor: 27 });
    expect(readOnly(api)).toEqual([false]);
    await attach(api, id, { instance_uuid, mode: 'ro' });
    expect(readOnly(api)).toEqual([true]);
    await api.act(id, { 'os-detach': {} });
    await api.ask('POST', '/v3/attachments', {
      body: { attachment: { ...attachment, connector: HOST, mode: 'ro' } },
      minor: 54,
    });
    await attach(api, id, { instance_uuid });
    expect(readOnly(api)).toEqual([true]);
  });
});

describe('os-force_detach', () => {
  test('ends an attachment of a volume in error', async () => {
    await using api = await Api.open();
    const id = await api.createVolume();
    await attach(api, id, { instance_uuid: randomUUID() });
    const [attachment] = (await api.ask('GET', `/v3/volumes/${id}`)).body.volume.attachments;
    await api.act(id, { 'os-reset_status': { status: 'error' } });
    const body = { 'os-force_detach': { attachment_id: attachment.attachment_id, connector: null } };
    expect((await api.act(id, body)).status).toBe(202);
    const { volume } = (await api.ask('GET', `/v3/volumes/${id}`)).body;
    expect(volume).toMatchObject({ status: 'available', attachments: [] });
  });

  test('of an attachment that there is not is 400, of a wrong shape too', async () => {
    await using api = await Api.open();
    const id = await api.createVolume();
    for (const value of [{ attachment_id: randomUUID() }, { attachment_id: 'x' }, { more: 1 }, null])
      expect((await api.act(id, { 'os-force_detach': value })).status).toBe(400);
  });
});

/** A spec of its own for the type. */
async function limit(api: Api, type: string, consumer: string, specs: Record<string, string>): Promise<void> {
  const { volume_types } = (await api.ask('GET', '/v3/types')).body;
  const created = await api.ask('POST', '/v3/qos-specs', { body: { qos_specs: { name: type, consumer, ...specs } } });
  const typeId = volume_types.find(({ name }: { name: string }) => name === type)?.id;
  const path = `/v3/qos-specs/${created.body.qos_specs.id}/associate?vol_type_id=${typeId}`;
  expect((await api.ask('GET', path)).status).toBe(202);
}

describe('os-retype', () => {
  const retype = (api: Api, id: string, type: string, policy: string | null = 'never'): Promise<Reply> =>
    api.act(id, { 'os-retype': { new_type: type, migration_policy: policy } });

  test('changes the type and what it decides, and keeps the data', async () => {
    await using api = await Api.open();
    await addType(api.world.control, 'shared', { multiattach: '<is> True' });
    const id = await api.createVolume();
    api.world.backend.write(id, 0);
    expect((await retype(api, id, 'shared', 'on-demand')).status).toBe(202);
    const { volume } = (await api.ask('GET', `/v3/volumes/${id}`)).body;
    expect(volume).toMatchObject({ volume_type: 'shared', multiattach: true, status: 'available' });
    expect((await api.world.backend.usage([id]))[0]?.mappedBytes).toBe(65536);
    expect((await retype(api, id, 'shared')).status).toBe(400);
    expect((await retype(api, id, 'gold')).status).toBe(404);
    expect((await retype(api, id, '__DEFAULT__', 'sometimes')).status).toBe(400);
  });

  test('of a volume in use keeps its status, and cannot change how often it may be attached', async () => {
    await using api = await Api.open();
    await addType(api.world.control, 'shared', { multiattach: '<is> True' });
    await addType(api.world.control, 'gold');
    const id = await api.createVolume();
    await attach(api, id);
    expect((await retype(api, id, 'shared')).status).toBe(400);
    expect((await retype(api, id, 'gold')).status).toBe(202);
    const { volume } = (await api.ask('GET', `/v3/volumes/${id}`)).body;
    expect(volume).toMatchObject({ volume_type: 'gold', status: 'in-use' });
    await api.act(id, { 'os-reset_status': { status: 'error' } });
    expect((await retype(api, id, '__DEFAULT__')).status).toBe(400);
  });

  test('to what the pool does not offer, or whose limits cannot be set, gives the old type and status back', async () => {
    let isRefused = false;
    await using api = await Api.open({
      aroundBackend: (backend) =>
        new Proxy(backend, {
          get: (target, key) => {
            // To take limits away works: that is tried until it does.
            if (key === 'setLimits' && isRefused)
              return async ({ limits }: { limits: object | null }) => {
                if (limits !== null) throw new Failure('io_error', { reason: 'as the test wants' });
              };
            const value: unknown = Reflect.get(target, key, target);
            return typeof value === 'function' ? value.bind(target) : value;
          },
        }),
    });
    await addType(api.world.control, 'tape', { storage_protocol: 'tape' });
    await addType(api.world.control, 'slow');
    await limit(api, 'slow', 'back-end', { total_iops_sec: '100' });
    const id = await api.createVolume();
    await attach(api, id);
    isRefused = true;
    for (const [type, policy, why] of [
      ['tape', 'never', 'storage_protocol'],
      ['tape', 'on-demand', 'storage_protocol'],
      ['slow', 'never', 'as the test wants'],
    ] as const) {
      expect((await retype(api, id, type, policy)).status).toBe(202);
      const { volume } = (await api.ask('GET', `/v3/volumes/${id}`)).body;
      expect(volume).toMatchObject({ volume_type: '__DEFAULT__', status: 'in-use' });
      const { usage } = (await api.ask('GET', `/v3/quarry/volumes/${id}/usage`)).body;
      expect(usage.last_failure).toContain(why);
    }
    isRefused = false;
    await retype(api, id, 'slow');
    expect(api.world.backend.limitsOf(id)).toMatchObject({ totalIopsSec: 100 });
  });

  test('of a volume in use cannot change what its host was told of speed', async () => {
    await using api = await Api.open();
    for (const type of ['one', 'same', 'other']) await addType(api.world.control, type);
    await limit(api, 'one', 'front-end', { read_iops_sec: '5' });
    await limit(api, 'same', 'both', { read_iops_sec: '5' });
    await limit(api, 'other', 'front-end', { read_iops_sec: '6' });
    const id = await api.createVolume({ volume_type: 'one' });
    const { connection_info } = (await initialize(api, id)).body;
    expect(connection_info.data.qos_specs).toEqual({ read_iops_sec: '5' });
    await attach(api, id);
    for (const type of ['other', '__DEFAULT__']) expect((await retype(api, id, type)).status).toBe(400);
    expect((await retype(api, id, 'same')).status).toBe(202);
    await api.act(id, { 'os-detach': {} });
    expect((await retype(api, id, 'other')).status).toBe(202);
  });

  test('moves the use between the quotas of the types, and needs room in the new one', async () => {
    await using api = await Api.open();
    await addType(api.world.control, 'gold');
    const id = await api.createVolume({ size: 2 });
    const project = '00000000000000000000000000000001';
    const allow = (quota_set: object) => api.ask('PUT', `/v3/os-quota-sets/${project}`, { body: { quota_set } });
    await allow({ gigabytes_gold: 1 });
    const refused = await retype(api, id, 'gold');
    expect([refused.status, refused.body.overLimit.message]).toEqual([
      413,
      expect.stringContaining('exceeds allowed gigabytes_gold quota. Requested 2G, quota is 1G'),
    ]);
    expect(await api.status(id)).toBe('available');
    await allow({ gigabytes_gold: 2, volumes_gold: 1 });
    expect((await retype(api, id, 'gold')).status).toBe(202);
    const { quota_set } = (await api.ask('GET', `/v3/os-quota-sets/${project}?usage=true`)).body;
    expect([quota_set.gigabytes_gold.in_use, quota_set.gigabytes___DEFAULT__.in_use]).toEqual([2, 0]);
    const other = await api.createVolume();
    expect((await retype(api, other, 'gold')).status).toBe(413);
  });
});

describe('what one backend cannot do', () => {
  test.each([
    [
      'os-migrate_volume',
      { host: 'elsewhere@lvm#lvm' },
      "Invalid host: No available service named 'elsewhere@lvm#lvm'",
    ],
    [
      'os-migrate_volume',
      { host: 'here@pool#pool', force_host_copy: true, lock_volume: 'no' },
      'must be different than',
    ],
    ['os-migrate_volume', {}, 'One and only one of cluster and host'],
    ['os-migrate_volume', { host: 1 }, 'host'],
    ['os-extend_volume_completion', {}, 'is not being extended'],
    ['os-extend_volume_completion', { error: 1 }, 'error'],
    ['os-unmanage', {}, 'cannot be unmanaged'],
  ])('%s %j is 400 and changes nothing', async (action, value, message) => {
    await using api = await Api.open();
    const id = await api.createVolume();
    const reply = await api.act(id, { [action]: value }, 71);
    expect([reply.status, reply.body.badRequest?.message]).toEqual([400, expect.stringContaining(message)]);
    expect(await api.status(id)).toBe('available');
    expect((await api.act(randomUUID(), { [action]: { host: 'x' } }, 71)).status).not.toBe(202);
  });

  test('completing a migration needs two volumes, of which none migrates', async () => {
    await using api = await Api.open();
    const [one, two] = [await api.createVolume(), await api.createVolume()];
    const complete = (new_volume: string) => api.act(one, { 'os-migrate_volume_completion': { new_volume } });
    expect((await complete(two)).status).toBe(400);
    expect((await complete(randomUUID())).status).toBe(404);
    expect((await complete('x')).status).toBe(400);
  });
});

describe('snapshots', () => {
  test('are reported by whoever made them, as far as their status allows', async () => {
    await using api = await Api.open();
    const id = await api.createSnapshot(await api.createVolume());
    const act = (body: object) => api.ask('POST', `/v3/snapshots/${id}/action`, { body });
    const report = (value: object) => act({ 'os-update_snapshot_status': value });
    expect((await report({ status: 'available' })).status).toBe(400);
    await act({ 'os-reset_status': { status: 'creating' } });
    expect((await report({ status: 'deleting' })).status).toBe(400);
    expect((await report({ status: 'creating', progress: '101%' })).status).toBe(400);
    expect((await report({ status: 'available', progress: '80%' })).status).toBe(202);
    const { snapshot } = (await api.ask('GET', `/v3/snapshots/${id}`)).body;
    expect(snapshot).toMatchObject({ status: 'available', 'os-extended-snapshot-attributes:progress': '80%' });
    expect((await act({ 'os-unmanage': {} })).status).toBe(400);
  });

  test('that are still made keep their volume from being deleted with them', async () => {
    await using api = await Api.open();
    const volume = await api.createVolume();
    const id = await api.createSnapshot(volume);
    await api.ask('POST', `/v3/snapshots/${id}/action`, { body: { 'os-reset_status': { status: 'creating' } } });
    expect((await api.ask('DELETE', `/v3/volumes/${volume}?cascade=true`)).status).toBe(400);
    expect([await api.status(volume), (await api.ask('GET', `/v3/snapshots/${id}`)).status]).toEqual([
      'available',
      200,
    ]);
  });
});

describe('what could be taken over', () => {
  const here = 'host=here@pool%23pool';
  test.each(['/manageable_volumes', '/manageable_volumes/detail', '/os-volume-manage', '/os-volume-manage/detail'])(
    '%s is empty',
    async (path) => {
      await using api = await Api.open();
      const reply = await api.ask('GET', `/v3${path}?${here}&sort=size:asc&limit=10`, { minor: 8 });
      expect([reply.status, reply.body]).toEqual([200, { 'manageable-volumes': [] }]);
      expect((await api.ask('GET', `/v3${path}`, { minor: 8 })).status).toBe(400);
      expect((await api.ask('GET', `/v3${path}?${here}&sort=name:asc`, { minor: 8 })).status).toBe(400);
      expect((await api.ask('GET', `/v3${path}?host=elsewhere`, { minor: 8 })).status).toBe(404);
    },
  );

  test('snapshots likewise; nothing can be taken over', async () => {
    await using api = await Api.open();
    const list = await api.ask('GET', `/v3/manageable_snapshots?${here}`, { minor: 8 });
    expect(list.body).toEqual({ 'manageable-snapshots': [] });
    expect((await api.ask('GET', `/v3/manageable_snapshots?${here}`, { minor: 7 })).status).toBe(404);
    const volume = { host: 'here@pool#pool', ref: { 'source-name': 'lv1' } };
    for (const path of ['/manageable_volumes', '/os-volume-manage']) {
      const refused = await api.ask('POST', `/v3${path}`, { body: { volume }, minor: 8 });
      expect([refused.status, refused.body.badRequest.message]).toEqual([400, expect.stringContaining('lv1')]);
      expect((await api.ask('POST', `/v3${path}`, { body: { volume: { ref: 'x' } }, minor: 8 })).status).toBe(400);
    }
    const snapshot = { volume_id: await api.createVolume(), ref: 'x' };
    expect((await api.ask('POST', '/v3/manageable_snapshots', { body: { snapshot }, minor: 8 })).status).toBe(400);
    const nowhere = { ...snapshot, volume_id: randomUUID() };
    expect((await api.ask('POST', '/v3/manageable_snapshots', { body: { snapshot: nowhere }, minor: 8 })).status).toBe(
      404,
    );
  });
});
