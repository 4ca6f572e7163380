/**
 * Attachments as clients use them: codes, bodies and statuses, and that each export exists exactly as long as its
 * attachment. The backend is the one that keeps facts only; real clients are in test/e2e.
 */
import { randomUUID } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { buildServer } from '../../src/api/server.ts';
import { Failure } from '../../src/base/errors.ts';
import { setDefaultExtraSpecs } from '../control/types.ts';
import { Api, type ApiOptions, type Reply } from './api.ts';
import { as, people } from './people.ts';

const MINOR = 54;
const HOST = { host: 'compute1', ip: '192.0.2.7', initiator: 'iqn.1993-08.org.debian:01:a', multipath: false };
type Headers = ReturnType<typeof as>;

const NAME = /^att-[0-9a-f]{32}$/;

class Attaching {
  readonly api: Api;
  constructor(api: Api) {
    this.api = api;
  }
  create(fields: object, minor = MINOR): Promise<Reply> {
    return this.api.ask('POST', '/v3/attachments', { body: { attachment: fields }, minor });
  }
  update(id: string, connector: object = HOST): Promise<Reply> {
    return this.api.ask('PUT', `/v3/attachments/${id}`, { body: { attachment: { connector } }, minor: MINOR });
  }
  complete(id: string, minor = MINOR): Promise<Reply> {
    return this.api.ask('POST', `/v3/attachments/${id}/action`, { body: { 'os-complete': null }, minor });
  }
  async show(id: string) {
    return (await this.api.ask('GET', `/v3/attachments/${id}`, { minor: MINOR })).body.attachment;
  }
  remove(id: string): Promise<Reply> {
    return this.api.ask('DELETE', `/v3/attachments/${id}`, { minor: MINOR });
  }
  /** Names that LIST would not show. */
  unlisted(): string[] {
    return [...this.api.world.backend.published()].filter(([, { isListed }]) => !isListed).map(([name]) => name);
  }
}

async function open(options: ApiOptions = {}): Promise<Attaching> {
  return new Attaching(await Api.open(options));
}

describe('an attachment', () => {
  test('is reserved, gets an export with the connector, is completed and deleted', async () => {
    const at = await open();
    await using api = at.api;
    const volume_uuid = await api.createVolume({ name: 'data' });
    const instance_uuid = randomUUID();
    const created = await at.create({ volume_uuid, instance_uuid });
    expect(created.status).toBe(200);
    const { id } = created.body.attachment;
    expect(created.body).toEqual({
      attachment: {
        id,
        status: 'reserved',
        instance: instance_uuid,
        volume_id: volume_uuid,
        attached_at: '',
        detached_at: '',
        attach_mode: 'null',
        connection_info: {},
      },
    });
    expect(await api.status(volume_uuid)).toBe('reserved');
    expect(at.unlisted()).toEqual([]);

    const updated = await at.update(id, { ...HOST, mountpoint: '/dev/vdb' });
    expect(updated.status).toBe(200);
    const [name = ''] = at.unlisted();
    expect(name).toMatch(NAME);
    expect(updated.body.attachment).toMatchObject({ status: 'reserved', attach_mode: 'null' });
    expect(updated.body.attachment.attached_at).toMatch(/^\d{4}-/);
    expect(updated.body.attachment.connection_info).toEqual({
      driver_volume_type: 'nbd',
      attachment_id: id,
      name,
      export_name: name,
      hosts: [],
      ports: [],
      server: null,
      port: null,
      uri: `nbd+unix:///${name}?socket=/nowhere/nbd.sock`,
      unix_socket: '/nowhere/nbd.sock',
      tls: false,
      volume_id: volume_uuid,
      device_path: null,
      discard: true,
      logical_block_size: '512',
      physical_block_size: '4096',
      access_mode: 'rw',
      encrypted: false,
      qos_specs: {},
      cacheable: false,
      enforce_multipath: false,
    });
    expect(await api.status(volume_uuid)).toBe('attaching');
    // The answer to the update shows what was; whoever asks is told what is.
    expect(await at.show(id)).toMatchObject({ status: 'attaching', attach_mode: 'rw' });
    expect(api.world.backend.published().get(name)).toMatchObject({ targetId: volume_uuid, readOnly: false });
    expect((await api.ask('GET', `/v3/volumes/${volume_uuid}`)).body.volume.attachments).toEqual([]);

    const completed = await at.complete(id);
    expect([completed.status, completed.body]).toEqual([204, '']);
    expect(await at.show(id)).toMatchObject({ status: 'attached', attach_mode: 'rw' });
    const { volume } = (await api.ask('GET', `/v3/volumes/${volume_uuid}`)).body;
    expect(volume).toMatchObject({ status: 'in-use', metadata: { attached_mode: 'rw' } });
    expect(volume.attachments).toMatchObject([
      { id: volume_uuid, attachment_id: id, server_id: instance_uuid, host_name: 'compute1', device: '/dev/vdb' },
    ]);

    api.world.backend.connect(name);
    const removed = await at.remove(id);
    expect([removed.status, removed.body]).toEqual([200, { attachments: [] }]);
    expect(await api.status(volume_uuid)).toBe('available');
    expect(at.unlisted()).toEqual([]);
    expect((await at.remove(id)).status).toBe(404);
    expect((await api.ask('GET', `/v3/attachments/${id}`, { minor: MINOR })).status).toBe(404);
  });

  test('with the connector at its creation has its export at once', async () => {
    const at = await open({ settings: { nbdPublicHost: 'store.example' } });
    await using api = at.api;
    Object.assign(api.world.backend, { nbdAddresses: ['unix:/nowhere/nbd.sock', '0.0.0.0:10809', '[::1]:10810'] });
    const volume_uuid = await api.createVolume();
    const { body } = await at.create({ volume_uuid, connector: HOST, mode: 'ro' });
    const [name = ''] = at.unlisted();
    expect(body.attachment).toMatchObject({
      status: 'reserved',
      attach_mode: 'ro',
      instance: null,
      connection_info: {
        hosts: ['store.example', 'store.example'],
        ports: ['10809', '10810'],
        server: 'store.example',
        port: 10809,
        uri: `nbd://store.example:10809/${name}`,
        unix_socket: '/nowhere/nbd.sock',
        access_mode: 'ro',
      },
    });
    expect(api.world.backend.published().get(name)?.readOnly).toBe(true);
    expect(await api.status(volume_uuid)).toBe('attaching');
    await at.complete(body.attachment.id);
    expect(await at.show(body.attachment.id)).toMatchObject({ status: 'attached', attach_mode: 'ro' });
  });

  test.each([
    [{}, 400],
    [{ volume_uuid: 'x' }, 400],
    [{ volume_uuid: null }, 400],
    [{ volume_uuid: randomUUID() }, 404],
    [{ volume_uuid: 'ours', instance_uuid: null }, 400],
    [{ volume_uuid: 'ours', instance_uuid: 'x' }, 400],
    [{ volume_uuid: 'ours', connector: 'x' }, 400],
    [{ volume_uuid: 'ours', mode: 'wo' }, 400],
    [{ volume_uuid: 'ours', more: 1 }, 400],
  ])('that asks for %j is %i and reserves nothing', async (fields, status) => {
    const at = await open();
    await using api = at.api;
    const id = await api.createVolume();
    const reply = await at.create(
      'volume_uuid' in fields && fields.volume_uuid === 'ours' ? { ...fields, volume_uuid: id } : fields,
    );
    expect(reply.status).toBe(status);
    expect(await api.status(id)).toBe('available');
    expect(at.unlisted()).toEqual([]);
  });

  test('needs 3.27, its mode 3.54, its completion 3.44', async () => {
    const at = await open();
    await using api = at.api;
    const volume_uuid = await api.createVolume();
    expect((await at.create({ volume_uuid }, 26)).status).toBe(404);
    expect((await at.create({ volume_uuid, mode: 'rw' }, 53)).status).toBe(400);
    const { body } = await at.create({ volume_uuid }, 27);
    expect((await at.complete(body.attachment.id, 43)).status).toBe(404);
    expect((await at.complete(body.attachment.id, 44)).status).toBe(204);
    expect(await api.status(volume_uuid)).toBe('in-use');
  });

  test('needs a volume that is available; of two at once one gets it', async () => {
    const at = await open();
    await using api = at.api;
    const volume_uuid = await api.createVolume();
    const race = await Promise.all([1, 2, 3].map(() => at.create({ volume_uuid, connector: HOST })));
    expect(race.map(({ status }) => status).sort()).toEqual([200, 400, 400]);
    expect(at.unlisted()).toHaveLength(1);
    expect(race.find(({ status }) => status === 400)?.body.badRequest.message).toMatch(
      /^Invalid volume: .*current status is: (reserved|attaching)/,
    );
  });

  test('of a server that moves stands beside the one of its old host; no other server gets one', async () => {
    const at = await open();
    await using api = at.api;
    const volume_uuid = await api.createVolume();
    const instance_uuid = randomUUID();
    const first = (await at.create({ volume_uuid, instance_uuid, connector: HOST })).body.attachment;
    // On its way to the first host there is nothing to move yet.
    expect((await at.create({ volume_uuid, instance_uuid })).status).toBe(400);
    await at.complete(first.id);
    expect((await at.create({ volume_uuid, instance_uuid: randomUUID() })).status).toBe(400);
    expect((await at.create({ volume_uuid })).status).toBe(400);
    const second = await at.create({ volume_uuid, instance_uuid, connector: { host: 'compute2' } });
    expect(second.status).toBe(200);
    expect(at.unlisted()).toHaveLength(2);
    expect(await api.status(volume_uuid)).toBe('attaching');
    await at.complete(second.body.attachment.id);
    expect(await api.status(volume_uuid)).toBe('in-use');
    expect((await at.remove(first.id)).body.attachments).toMatchObject([{ id: second.body.attachment.id }]);
    expect(at.unlisted()).toHaveLength(1);
    expect(await api.status(volume_uuid)).toBe('in-use');
    await at.remove(second.body.attachment.id);
    expect(await api.status(volume_uuid)).toBe('available');
  });

  test('of a server that did not move after all leaves the volume with its old host', async () => {
    const at = await open();
    await using api = at.api;
    const volume_uuid = await api.createVolume();
    const instance_uuid = randomUUID();
    const first = (await at.create({ volume_uuid, instance_uuid, connector: HOST })).body.attachment;
    await at.complete(first.id);
    const { id } = (await at.create({ volume_uuid, instance_uuid })).body.attachment;
    expect(await api.status(volume_uuid)).toBe('in-use');
    // As long as the old host has its connection, the new one gets its own only with the attachment.
    expect((await at.update(id, { host: 'compute2' })).status).toBe(409);
    await at.remove(id);
    expect(await api.status(volume_uuid)).toBe('in-use');
    expect(await at.show(first.id)).toMatchObject({ status: 'attached' });
  });

  test('of a volume that an administrator called available is not made twice', async () => {
    const at = await open();
    await using api = at.api;
    const volume_uuid = await api.createVolume();
    const instance_uuid = randomUUID();
    await at.create({ volume_uuid, instance_uuid });
    await api.act(volume_uuid, { 'os-reset_status': { status: 'available' } });
    const again = await at.create({ volume_uuid, instance_uuid });
    expect([again.status, again.body.badRequest.message]).toEqual([
      400,
      `Invalid volume: Volume ${volume_uuid} already has an attachment for instance ${instance_uuid}.`,
    ]);
  });

  test('of a volume in error is refused at its creation with 400, at its update with 409', async () => {
    const at = await open();
    await using api = at.api;
    const volume_uuid = await api.createVolume();
    const { id } = (await at.create({ volume_uuid })).body.attachment;
    await api.act(volume_uuid, { 'os-reset_status': { status: 'error' } });
    expect((await at.create({ volume_uuid })).status).toBe(400);
    expect((await at.update(id)).status).toBe(409);
    expect((await at.complete(id)).status).toBe(400);
    expect(at.unlisted()).toEqual([]);
    // What an administrator called an error ends with the attachment; a failed disk does not.
    expect((await at.remove(id)).status).toBe(200);
    expect(await api.status(volume_uuid)).toBe('available');
  });

  test('of a volume whose disk failed leaves the error behind', async () => {
    const at = await open();
    await using api = at.api;
    const volume_uuid = await api.createVolume();
    const { id } = (await at.create({ volume_uuid, connector: HOST })).body.attachment;
    api.world.backend.fail(volume_uuid, 'errno 5');
    await expect.poll(() => api.status(volume_uuid)).toBe('error');
    expect((await at.remove(id)).status).toBe(200);
    expect(await api.status(volume_uuid)).toBe('error');
    expect(at.unlisted()).toEqual([]);
  });

  test('updated again keeps its name; another mode ends its clients, and is decided once', async () => {
    const at = await open();
    await using api = at.api;
    const volume_uuid = await api.createVolume();
    const { id } = (await at.create({ volume_uuid, connector: HOST })).body.attachment;
    const [name = ''] = at.unlisted();
    // Only the attachment's own name counts here.
    await api.world.backend.unpublish(volume_uuid);
    api.world.backend.connect(name);
    const connections = async () => (await api.world.backend.usage([volume_uuid]))[0]?.connections;
    const { body } = await at.update(id, { ...HOST, mode: 'ro' });
    expect(body.attachment.connection_info).toMatchObject({ name, access_mode: 'ro' });
    expect(api.world.backend.published().get(name)?.readOnly).toBe(true);
    expect(await connections()).toBe(0);
    api.world.backend.connect(name);
    const again = await at.update(id, { ...HOST, ip: '192.0.2.8', mode: 'rw' });
    expect(again.body.attachment).toMatchObject({ attach_mode: 'ro', connection_info: { name, access_mode: 'ro' } });
    expect(await connections()).toBe(1);
    expect((await at.update(id, {})).status).toBe(400);
    expect((await at.update(randomUUID())).status).toBe(404);
  });

  test('of a read-only volume is read-only whatever it asks for', async () => {
    const at = await open();
    await using api = at.api;
    const volume_uuid = await api.createVolume();
    await api.act(volume_uuid, { 'os-update_readonly_flag': { readonly: true } });
    const { body } = await at.create({ volume_uuid, connector: { ...HOST, mode: 'rw' }, mode: 'rw' });
    expect(body.attachment).toMatchObject({ attach_mode: 'ro', connection_info: { access_mode: 'ro' } });
    for (const name of at.unlisted()) expect(api.world.backend.published().get(name)?.readOnly).toBe(true);
  });

  test('that cannot be published is not made, one that cannot be withdrawn stays', async () => {
    let refused = '';
    const at = await open({
      aroundBackend: (backend) =>
        new Proxy(backend, {
          get: (target, key) => {
            if (key === refused && refused !== '')
              return () => Promise.reject(new Failure('io_error', { reason: 'no' }));
            const value: unknown = Reflect.get(target, key, target);
            return typeof value === 'function' ? value.bind(target) : value;
          },
        }),
    });
    await using api = at.api;
    const volume_uuid = await api.createVolume();
    refused = 'publish';
    expect((await at.create({ volume_uuid, connector: HOST })).status).toBe(500);
    expect(await api.status(volume_uuid)).toBe('available');
    refused = '';
    const { id } = (await at.create({ volume_uuid, connector: HOST })).body.attachment;
    refused = 'unpublish';
    expect((await at.remove(id)).status).toBe(500);
    expect(await at.show(id)).toMatchObject({ id, connection_info: { driver_volume_type: 'nbd' } });
    refused = '';
    expect((await at.remove(id)).status).toBe(200);
    expect(await api.status(volume_uuid)).toBe('available');
  });
});

describe('while a volume has an export for an attachment', () => {
  test('it is neither deleted nor reverted nor made read-only, whatever its status and with whatever force', async () => {
    const at = await open();
    await using api = at.api;
    const volume_uuid = await api.createVolume();
    const snapshot_id = await api.createSnapshot(volume_uuid);
    const { id } = (await at.create({ volume_uuid, connector: HOST })).body.attachment;
    await api.act(volume_uuid, { 'os-reset_status': { status: 'available' } });
    expect((await api.ask('DELETE', `/v3/volumes/${volume_uuid}?cascade=true`)).status).toBe(400);
    expect((await api.act(volume_uuid, { 'os-force_delete': {} })).status).toBe(400);
    expect((await api.act(volume_uuid, { revert: { snapshot_id } }, 40)).status).toBe(409);
    expect((await api.act(volume_uuid, { 'os-update_readonly_flag': { readonly: true } })).status).toBe(400);
    expect(await api.status(volume_uuid)).toBe('available');
    await at.remove(id);
    expect((await api.act(volume_uuid, { revert: { snapshot_id } }, 40)).status).toBe(202);
    expect((await api.ask('DELETE', `/v3/volumes/${volume_uuid}?cascade=true`)).status).toBe(202);
    await api.settle();
    expect(api.world.backend.ids()).toEqual([]);
  });

  test('it grows, and the end of the attachment meanwhile decides the status afterwards', async () => {
    const at = await open();
    await using api = at.api;
    const volume_uuid = await api.createVolume();
    const { id } = (await at.create({ volume_uuid, connector: HOST })).body.attachment;
    await at.complete(id);
    const growing = api.ask('POST', `/v3/volumes/${volume_uuid}/action`, {
      body: { 'os-extend': { new_size: 3 } },
      minor: MINOR,
    });
    const [grown, removed] = await Promise.all([growing, at.remove(id)]);
    expect([grown.status, removed.status]).toEqual([202, 200]);
    await api.settle();
    expect((await api.ask('GET', `/v3/volumes/${volume_uuid}`)).body.volume).toMatchObject({
      size: 3,
      status: 'available',
    });
  });

  test('a reset of the attachments ends them and their exports', async () => {
    const at = await open();
    await using api = at.api;
    const volume_uuid = await api.createVolume();
    await at.create({ volume_uuid, connector: HOST });
    await api.act(volume_uuid, { 'os-reset_status': { status: 'available', attach_status: 'detached' } });
    expect(at.unlisted()).toEqual([]);
    expect((await api.ask('GET', '/v3/attachments', { minor: MINOR })).body).toEqual({ attachments: [] });
    // Without a status it gets the one that is right then.
    await at.create({ volume_uuid, connector: HOST });
    await api.act(volume_uuid, { 'os-reset_status': { attach_status: 'detached' } });
    expect([await api.status(volume_uuid), at.unlisted()]).toEqual(['available', []]);
    // Nothing of a refused reset happens.
    await at.create({ volume_uuid, connector: HOST });
    const refused = await api.act(volume_uuid, {
      'os-reset_status': { status: 'deleting', attach_status: 'detached' },
    });
    expect(refused.status).toBe(400);
    expect(at.unlisted()).toHaveLength(1);
  });
});

describe('lists of attachments', () => {
  test('are summaries or details, filtered, paged, and of the own project', async () => {
    const at = await open();
    await using api = at.api;
    const instance_uuid = randomUUID();
    const volumes: string[] = [];
    const ids: string[] = [];
    for (const fields of [{}, { connector: HOST }, { instance_uuid }]) {
      const volume_uuid = await api.createVolume();
      volumes.push(volume_uuid);
      ids.push((await at.create({ volume_uuid, ...fields })).body.attachment.id);
    }
    const list = async (query: string) => (await api.ask('GET', `/v3/attachments${query}`, { minor: MINOR })).body;
    expect((await list('')).attachments.map(({ id }: { id: string }) => id)).toEqual(ids.toReversed());
    expect((await list('')).attachments[0]).toEqual({
      id: ids[2],
      status: 'reserved',
      instance: instance_uuid,
      volume_id: volumes[2],
    });
    expect((await list('/detail')).attachments[1].connection_info.driver_volume_type).toBe('nbd');
    expect((await list(`?volume_id=${volumes[0]}`)).attachments).toMatchObject([{ id: ids[0] }]);
    expect((await list(`?instance_id=${instance_uuid}`)).attachments).toMatchObject([{ id: ids[2] }]);
    expect((await list('?status=attached')).attachments).toEqual([]);
    const page = await list('?limit=2');
    expect(page.attachments).toHaveLength(2);
    expect(page.attachments_links[0].href).toContain(`marker=${ids[1]}`);
    expect((await list(`?limit=2&marker=${ids[1]}`)).attachments).toMatchObject([{ id: ids[0] }]);
    expect((await api.ask('GET', `/v3/attachments?marker=${randomUUID()}`, { minor: MINOR })).status).toBe(404);
    const other = await api.ask('GET', '/v3/other/attachments', { minor: MINOR });
    expect(other.body).toEqual({ attachments: [] });
    const all = await api.ask('GET', '/v3/other/attachments?all_tenants=1', { minor: MINOR });
    expect(all.body.attachments).toHaveLength(3);
  });

  test('take from a member only the filters that are listed for attachments, and say so from 3.31', async () => {
    const at = await open({ server: { authenticator: people() } });
    await using api = at.api;
    const list = (query: string, minor: number, who: 'member' | 'admin' = 'member') =>
      api.ask('GET', `/v3/attachments?${query}`, { minor, headers: as(who) });
    for (const query of ['volume_id=v', 'status=attached', 'instance_id=i', 'attach_status=attached'])
      expect((await list(query, MINOR)).status, query).toBe(200);
    for (const query of ['attach_mode=rw', 'id=a', 'project_id=p', 'colour=red']) {
      const { status, body } = await list(query, MINOR);
      const name = query.split('=')[0];
      expect([status, body.badRequest?.message]).toEqual([400, `Invalid filters ${name} are found in query options.`]);
      expect((await list(query, 30)).status, query).toBe(200);
      expect((await list(query, MINOR, 'admin')).status, query).toBe(200);
    }
  });
});

describe('a volume of a multiattach type', () => {
  test('has several attachments, each with an export of its own, and is in use until the last ends', async () => {
    const at = await open();
    await using api = at.api;
    await setDefaultExtraSpecs(api.world.control, { multiattach: '<is> True' });
    const volume_uuid = await api.createVolume();
    expect((await api.ask('GET', `/v3/volumes/${volume_uuid}`)).body.volume.multiattach).toBe(true);
    const instance_uuid = randomUUID();
    const first = (await at.create({ volume_uuid, instance_uuid, connector: HOST })).body.attachment.id;
    // Only one at a time gets ready.
    expect((await at.create({ volume_uuid })).status).toBe(400);
    await at.complete(first);
    const second = (await at.create({ volume_uuid, instance_uuid })).body.attachment.id;
    expect(await api.status(volume_uuid)).toBe('reserved');
    expect((await at.update(second, { host: 'compute2' })).status).toBe(200);
    expect(new Set(at.unlisted()).size).toBe(2);
    expect(await api.status(volume_uuid)).toBe('attaching');
    await at.complete(second);
    const removed = await at.remove(first);
    expect(removed.body.attachments).toMatchObject([{ id: second, status: 'attached' }]);
    expect(await api.status(volume_uuid)).toBe('in-use');
    expect(at.unlisted()).toHaveLength(1);
    await at.remove(second);
    expect(await api.status(volume_uuid)).toBe('available');
  });

  test('is made by its type alone', async () => {
    await using api = await Api.open();
    const { status } = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1, multiattach: true } } });
    expect(status).toBe(400);
    const id = await api.createVolume({ multiattach: false });
    expect((await api.ask('GET', `/v3/volumes/${id}`)).body.volume.multiattach).toBe(false);
  });
});

test('where a service token is required, only a service ends what a server uses', async () => {
  const at = await open({ settings: { requireServiceToken: true } });
  await using api = at.api;
  const volume_uuid = await api.createVolume();
  const instance_uuid = randomUUID();
  const { id } = (await at.create({ volume_uuid, instance_uuid })).body.attachment;
  // Without a connection there is nothing that a server could use.
  expect((await at.remove(id)).status).toBe(200);
  const used = (await at.create({ volume_uuid, instance_uuid, connector: HOST })).body.attachment.id;
  await at.complete(used);
  const refused = await at.remove(used);
  expect([refused.status, refused.body.conflictingRequest.message]).toEqual([
    409,
    `Detach volume from instance ${instance_uuid} using the Compute API`,
  ]);
  for (const body of [
    { 'os-detach': {} },
    { 'os-force_detach': { attachment_id: used } },
    { 'os-terminate_connection': { connector: HOST } },
  ])
    expect((await api.act(volume_uuid, body)).status).toBe(409);
  expect(at.unlisted()).toHaveLength(1);
});

test('another project does not see it, and who may only read is not told how to reach it', async () => {
  const at = await open({});
  await using api = at.api;
  const server = buildServer(api.world.control, { publicEndpoint: null, authenticator: people() });
  const ask = async (method: 'GET' | 'POST' | 'PUT' | 'DELETE', path: string, who: Headers, body?: unknown) => {
    const payload = body === undefined ? {} : { payload: JSON.stringify(body) };
    const headers = { ...who, 'openstack-api-version': 'volume 3.54', 'content-type': 'application/json' };
    const reply = await server.inject({ method, url: `/v3/${path}`, headers, ...payload });
    return { status: reply.statusCode, body: reply.json() };
  };
  const volume = await ask('POST', 'volumes', as('member'), { volume: { size: 1 } });
  await api.settle();
  const attachment = { volume_uuid: volume.body.volume.id, connector: HOST };
  expect((await ask('POST', 'attachments', as('reader'), { attachment })).status).toBe(403);
  expect((await ask('POST', 'attachments', as('member elsewhere'), { attachment })).status).toBe(404);
  const made = await ask('POST', 'attachments', as('member'), { attachment });
  const path = `attachments/${made.body.attachment.id}`;
  expect(made.body.attachment.connection_info.name).toMatch(NAME);
  expect((await ask('GET', path, as('reader'))).body.attachment.connection_info).toEqual({});
  const [shown] = (await ask('GET', 'attachments/detail', as('reader'))).body.attachments;
  expect(shown.connection_info).toEqual({});
  const exportsPath = `quarry/volumes/${attachment.volume_uuid}/exports`;
  const names = async (who: Headers): Promise<string[]> =>
    (await ask('GET', exportsPath, who)).body.exports.map(({ name }: { name: string }) => name);
  expect(await names(as('member'))).toContain(at.unlisted()[0]);
  expect(await names(as('reader'))).not.toContain(at.unlisted()[0]);
  for (const method of ['GET', 'DELETE'] as const)
    expect((await ask(method, path, as('member elsewhere'))).status).toBe(404);
  const update = { attachment: { connector: HOST } };
  expect((await ask('PUT', path, as('member elsewhere'), update)).status).toBe(404);
  expect((await ask('PUT', path, as('reader'), update)).status).toBe(403);
  expect((await ask('DELETE', path, as('reader'))).status).toBe(403);
  expect((await ask('GET', 'attachments', as('member elsewhere'))).body).toEqual({ attachments: [] });
  const force = { 'os-force_detach': { attachment_id: made.body.attachment.id } };
  expect((await ask('POST', `volumes/${attachment.volume_uuid}/action`, as('member'), force)).status).toBe(403);
  expect(at.unlisted()).toHaveLength(1);
  expect((await ask('DELETE', path, as('member'))).status).toBe(200);
  await server.close();
});
