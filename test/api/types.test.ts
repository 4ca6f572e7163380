import { randomUUID } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import type { Asked } from '../../src/api/asked.ts';
import { typeView } from '../../src/api/views/types.ts';
import { allTypes, getType } from '../../src/control/types.ts';
import { createVolume } from '../../src/control/volumes.ts';
import { CALLER, NEW_VOLUME } from '../control/world.ts';
import { Api, type Reply } from './api.ts';
import { as, ONE, people } from './people.ts';

const PROJECT = '00000000000000000000000000000001';
const MEMBER = { projectId: 'p2', userId: 'u2', role: 'member', isAdmin: false, isService: false } as const;

async function makeType(api: Api, name: string, fields: Record<string, unknown> = {}): Promise<string> {
  const { status, body } = await api.ask('POST', '/v3/types', { body: { volume_type: { name, ...fields } } });
  if (status !== 200) throw new Error(`${status}: ${JSON.stringify(body)}`);
  return body.volume_type.id;
}

const names = ({ body }: Reply): string[] => body.volume_types.map(({ name }: { name: string }) => name);

describe('volume types', () => {
  test('are made, shown, changed and deleted', async () => {
    await using api = await Api.open();
    const created = await api.ask('POST', '/v3/types', {
      body: { volume_type: { name: ' gold ', description: 'fast', extra_specs: { vendor_name: 'Quarry' } } },
    });
    expect(created.status).toBe(200);
    const { id } = created.body.volume_type;
    expect(created.body.volume_type).toEqual({
      id,
      name: 'gold',
      description: 'fast',
      is_public: true,
      extra_specs: { vendor_name: 'Quarry' },
      'os-volume-type-access:is_public': true,
    });
    const shown = await api.ask('GET', `/v3/types/${id}`);
    expect(shown.body.volume_type).toEqual({ ...created.body.volume_type, qos_specs_id: null });
    const changed = await api.ask('PUT', `/v3/types/${id}`, {
      body: { volume_type: { name: 'silver', is_public: false } },
    });
    expect(changed.body.volume_type).toEqual({
      id,
      name: 'silver',
      description: 'fast',
      is_public: false,
      extra_specs: { vendor_name: 'Quarry' },
    });
    const deleted = await api.ask('DELETE', `/v3/types/${id}`);
    expect([deleted.status, deleted.body]).toEqual([202, '']);
    expect((await api.ask('GET', `/v3/types/${id}`)).status).toBe(404);
    expect((await api.ask('DELETE', `/v3/types/${id}`)).status).toBe(404);
  });

  test('refuse a taken name, a name of spaces, nothing to change and unknown fields, and change nothing', async () => {
    await using api = await Api.open();
    const id = await makeType(api, 'one');
    await makeType(api, 'two');
    const put = (volume_type: object) => api.ask('PUT', `/v3/types/${id}`, { body: { volume_type } });
    const post = (volume_type: object) => api.ask('POST', '/v3/types', { body: { volume_type } });
    expect((await post({ name: 'two' })).body.conflictingRequest.message).toBe('Volume Type two already exists.');
    expect((await put({ name: 'two' })).status).toBe(409);
    expect((await put({ name: '  ' })).body.badRequest.message).toContain('can not be empty');
    expect((await put({})).body.badRequest.message).toContain('Specify volume type name, description, is_public');
    expect((await post({})).status).toBe(400);
    expect((await post({ name: 'three', colour: 'red' })).status).toBe(400);
    expect((await post({ name: 'three', extra_specs: { 'a b': 'c' } })).status).toBe(400);
    expect((await put({ name: 'one' })).status).toBe(200);
    expect(names(await api.ask('GET', '/v3/types'))).toEqual(['two', 'one', '__DEFAULT__']);
  });

  test('are kept while volumes or their snapshots are of them, and defaults always', async () => {
    await using api = await Api.open();
    const id = await makeType(api, 'used');
    const volume = await api.createVolume({ volume_type: 'used' });
    const refused = await api.ask('DELETE', `/v3/types/${id}`);
    expect([refused.status, refused.body.badRequest.message]).toEqual([
      400,
      'Target volume type is still in use. (There are volumes of type used.)',
    ]);
    const specs = { body: { extra_specs: { a: 'b' } } };
    expect((await api.ask('POST', `/v3/types/${id}/extra_specs`, specs)).body.badRequest.message).toContain(
      'Volume Type is currently in use.',
    );
    await api.ask('DELETE', `/v3/volumes/${volume}`);
    await api.settle();
    const own = `/v3/default-types/${PROJECT}`;
    await api.ask('PUT', own, { body: { default_type: { volume_type: 'used' } }, minor: 62 });
    expect((await api.ask('DELETE', `/v3/types/${id}`)).body.badRequest.message).toContain('is a default volume type');
    await api.ask('DELETE', own, { minor: 62 });
    expect((await api.ask('DELETE', `/v3/types/${id}`)).status).toBe(202);
    const { body } = await api.ask('GET', '/v3/types/default');
    expect((await api.ask('DELETE', `/v3/types/${body.volume_type.id}`)).status).toBe(400);
    const renamed = { body: { volume_type: { name: 'other' } } };
    expect((await api.ask('PUT', `/v3/types/${body.volume_type.id}`, renamed)).status).toBe(400);
  });

  test('are listed by page, order and filters', async () => {
    await using api = await Api.open();
    await makeType(api, 'c', { extra_specs: { tier: 'hot', kind: 'ssd' } });
    await makeType(api, 'a', { extra_specs: { tier: 'cold' } });
    await makeType(api, 'b', { 'os-volume-type-access:is_public': false });
    expect(names(await api.ask('GET', '/v3/types'))).toEqual(['a', 'c', '__DEFAULT__']);
    expect(names(await api.ask('GET', '/v3/types?is_public=None&sort=name:asc'))).toEqual([
      '__DEFAULT__',
      'a',
      'b',
      'c',
    ]);
    expect(names(await api.ask('GET', '/v3/types?is_public=false'))).toEqual(['b']);
    expect((await api.ask('GET', '/v3/types?is_public=perhaps')).status).toBe(400);
    const hot = `extra_specs=${encodeURIComponent("{'tier': 'hot'}")}`;
    expect(names(await api.ask('GET', `/v3/types?${hot}`, { minor: 52 }))).toEqual(['c']);
    expect(names(await api.ask('GET', '/v3/types?boats=3'))).toEqual([]);
    const first = await api.ask('GET', '/v3/types?limit=2&sort=name:asc&is_public=None');
    expect(names(first)).toEqual(['__DEFAULT__', 'a']);
    const [{ href }] = first.body.volume_type_links;
    const { pathname, search } = new URL(href);
    expect(names(await api.ask('GET', pathname + search))).toEqual(['b', 'c']);
    expect((await api.ask('GET', `/v3/types?marker=${randomUUID()}`)).status).toBe(404);
    expect((await api.ask('GET', '/v3/types?sort=colour')).status).toBe(400);
    expect((await api.ask('GET', '/v3/types/a')).status).toBe(404);
  });

  test('show a member public types, those shared with the project, and no extra specs but those meant for users', async () => {
    await using api = await Api.open();
    const extra_specs = { multiattach: '<is> True', vendor_name: 'Quarry' };
    const secret = await makeType(api, 'secret', { 'os-volume-type-access:is_public': false, extra_specs });
    const { control } = api.world;
    const seen = async () => (await allTypes(control, MEMBER)).map(({ name }) => name);
    expect(await seen()).toEqual(['__DEFAULT__']);
    await expect(getType(control, MEMBER, secret)).rejects.toMatchObject({ code: 'not_found' });
    const wanted = { ...NEW_VOLUME, type: 'secret' };
    await expect(createVolume(control, MEMBER, wanted)).rejects.toMatchObject({ code: 'not_found' });
    const access = { body: { addProjectAccess: { project: MEMBER.projectId } } };
    expect((await api.ask('POST', `/v3/types/${secret}/action`, access)).status).toBe(202);
    expect(await seen()).toEqual(['secret', '__DEFAULT__']);
    const type = await getType(control, MEMBER, secret);
    const asked: Asked = { caller: MEMBER, minor: 71, root: '', urlProject: null };
    expect(typeView(asked, type, 'read')).toEqual({
      id: secret,
      name: 'secret',
      description: null,
      is_public: false,
      'os-volume-type-access:is_public': false,
      extra_specs: { multiattach: '<is> True' },
    });
    expect(typeView({ ...asked, caller: CALLER }, type, 'read')).toMatchObject({ extra_specs, qos_specs_id: null });
  });
});

test('a member’s answers have no more than members may see', async () => {
  await using api = await Api.open({ server: { authenticator: people() } });
  const [admin, member] = [as('admin'), as('member')];
  const extra_specs = { multiattach: '<is> True', storage_protocol: 'nbd' };
  const volume_type = { name: 'private', extra_specs, 'os-volume-type-access:is_public': false };
  const made = await api.ask('POST', '/v3/types', { headers: admin, body: { volume_type } });
  const path = `/v3/types/${made.body.volume_type.id}`;
  expect((await api.ask('GET', path, { headers: member })).status).toBe(404);
  const wanted = { volume: { size: 1, volume_type: 'private' } };
  expect((await api.ask('POST', '/v3/volumes', { headers: member, body: wanted })).status).toBe(404);
  const access = { addProjectAccess: { project: ONE } };
  expect((await api.ask('POST', `${path}/action`, { headers: member, body: access })).status).toBe(403);
  expect((await api.ask('POST', `${path}/action`, { headers: admin, body: access })).status).toBe(202);
  const { body } = await api.ask('GET', '/v3/types?is_public=false', { headers: member });
  expect(body.volume_types.map(({ name }: { name: string }) => name)).toEqual(['private', '__DEFAULT__']);
  expect(body.volume_types[0]).not.toHaveProperty('qos_specs_id');
  expect(body.volume_types[0].extra_specs).toEqual({ multiattach: '<is> True' });
  expect((await api.ask('GET', `${path}/extra_specs`, { headers: member })).body).toEqual({
    extra_specs: { multiattach: '<is> True' },
  });
  expect((await api.ask('GET', `${path}/extra_specs/storage_protocol`, { headers: member })).status).toBe(404);
  const hidden = `/v3/types?extra_specs=${encodeURIComponent("{'storage_protocol': 'nbd'}")}`;
  expect((await api.ask('GET', hidden, { headers: member, minor: 52 })).body.volume_types).toEqual([]);
  expect((await api.ask('GET', hidden, { headers: member, minor: 51 })).body.volume_types).toHaveLength(2);
  expect((await api.ask('POST', '/v3/volumes', { headers: member, body: wanted })).status).toBe(202);
  await api.settle();
});

describe('extra specs', () => {
  test('are merged, shown, replaced and removed key by key', async () => {
    await using api = await Api.open();
    const path = `/v3/types/${await makeType(api, 'spec')}/extra_specs`;
    const sent = { extra_specs: { a: '1', 'scope:b': '2' } };
    expect((await api.ask('POST', path, { body: sent })).body).toEqual(sent);
    await api.ask('POST', path, { body: { extra_specs: { c: '3' } } });
    expect((await api.ask('GET', path)).body).toEqual({ extra_specs: { a: '1', 'scope:b': '2', c: '3' } });
    expect((await api.ask('PUT', `${path}/a`, { body: { a: '9' } })).body).toEqual({ a: '9' });
    expect((await api.ask('GET', `${path}/a`)).body).toEqual({ a: '9' });
    expect((await api.ask('PUT', `${path}/a`, { body: { b: '9' } })).body.badRequest.message).toBe(
      'Request body and URI mismatch',
    );
    expect((await api.ask('PUT', `${path}/a`, { body: { a: '1', b: '2' } })).status).toBe(400);
    expect((await api.ask('PUT', `${path}/a`, { body: { a: null } })).status).toBe(400);
    expect((await api.ask('DELETE', `${path}/a`)).status).toBe(202);
    expect((await api.ask('DELETE', `${path}/a`)).status).toBe(404);
    expect((await api.ask('GET', `${path}/a`)).status).toBe(404);
    expect((await api.ask('GET', `${path}/constructor`)).status).toBe(404);
    const both = { body: { extra_specs: { multiattach: '<is> True', cacheable: '<is> True' } } };
    expect((await api.ask('POST', path, both)).status).toBe(400);
    expect((await api.ask('GET', path)).body).toEqual({ extra_specs: { 'scope:b': '2', c: '3' } });
  });
});

describe('access to private types', () => {
  test('is given once, taken once, and is no matter of public types', async () => {
    await using api = await Api.open();
    const id = await makeType(api, 'private', { 'os-volume-type-access:is_public': false });
    const open = await makeType(api, 'open');
    const act = async (type: string, action: string) =>
      (await api.ask('POST', `/v3/types/${type}/action`, { body: { [action]: { project: 'p2' } } })).status;
    const list = `/v3/types/${id}/os-volume-type-access`;
    expect((await api.ask('GET', list)).body).toEqual({ volume_type_access: [] });
    expect(await act(id, 'addProjectAccess')).toBe(202);
    expect(await act(id, 'addProjectAccess')).toBe(409);
    expect((await api.ask('GET', list)).body).toEqual({
      volume_type_access: [{ volume_type_id: id, project_id: 'p2' }],
    });
    expect(await act(id, 'removeProjectAccess')).toBe(202);
    expect(await act(id, 'removeProjectAccess')).toBe(404);
    expect(await act(open, 'addProjectAccess')).toBe(400);
    expect(await act(open, 'removeProjectAccess')).toBe(400);
    expect((await api.ask('GET', `/v3/types/${open}/os-volume-type-access`)).status).toBe(404);
    expect(await act(id, 'noSuchAction')).toBe(400);
  });
});

describe('encryption records', () => {
  test('are made once, read bare, changed by their id and removed', async () => {
    await using api = await Api.open();
    const path = `/v3/types/${await makeType(api, 'crypt')}/encryption`;
    expect((await api.ask('GET', path)).body).toEqual({});
    const encryption = { provider: 'luks', control_location: 'front-end', cipher: 'aes-xts-plain64', key_size: 256 };
    const created = await api.ask('POST', path, { body: { encryption } });
    expect(created.body.encryption).toMatchObject(encryption);
    expect((await api.ask('POST', path, { body: { encryption } })).status).toBe(400);
    const { body } = await api.ask('GET', path);
    expect(body).toMatchObject({ ...encryption, deleted: false, updated_at: null });
    expect((await api.ask('GET', `${path}/cipher`)).body).toEqual({ cipher: 'aes-xts-plain64' });
    expect((await api.ask('GET', `${path}/colour`)).status).toBe(404);
    const change = { body: { encryption: { key_size: '512' } } };
    expect((await api.ask('PUT', `${path}/${randomUUID()}`, change)).status).toBe(404);
    expect((await api.ask('PUT', `${path}/${body.encryption_id}`, change)).body).toEqual({
      encryption: { key_size: 512 },
    });
    expect((await api.ask('GET', path)).body).toMatchObject({ ...encryption, key_size: 512 });
    expect((await api.ask('POST', path, { body: { encryption: { provider: 'luks' } } })).status).toBe(400);
    expect((await api.ask('DELETE', `${path}/${body.encryption_id}`)).status).toBe(202);
    expect((await api.ask('GET', path)).body).toEqual({});
    expect((await api.ask('DELETE', `${path}/${body.encryption_id}`)).status).toBe(404);
  });
});

describe('default types of projects', () => {
  test('decide which type a volume without one gets, from 3.62', async () => {
    await using api = await Api.open();
    const id = await makeType(api, 'ours');
    const own = `/v3/default-types/${PROJECT}`;
    const put = (volume_type: string) => api.ask('PUT', own, { body: { default_type: { volume_type } }, minor: 62 });
    expect((await api.ask('GET', '/v3/default-types', { minor: 61 })).status).toBe(404);
    expect((await api.ask('GET', own, { minor: 62 })).status).toBe(404);
    expect((await put('nowhere')).status).toBe(400);
    const answer = { project_id: PROJECT, volume_type_id: id };
    expect((await put('ours')).body).toEqual({ default_type: answer });
    expect((await put(id)).body).toEqual({ default_type: answer });
    expect((await api.ask('GET', '/v3/default-types', { minor: 62 })).body).toEqual({ default_types: [answer] });
    expect((await api.ask('GET', '/v3/types/default')).body.volume_type.name).toBe('ours');
    const volume = await api.createVolume();
    expect((await api.ask('GET', `/v3/volumes/${volume}`)).body.volume.volume_type).toBe('ours');
    expect((await api.ask('DELETE', own, { minor: 62 })).status).toBe(204);
    const plain = await api.createVolume({ volume_type: '' });
    expect((await api.ask('GET', `/v3/volumes/${plain}`)).body.volume.volume_type).toBe('__DEFAULT__');
  });
});
