import { describe, expect, test } from 'vitest';
import { findTransfer } from '../../src/catalog/transfers.ts';
import { deleteTransfer, getTransfer } from '../../src/control/transfers.ts';
import { CALLER } from '../control/world.ts';
import { Api, type Reply } from './api.ts';

type Offer = { id: string; auth_key: string; volume_id: string };

/** Donor is the project of requests without one, `p2` the acceptor. */
async function offer(api: Api, volumeId: string, fields: Record<string, unknown> = {}): Promise<Offer> {
  const reply = await api.ask('POST', '/v3/volume-transfers', {
    body: { transfer: { volume_id: volumeId, ...fields } },
    minor: 71,
  });
  if (reply.status !== 202) throw new Error(`${reply.status}: ${JSON.stringify(reply.body)}`);
  return reply.body.transfer;
}

const accept = (api: Api, id: string, key: string | number, project = 'p2'): Promise<Reply> =>
  api.ask('POST', `/v3/${project}/volume-transfers/${id}/accept`, { body: { accept: { auth_key: key } }, minor: 71 });

const ownerOf = async (api: Api, kind: 'volume' | 'snapshot', id: string): Promise<string> => {
  const { body } = await api.ask('GET', `/v3/${kind}s/${id}`, { minor: 71 });
  return kind === 'volume'
    ? body.volume['os-vol-tenant-attr:tenant_id']
    : body.snapshot['os-extended-snapshot-attributes:project_id'];
};

const used = async (api: Api, project: string): Promise<Record<string, number>> => {
  const { body } = await api.ask('GET', `/v3/os-quota-sets/${project}?usage=true`);
  const { volumes, snapshots, gigabytes } = body.quota_set;
  return { volumes: volumes.in_use, snapshots: snapshots.in_use, gigabytes: gigabytes.in_use };
};

const DONOR = '00000000000000000000000000000001';

describe('an offer', () => {
  test('shows its key once, keeps it nowhere, and holds the volume until it is withdrawn', async () => {
    await using api = await Api.open();
    const volume = await api.createVolume();
    const made = await api.ask('POST', '/v3/os-volume-transfer', {
      body: { transfer: { volume_id: volume, name: ' gift ' } },
    });
    expect(made.status).toBe(202);
    const { transfer } = made.body;
    expect(Object.keys(transfer).sort()).toEqual(['auth_key', 'created_at', 'id', 'links', 'name', 'volume_id']);
    expect(transfer).toMatchObject({ name: 'gift', volume_id: volume });
    expect(transfer.auth_key).toMatch(/^[0-9a-f]{16}$/);
    const row = await findTransfer(api.world.control.catalog.reader, transfer.id);
    expect(JSON.stringify(row)).not.toContain(transfer.auth_key);
    expect(await api.status(volume)).toBe('awaiting-transfer');
    for (const url of ['/v3/os-volume-transfer', '/v3/volume-transfers/detail']) {
      const { body } = await api.ask('GET', url, { minor: 71 });
      expect(body.transfers.map((item: Offer) => item.id)).toEqual([transfer.id]);
      expect(JSON.stringify(body)).not.toContain(transfer.auth_key);
    }
    expect((await api.ask('DELETE', `/v3/volumes/${volume}`)).status).toBe(400);
    expect((await api.ask('DELETE', `/v3/os-volume-transfer/${transfer.id}`)).status).toBe(202);
    expect(await api.status(volume)).toBe('available');
    expect((await api.ask('GET', `/v3/os-volume-transfer/${transfer.id}`)).status).toBe(404);
    expect((await accept(api, transfer.id, transfer.auth_key)).status).toBe(404);
  });

  test('has the fields of its microversion', async () => {
    await using api = await Api.open();
    const { id } = await offer(api, await api.createVolume(), { no_snapshots: true });
    const show = async (minor: number) => (await api.ask('GET', `/v3/volume-transfers/${id}`, { minor })).body.transfer;
    expect(await show(55)).toMatchObject({ no_snapshots: true });
    expect(await show(56)).not.toHaveProperty('accepted');
    expect(await show(57)).toMatchObject({ source_project_id: DONOR, destination_project_id: null, accepted: false });
    expect((await api.ask('GET', '/v3/volume-transfers', { minor: 54 })).status).toBe(404);
    expect((await api.ask('GET', `/v3/os-volume-transfer/${id}`)).body.transfer).not.toHaveProperty('no_snapshots');
  });

  test('is refused of what is not available, in a group, connected, or has snapshots under way', async () => {
    await using api = await Api.open();
    const volume = await api.createVolume();
    const snapshot = await api.createSnapshot(volume);
    const ask = async () =>
      api.ask('POST', '/v3/volume-transfers', { body: { transfer: { volume_id: volume } }, minor: 71 });
    await api.act(volume, { 'os-reserve': null });
    expect((await ask()).body.badRequest.message).toMatch(/^Invalid volume: .*attaching/);
    await api.act(volume, { 'os-unreserve': null });
    for (const id of [volume, snapshot]) {
      api.world.backend.connect(id);
      expect((await ask()).body.badRequest.message).toContain('1 NBD client');
      api.world.backend.disconnect(id);
    }
    await api.ask('POST', `/v3/snapshots/${snapshot}/action`, { body: { 'os-reset_status': { status: 'error' } } });
    expect((await ask()).body.badRequest.message).toMatch(/^Invalid snapshot: /);
    expect(await api.status(volume)).toBe('available');
    expect((await offer(api, volume, { no_snapshots: true })).volume_id).toBe(volume);
  });

  test.each([
    [{}, 400],
    [{ volume_id: 'no-uuid' }, 400],
    [{ volume_id: '6a1c2c3e-0000-4000-8000-000000000000' }, 404],
    [{ volume_id: '6a1c2c3e-0000-4000-8000-000000000000', colour: 1 }, 400],
    [{ volume_id: '6a1c2c3e-0000-4000-8000-000000000000', name: 'n'.repeat(256) }, 400],
  ])('of %j is %d', async (transfer, status) => {
    await using api = await Api.open();
    expect((await api.ask('POST', '/v3/volume-transfers', { body: { transfer }, minor: 71 })).status).toBe(status);
    expect((await api.ask('POST', '/v3/os-volume-transfer', { body: { transfer } })).status).toBe(status);
  });

  test('is refused, and not accepted either, of what an administrator called free while it is attached', async () => {
    await using api = await Api.open();
    const volume = await api.createVolume();
    const free = () => api.act(volume, { 'os-reset_status': { status: 'available' } });
    const offered = await offer(api, volume);
    await free();
    const body = { attachment: { volume_uuid: volume, connector: { host: 'h' } } };
    const attachment = (await api.ask('POST', '/v3/attachments', { body, minor: 71 })).body.attachment.id;
    await api.act(volume, { 'os-reset_status': { status: 'awaiting-transfer' } });
    const accepted = await accept(api, offered.id, offered.auth_key);
    expect([accepted.status, accepted.body.badRequest?.message]).toEqual([400, expect.stringContaining(attachment)]);
    expect(await ownerOf(api, 'volume', volume)).toBe(DONOR);
    await free();
    const request = { body: { transfer: { volume_id: volume } }, minor: 71 };
    expect((await api.ask('POST', '/v3/volume-transfers', request)).status).toBe(400);
    expect((await api.ask('DELETE', `/v3/attachments/${attachment}`, { minor: 71 })).status).toBe(200);
    expect((await offer(api, volume)).volume_id).toBe(volume);
  });

  test('takes no_snapshots on the newer path only', async () => {
    await using api = await Api.open();
    const body = { transfer: { volume_id: await api.createVolume(), no_snapshots: true } };
    expect((await api.ask('POST', '/v3/os-volume-transfer', { body, minor: 71 })).status).toBe(400);
    expect((await api.ask('POST', '/v3/volume-transfers', { body, minor: 55 })).status).toBe(202);
  });
});

describe('accepting', () => {
  test('moves the volume, its snapshots and what they count against both quotas', async () => {
    await using api = await Api.open();
    const volume = await api.createVolume({ size: 3 });
    const snapshot = await api.createSnapshot(volume);
    const { id, auth_key } = await offer(api, volume);
    const { status, body } = await accept(api, id, auth_key);
    expect(status).toBe(202);
    expect(Object.keys(body.transfer).sort()).toEqual(['id', 'links', 'name', 'volume_id']);
    expect(await api.status(volume)).toBe('available');
    expect([await ownerOf(api, 'volume', volume), await ownerOf(api, 'snapshot', snapshot)]).toEqual(['p2', 'p2']);
    expect(await used(api, 'p2')).toEqual({ volumes: 1, snapshots: 1, gigabytes: 6 });
    expect(await used(api, DONOR)).toEqual({ volumes: 0, snapshots: 0, gigabytes: 0 });
    expect((await accept(api, id, auth_key)).status).toBe(404);
  });

  test('without snapshots leaves them to the donor, who goes on using them; the volume then keeps them from nobody', async () => {
    await using api = await Api.open();
    const volume = await api.createVolume({ size: 2 });
    const snapshot = await api.createSnapshot(volume);
    const { id, auth_key } = await offer(api, volume, { no_snapshots: true });
    expect((await accept(api, id, auth_key)).status).toBe(202);
    expect([await ownerOf(api, 'volume', volume), await ownerOf(api, 'snapshot', snapshot)]).toEqual(['p2', DONOR]);
    expect(await used(api, DONOR)).toEqual({ volumes: 0, snapshots: 1, gigabytes: 2 });
    const refused = await api.ask('DELETE', `/v3/p2/volumes/${volume}?cascade=true`);
    expect(refused.body.badRequest.message).toContain('snapshots of another project');
    await api.createVolume({ snapshot_id: snapshot, size: 2 });
    expect((await api.ask('DELETE', `/v3/snapshots/${snapshot}`)).status).toBe(202);
    await api.settle();
    expect((await api.ask('DELETE', `/v3/p2/volumes/${volume}`)).status).toBe(202);
  });

  test('with a wrong key is 400 and changes nothing', async () => {
    await using api = await Api.open();
    const volume = await api.createVolume();
    const { id, auth_key } = await offer(api, volume);
    for (const key of ['', auth_key.slice(1), `${auth_key}0`, auth_key.toUpperCase().replace(/[A-F]?$/, '_'), 12345]) {
      const { status, body } = await accept(api, id, key);
      expect([status, body.badRequest.message]).toEqual([
        400,
        `Invalid auth key: Attempt to transfer ${id} with invalid auth key.`,
      ]);
    }
    expect(await api.status(volume)).toBe('awaiting-transfer');
    expect(await ownerOf(api, 'volume', volume)).toBe(DONOR);
    expect((await accept(api, id, auth_key)).status).toBe(202);
  });

  test.each([
    ['volumes', 0],
    ['gigabytes', 3],
    ['snapshots', 0],
    ['per_volume_gigabytes', 1],
    ['volumes___DEFAULT__', 0],
  ])('over the quota of %s is 413 and moves nothing', async (resource, limit) => {
    await using api = await Api.open();
    const volume = await api.createVolume({ size: 2 });
    const snapshot = await api.createSnapshot(volume);
    const { id, auth_key } = await offer(api, volume);
    await api.ask('PUT', '/v3/os-quota-sets/p2', { body: { quota_set: { [resource]: limit } } });
    const { status, body, headers } = await accept(api, id, auth_key);
    expect([status, Object.keys(body), headers['retry-after']]).toEqual([413, ['overLimit'], '0']);
    expect(await api.status(volume)).toBe('awaiting-transfer');
    expect([await ownerOf(api, 'volume', volume), await ownerOf(api, 'snapshot', snapshot)]).toEqual([DONOR, DONOR]);
    expect(await used(api, 'p2')).toEqual({ volumes: 0, snapshots: 0, gigabytes: 0 });
  });

  test('into the own project needs no room in its quota', async () => {
    await using api = await Api.open();
    const volume = await api.createVolume({ size: 2 });
    const { id, auth_key } = await offer(api, volume);
    await api.ask('PUT', `/v3/os-quota-sets/${DONOR}`, { body: { quota_set: { volumes: 1, gigabytes: 2 } } });
    expect((await accept(api, id, auth_key, DONOR)).status).toBe(202);
    expect(await used(api, DONOR)).toMatchObject({ volumes: 1, gigabytes: 2 });
  });

  test('is for one of two who race', async () => {
    await using api = await Api.open();
    const volume = await api.createVolume();
    const { id, auth_key } = await offer(api, volume);
    const replies = await Promise.all(['p2', 'p3'].map((project) => accept(api, id, auth_key, project)));
    expect(replies.map((reply) => reply.status).sort()).toEqual([202, 404]);
    const winner = replies[0]?.status === 202 ? 'p2' : 'p3';
    expect(await ownerOf(api, 'volume', volume)).toBe(winner);
    expect(await used(api, winner === 'p2' ? 'p3' : 'p2')).toMatchObject({ volumes: 0 });
  });

  test('is refused while a client of the donor is connected, or when the volume is no longer on offer', async () => {
    await using api = await Api.open();
    const volume = await api.createVolume();
    const { id, auth_key } = await offer(api, volume);
    api.world.backend.connect(volume);
    expect((await accept(api, id, auth_key)).status).toBe(400);
    api.world.backend.disconnect(volume);
    await api.act(volume, { 'os-reset_status': { status: 'available' } });
    expect((await accept(api, id, auth_key)).body.badRequest.message).toMatch(/^Invalid volume: .*awaiting-transfer/);
    const again = await offer(api, volume);
    expect((await accept(api, id, auth_key)).status).toBe(404);
    expect((await accept(api, again.id, again.auth_key)).status).toBe(202);
  });
});

test('offers of other projects do not exist for a member', async () => {
  await using api = await Api.open();
  const { id } = await offer(api, await api.createVolume());
  const { control } = api.world;
  const member = { ...CALLER, role: 'member', isAdmin: false } as const;
  await expect(getTransfer(control, member, id)).rejects.toMatchObject({ code: 'not_found' });
  await expect(deleteTransfer(control, member, id)).rejects.toMatchObject({ code: 'not_found' });
  const reader = { ...member, projectId: DONOR, role: 'reader' } as const;
  expect(await getTransfer(control, reader, id)).toMatchObject({ id });
  await expect(deleteTransfer(control, reader, id)).rejects.toMatchObject({ code: 'forbidden' });
  await deleteTransfer(control, { ...reader, role: 'member' }, id);
});

test('offers are listed oldest first, and from 3.59 in pages, newest first', async () => {
  await using api = await Api.open();
  const ids: string[] = [];
  for (const name of ['a', 'b', 'c']) ids.push((await offer(api, await api.createVolume(), { name })).id);
  const list = async (url: string, minor: number) =>
    (await api.ask('GET', url, { minor })).body.transfers.map((item: { name: string }) => item.name);
  expect(await list('/v3/os-volume-transfer', 71)).toEqual(['a', 'b', 'c']);
  expect(await list('/v3/volume-transfers', 58)).toEqual(['a', 'b', 'c']);
  expect(await list('/v3/volume-transfers', 59)).toEqual(['c', 'b', 'a']);
  expect(await list('/v3/volume-transfers?sort=name:asc&limit=2', 59)).toEqual(['a', 'b']);
  expect(await list(`/v3/volume-transfers?marker=${ids[1]}`, 59)).toEqual(['a']);
  expect(await list('/v3/volume-transfers/detail?name=b', 59)).toEqual(['b']);
  expect(await list('/v3/p2/volume-transfers', 59)).toEqual([]);
  expect(await list('/v3/p2/volume-transfers?all_tenants=1', 59)).toHaveLength(3);
});

test('a volume that is deleted by force takes its offer with it', async () => {
  await using api = await Api.open();
  const volume = await api.createVolume();
  const { id } = await offer(api, volume);
  await api.act(volume, { 'os-force_delete': {} });
  expect(await api.status(volume)).toBe(404);
  expect((await api.ask('GET', `/v3/volume-transfers/${id}`, { minor: 71 })).status).toBe(404);
});
