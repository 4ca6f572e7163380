import { describe, expect, test } from 'vitest';
import { getGroup, resetGroup, updateGroup } from '../../src/control/groups.ts';
import { setDefaultExtraSpecs } from '../control/types.ts';
import { CALLER, type WorldOptions } from '../control/world.ts';
import { Api, type Reply } from './api.ts';

const NOBODY = '6a1c2c3e-0000-4000-8000-000000000000';

/** An API with a group of two volumes; every request in the newest microversion. */
class Groups implements AsyncDisposable {
  readonly api: Api;
  typeId = '';
  groupId = '';
  volumes: string[] = [];

  private constructor(api: Api) {
    this.api = api;
  }

  static async with(options: WorldOptions & { isConsistent?: boolean } = {}): Promise<Groups> {
    const api = new Groups(await Api.open(options));
    const group_specs = { consistent_group_snapshot_enabled: options.isConsistent ? '<is> True' : '<is> False' };
    const type = await api.do('POST', '/group_types', { group_type: { name: 'gt', group_specs } });
    api.typeId = type.body.group_type.id;
    api.groupId = await api.createGroup();
    for (const size of [1, 2]) api.volumes.push(await api.createVolumeIn(api.groupId, { size }));
    return api;
  }

  do(method: string, path: string, body?: unknown, minor = 71): Promise<Reply> {
    return this.api.ask(method, `/v3${path}`, { minor, ...(body !== undefined && { body }) });
  }

  async createGroup(fields: Record<string, unknown> = {}): Promise<string> {
    const group = { group_type: this.typeId, volume_types: ['__DEFAULT__'], ...fields };
    const { status, body } = await this.do('POST', '/groups', { group });
    if (status !== 202) throw new Error(`${status}: ${JSON.stringify(body)}`);
    return body.group.id;
  }

  async createVolumeIn(groupId: string, fields: Record<string, unknown> = {}): Promise<string> {
    const volume = { size: 1, volume_type: '__DEFAULT__', group_id: groupId, ...fields };
    const { status, body } = await this.do('POST', '/volumes', { volume });
    if (status !== 202) throw new Error(`${status}: ${JSON.stringify(body)}`);
    await this.api.settle();
    return body.volume.id;
  }

  async groupAct(id: string, body: unknown, minor = 71): Promise<Reply> {
    const reply = await this.do('POST', `/groups/${id}/action`, body, minor);
    await this.api.settle();
    return reply;
  }

  async snapshotGroup(): Promise<string> {
    const group_snapshot = { group_id: this.groupId, name: 'gs' };
    const { status, body } = await this.do('POST', '/group_snapshots', { group_snapshot });
    if (status !== 202) throw new Error(`${status}: ${JSON.stringify(body)}`);
    await this.api.settle();
    return body.group_snapshot.id;
  }

  async show(id: string, minor = 71) {
    const { status, body } = await this.do('GET', `/groups/${id}?list_volume=true`, undefined, minor);
    return status === 200 ? body.group : status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.api[Symbol.asyncDispose]();
  }

  async copy(source: Record<string, string | null>): Promise<Reply> {
    const reply = await this.do('POST', '/groups/action', { 'create-from-src': { name: ' copy ', ...source } });
    await this.api.settle();
    return reply;
  }
}

const message = ({ status, body }: Reply): [number, string] => [
  status,
  (Object.values(body)[0] as { message: string }).message,
];

describe('a copy of a group', () => {
  test('has the limits of speed of its volumes and counts against the quotas', async () => {
    await using api = await Groups.with({ quotaDefaults: { volumes: 4 } });
    const specs = { name: 'slow', consumer: 'back-end', total_iops_sec: '100' };
    const { id } = (await api.do('POST', '/qos-specs', { qos_specs: specs })).body.qos_specs;
    const [type] = (await api.do('GET', '/types')).body.volume_types;
    await api.do('GET', `/qos-specs/${id}/associate?vol_type_id=${type.id}`);
    await api.api.settle();
    const copied = await api.copy({ source_group_id: api.groupId });
    expect(copied.status).toBe(202);
    const { volumes } = await api.show(copied.body.group.id);
    expect(volumes).toHaveLength(2);
    for (const volume of volumes) expect(api.api.world.backend.limitsOf(volume)).toEqual({ totalIopsSec: 100 });
    const groups = (await api.do('GET', '/groups')).body.groups.length;
    const refused = message(await api.copy({ source_group_id: api.groupId }));
    expect(refused).toEqual([413, expect.stringMatching(/^VolumeLimitExceeded: .*\(4\)/)]);
    expect((await api.do('GET', '/groups')).body.groups).toHaveLength(groups);
    expect((await api.do('GET', '/volumes')).body.volumes).toHaveLength(4);
  });

  test('is refused where its volumes are larger than their type now allows', async () => {
    await using api = await Groups.with();
    const extra_specs = { 'provisioning:max_vol_size': '1' };
    await setDefaultExtraSpecs(api.api.world.control, extra_specs);
    const refused = message(await api.copy({ source_group_id: api.groupId }));
    expect(refused).toEqual([400, expect.stringContaining("greater than the maximum allowable size of '1' GB")]);
    expect((await api.do('GET', '/volumes')).body.volumes).toHaveLength(2);
  });

  test('is not deleted with its volumes while one of them has an export', async () => {
    await using api = await Groups.with();
    const [volume = ''] = api.volumes;
    const connector = { host: 'h' };
    await api.api.act(volume, { 'os-initialize_connection': { connector } });
    const going = { delete: { 'delete-volumes': true } };
    expect(message(await api.groupAct(api.groupId, going))).toEqual([
      400,
      expect.stringContaining("exported to host 'h'"),
    ]);
    expect(await api.api.status(volume)).toBe('available');
    await api.api.act(volume, { 'os-terminate_connection': { connector } });
    expect((await api.groupAct(api.groupId, going)).status).toBe(202);
    expect(await api.show(api.groupId)).toBe(404);
  });
});

describe('a group', () => {
  test('has its volumes, types and the fields of its microversion', async () => {
    await using api = await Groups.with();
    const group = await api.show(api.groupId);
    const [type] = (await api.api.ask('GET', '/v3/types')).body.volume_types;
    expect(group).toMatchObject({
      ...{ id: api.groupId, status: 'available', group_type: api.typeId, volume_types: [type.id] },
      ...{ volumes: api.volumes, availability_zone: 'nova', group_snapshot_id: null, source_group_id: null },
      ...{ replication_status: 'disabled', project_id: '00000000000000000000000000000001' },
    });
    expect(Object.keys(await api.show(api.groupId, 13)).sort()).toEqual([
      'availability_zone',
      'created_at',
      'description',
      'group_type',
      'id',
      'name',
      'status',
      'volume_types',
    ]);
    expect(await api.show(api.groupId, 24)).not.toHaveProperty('volumes');
    expect(await api.show(api.groupId, 57)).not.toHaveProperty('project_id');
    expect((await api.do('GET', '/groups', undefined, 12)).status).toBe(404);
    const { body } = await api.do('GET', `/volumes/detail?group_id=${api.groupId}`);
    expect(body.volumes.map((volume: { id: string }) => volume.id).sort()).toEqual([...api.volumes].sort());
    expect(body.volumes[0].group_id).toBe(api.groupId);
  });

  test('is listed in pages, by name and with its volumes', async () => {
    await using api = await Groups.with();
    for (const name of ['a', 'b']) await api.createGroup({ name });
    const list = async (path: string) => (await api.do('GET', path)).body;
    expect((await list('/groups')).groups.map(({ name }: { name: string }) => name)).toEqual(['b', 'a', null]);
    expect(Object.keys((await list('/groups')).groups[0])).toEqual(['id', 'name']);
    const page = await list('/groups/detail?limit=2&sort=name:asc&list_volume=true');
    expect(page.groups.map(({ volumes }: { volumes: string[] }) => volumes.length)).toEqual([2, 0]);
    expect(page.group_links[0].href).toContain(`marker=${page.groups[1].id}`);
    expect((await list('/groups/detail?name=a')).groups).toHaveLength(1);
    expect((await list('/p2/groups')).groups).toEqual([]);
    expect((await list('/p2/groups?all_tenants=1')).groups).toHaveLength(3);
  });

  test.each([
    [{ volume_types: ['__DEFAULT__'], group_type: 'nobody' }, 404],
    [{ volume_types: ['nobody'] }, 404],
    [{ volume_types: [] }, 400],
    [{ group_type: 'default_cgsnapshot_type' }, 400],
    [{ availability_zone: 'mars' }, 400],
    [{ name: 'n'.repeat(256) }, 400],
    [{ colour: 'red' }, 400],
  ])('cannot be made of %j', async (fields, status) => {
    await using api = await Groups.with();
    const group = { group_type: api.typeId, volume_types: ['__DEFAULT__'], ...fields };
    expect((await api.do('POST', '/groups', { group })).status).toBe(status);
    expect((await api.do('GET', '/groups')).body.groups).toHaveLength(1);
  });

  test('counts against the quota of groups', async () => {
    await using api = await Groups.with();
    const project = '00000000000000000000000000000001';
    await api.do('PUT', `/os-quota-sets/${project}`, { quota_set: { groups: 1 } });
    const { status, body } = await api.do('POST', '/groups', {
      group: { group_type: 'gt', volume_types: ['__DEFAULT__'] },
    });
    expect([status, body.overLimit.message]).toEqual([
      413,
      'GroupLimitExceeded: Maximum number of groups allowed (1) exceeded.',
    ]);
    expect((await api.copy({ source_group_id: api.groupId })).status).toBe(413);
    const use = await api.do('GET', `/os-quota-sets/${project}?usage=true`);
    expect(use.body.quota_set.groups).toEqual({ limit: 1, in_use: 1, reserved: 0 });
  });

  test('takes in and lets go volumes, all or none, and changes its words', async () => {
    await using api = await Groups.with();
    const [first = '', second = ''] = api.volumes;
    const other = await api.api.createVolume();
    const put = (group: unknown) => api.do('PUT', `/groups/${api.groupId}`, { group });
    expect((await put({ name: ' new ', description: 'd' })).status).toBe(202);
    expect(await api.show(api.groupId)).toMatchObject({ name: 'new', description: 'd', status: 'available' });
    expect((await put({ add_volumes: other, remove_volumes: `${first},` })).status).toBe(202);
    expect((await api.show(api.groupId)).volumes.sort()).toEqual([second, other].sort());
    for (const [group, text] of [
      [{ name: 'new' }, 'no valid name'],
      [{ add_volumes: other }, 'no valid name'],
      [{ add_volumes: first, remove_volumes: first }, 'both add and remove'],
      [{ remove_volumes: first }, 'not in the group'],
      [{ add_volumes: `${first},${NOBODY}` }, 'cannot be found'],
    ] as const)
      expect(message(await put(group)), JSON.stringify(group)).toEqual([400, expect.stringContaining(text)]);
    const rival = await api.createGroup();
    expect(message(await api.do('PUT', `/groups/${rival}`, { group: { add_volumes: second } }))).toEqual([
      400,
      expect.stringContaining(`already in group ${api.groupId}`),
    ]);
    const theirs = (await api.api.ask('POST', '/v3/p2/volumes', { body: { volume: { size: 1 } } })).body.volume.id;
    await api.api.settle();
    expect(message(await put({ add_volumes: theirs }))).toEqual([400, expect.stringContaining('cannot be found')]);
    await api.api.act(first, { 'os-reset_status': { status: 'error' } });
    expect(message(await put({ add_volumes: first }))).toEqual([400, expect.stringContaining('invalid state: error')]);
    expect((await api.show(api.groupId)).volumes.sort()).toEqual([second, other].sort());
    expect((await api.do('PUT', `/groups/${NOBODY}`, { group: { name: 'x' } })).status).toBe(404);
  });

  test('is created in only by volumes of its types, explicitly', async () => {
    await using api = await Groups.with();
    const ask = (fields: Record<string, unknown>) => api.do('POST', '/volumes', { volume: { size: 1, ...fields } });
    expect(message(await ask({ group_id: api.groupId }))).toEqual([
      400,
      expect.stringContaining('volume_type must be provided'),
    ]);
    expect((await ask({ group_id: NOBODY, volume_type: '__DEFAULT__' })).status).toBe(404);
    await api.groupAct(api.groupId, { reset_status: { status: 'error' } });
    expect((await ask({ group_id: api.groupId, volume_type: '__DEFAULT__' })).status).toBe(400);
    const old = await api.do('POST', '/volumes', { volume: { size: 1, group_id: NOBODY } }, 12);
    expect(old.status).toBe(202);
  });

  test('keeps its volumes from being deleted, retyped and transferred alone', async () => {
    await using api = await Groups.with();
    const [volume = ''] = api.volumes;
    for (const reply of [
      await api.do('DELETE', `/volumes/${volume}?cascade=true`),
      await api.api.act(volume, { 'os-force_delete': {} }),
      await api.api.act(volume, { 'os-retype': { new_type: '__DEFAULT__' } }),
      await api.do('POST', '/volume-transfers', { transfer: { volume_id: volume } }),
    ])
      expect(message(reply)).toEqual([400, expect.stringMatching(/^Invalid volume: .*group/)]);
    expect(await api.api.status(volume)).toBe('available');
  });
});

describe('deleting a group', () => {
  test('takes its volumes along where that is said, and else is refused', async () => {
    await using api = await Groups.with();
    expect(message(await api.groupAct(api.groupId, { delete: {} }))).toEqual([
      400,
      expect.stringMatching(/^Invalid Group: .*still contains volumes/),
    ]);
    expect((await api.groupAct(api.groupId, { delete: { 'delete-volumes': true } })).status).toBe(202);
    expect(await api.show(api.groupId)).toBe(404);
    for (const id of api.volumes) expect(await api.api.status(id)).toBe(404);
    expect(api.api.world.backend.ids()).toEqual([]);
    const empty = await api.createGroup();
    expect((await api.groupAct(empty, { delete: { 'delete-volumes': false } })).status).toBe(202);
    expect(await api.show(empty)).toBe(404);
  });

  test('is refused while something hangs on it, and then nothing has changed', async () => {
    await using api = await Groups.with();
    const [volume = ''] = api.volumes;
    const refused = async (text: string) => {
      const reply = await api.groupAct(api.groupId, { delete: { 'delete-volumes': true } });
      expect(message(reply)).toEqual([400, expect.stringContaining(text)]);
      expect(await api.show(api.groupId)).toMatchObject({ status: 'available' });
    };
    const snapshot = await api.api.createSnapshot(volume);
    await refused('dependent snapshots');
    await api.do('DELETE', `/snapshots/${snapshot}`);
    await api.api.settle();
    await api.api.act(volume, { 'os-attach': { host_name: 'h', mountpoint: '/dev/vdb' } });
    await refused('attached');
    await api.api.act(volume, { 'os-detach': {} });
    api.api.world.backend.connect(volume);
    await refused('1 NBD client');
    api.api.world.backend.disconnect(volume);
    const groupSnapshot = await api.snapshotGroup();
    await refused('existing snapshots');
    await api.do('DELETE', `/group_snapshots/${groupSnapshot}`);
    await api.api.settle();
    expect((await api.groupAct(api.groupId, { delete: { 'delete-volumes': 'yes' } })).status).toBe(202);
    expect(await api.show(api.groupId)).toBe(404);
  });
});

describe('a snapshot of a group', () => {
  test.each([true, false])(
    'has one of each volume (at one instant: %s), and they go together',
    async (isConsistent) => {
      const calls: string[] = [];
      await using api = await Groups.with({
        isConsistent,
        aroundBackend: (backend) =>
          new Proxy(backend, {
            get(target, name) {
              if (String(name).startsWith('createSnapshot')) calls.push(String(name));
              const value: unknown = Reflect.get(target, name, target);
              return typeof value === 'function' ? value.bind(target) : value;
            },
          }),
      });
      const id = await api.snapshotGroup();
      expect(calls).toEqual(isConsistent ? ['createSnapshots'] : ['createSnapshot', 'createSnapshot']);
      const { body } = await api.do('GET', `/group_snapshots/${id}`);
      expect(body.group_snapshot).toMatchObject({
        id,
        group_id: api.groupId,
        group_type_id: api.typeId,
        name: 'gs',
        status: 'available',
      });
      const { snapshots } = (await api.do('GET', `/snapshots/detail?group_snapshot_id=${id}`)).body;
      expect(snapshots.map((snapshot: { volume_id: string }) => snapshot.volume_id).sort()).toEqual(
        [...api.volumes].sort(),
      );
      for (const snapshot of snapshots)
        expect(snapshot).toMatchObject({ name: 'gs', status: 'available', group_snapshot_id: id });
      expect(message(await api.do('DELETE', `/snapshots/${snapshots[0].id}`))).toEqual([
        400,
        expect.stringContaining(id),
      ]);
      const clone = await api.api.createVolume({ snapshot_id: snapshots[0].id, size: 2 });
      expect((await api.do('DELETE', `/group_snapshots/${id}`)).status).toBe(202);
      await api.api.settle();
      expect((await api.do('GET', `/group_snapshots/${id}`)).status).toBe(404);
      expect((await api.do('GET', '/snapshots')).body.snapshots).toEqual([]);
      expect(api.api.world.backend.ids()).toEqual([...api.volumes, clone].sort());
    },
  );

  test('is refused over quota or with a volume in error, and then there is none', async () => {
    await using api = await Groups.with();
    const ask = () => api.do('POST', '/group_snapshots', { group_snapshot: { group_id: api.groupId } });
    const project = '00000000000000000000000000000001';
    for (const [resource, limit] of [
      ['snapshots', 1],
      ['gigabytes', 5],
    ] as const) {
      await api.do('PUT', `/os-quota-sets/${project}`, { quota_set: { [resource]: limit } });
      expect((await ask()).status).toBe(413);
      await api.do('DELETE', `/os-quota-sets/${project}`);
    }
    await api.api.act(api.volumes[1] ?? '', { 'os-reset_status': { status: 'error' } });
    expect(message(await ask())).toEqual([400, expect.stringMatching(/^Invalid volume: .*error/)]);
    expect((await api.do('POST', '/group_snapshots', { group_snapshot: { group_id: NOBODY } })).status).toBe(404);
    expect((await api.do('GET', '/group_snapshots')).body.group_snapshots).toEqual([]);
    expect((await api.do('GET', '/snapshots')).body.snapshots).toEqual([]);
  });

  test('is listed, from 3.29 in pages and by filters', async () => {
    await using api = await Groups.with();
    const ids = [await api.snapshotGroup(), await api.snapshotGroup()];
    const list = async (query: string, minor = 71) =>
      (await api.do('GET', `/group_snapshots?${query}`, undefined, minor)).body;
    expect((await list('')).group_snapshots.map(({ id }: { id: string }) => id)).toEqual([...ids].reverse());
    const page = await list('limit=1&sort=created_at:asc');
    expect(page.group_snapshots).toEqual([{ id: ids[0], name: 'gs' }]);
    expect(page.group_snapshot_links).toHaveLength(1);
    expect((await list('limit=1', 28)).group_snapshots).toHaveLength(2);
    expect((await list(`group_id=${NOBODY}`)).group_snapshots).toEqual([]);
    expect((await list('', 13)).itemNotFound.code).toBe(404);
    const old = await api.do('GET', '/group_snapshots/detail', undefined, 57);
    expect(old.body.group_snapshots[0]).not.toHaveProperty('project_id');
  });
});

describe('a group made from a source', () => {
  test.each([true, false])('group is a copy of each volume (at one instant: %s)', async (isConsistent) => {
    await using api = await Groups.with({ isConsistent });
    api.api.world.backend.write(api.volumes[0] ?? '', 0);
    const { status, body } = await api.copy({ source_group_id: api.groupId });
    expect([status, Object.keys(body.group), body.group.name]).toEqual([202, ['id', 'name'], 'copy']);
    const group = await api.show(body.group.id);
    expect(group).toMatchObject({ status: 'available', source_group_id: api.groupId, group_type: api.typeId });
    expect(group.volumes).toHaveLength(2);
    const copies = [];
    for (const id of group.volumes) copies.push((await api.do('GET', `/volumes/${id}`)).body.volume);
    expect(copies.map(({ source_volid, size }) => [source_volid, size])).toEqual([
      [api.volumes[0], 1],
      [api.volumes[1], 2],
    ]);
    const changed = await api.api.world.backend.diff({ fromId: api.volumes[0] ?? '', toId: group.volumes[0] });
    expect(changed).toEqual([]);
    expect(await api.api.world.backend.map(group.volumes[0])).toMatchObject([{ kind: 'data' }, { kind: 'hole' }]);
    // Snapshots that were a means are gone.
    expect(api.api.world.backend.ids()).toEqual([...api.volumes, ...group.volumes].sort());
  });

  test('group snapshot is what the volumes were then', async () => {
    await using api = await Groups.with();
    const snapshot = await api.snapshotGroup();
    api.api.world.backend.write(api.volumes[0] ?? '', 0);
    const { body } = await api.copy({ group_snapshot_id: snapshot });
    const group = await api.show(body.group.id);
    expect(group).toMatchObject({ status: 'available', group_snapshot_id: snapshot });
    expect(await api.api.world.backend.map(group.volumes[0])).toMatchObject([{ kind: 'hole' }]);
    expect((await api.groupAct(group.id, { delete: { 'delete-volumes': true } })).status).toBe(202);
  });

  test('is made by clients that name the source they do not mean as null', async () => {
    await using api = await Groups.with();
    const snapshot = await api.snapshotGroup();
    for (const source of [
      { source_group_id: null, group_snapshot_id: snapshot },
      { source_group_id: api.groupId, group_snapshot_id: null },
    ]) {
      const { status, body } = await api.copy(source);
      expect(status).toBe(202);
      expect(await api.show(body.group.id)).toMatchObject({ status: 'available', ...source });
    }
  });

  test('is refused without room for its volumes, and then there is none', async () => {
    await using api = await Groups.with();
    const project = '00000000000000000000000000000001';
    for (const [resource, limit] of [
      ['volumes', 3],
      ['gigabytes', 5],
    ] as const) {
      await api.do('PUT', `/os-quota-sets/${project}`, { quota_set: { [resource]: limit } });
      expect((await api.copy({ source_group_id: api.groupId })).status).toBe(413);
      await api.do('DELETE', `/os-quota-sets/${project}`);
    }
    const empty = await api.createGroup();
    expect(message(await api.copy({ source_group_id: empty }))).toEqual([400, expect.stringContaining('is empty')]);
    expect((await api.copy({})).status).toBe(400);
    expect((await api.copy({ source_group_id: null, group_snapshot_id: null })).status).toBe(400);
    expect((await api.copy({ source_group_id: NOBODY, group_snapshot_id: NOBODY })).status).toBe(400);
    expect((await api.copy({ source_group_id: NOBODY })).status).toBe(404);
    expect((await api.copy({ group_snapshot_id: NOBODY })).status).toBe(404);
    expect((await api.do('GET', '/groups')).body.groups).toHaveLength(2);
    expect((await api.do('GET', '/volumes')).body.volumes).toHaveLength(2);
  });
});

describe('a group type', () => {
  test('is made, changed and deleted; its name is its own', async () => {
    await using api = await Groups.with();
    const made = await api.do('POST', '/group_types', {
      group_type: { name: 'x', is_public: false, description: 'd' },
    });
    expect([made.status, made.body.group_type]).toMatchObject([202, { name: 'x', is_public: false, group_specs: {} }]);
    const { id } = made.body.group_type;
    const put = (group_type: unknown) => api.do('PUT', `/group_types/${id}`, { group_type });
    expect((await put({ name: 'y', description: 'e' })).body.group_type).toMatchObject({ name: 'y', description: 'e' });
    expect((await put({ name: 'gt' })).status).toBe(409);
    expect((await put({ name: ' ' })).status).toBe(400);
    expect((await put({})).status).toBe(400);
    expect((await api.do('POST', '/group_types', { group_type: { name: 'y' } })).status).toBe(409);
    const names = async (query: string) =>
      (await api.do('GET', `/group_types?sort=name:asc&${query}`)).body.group_types.map(
        (type: { name: string }) => type.name,
      );
    expect(await names('')).toEqual(['default_cgsnapshot_type', 'gt']);
    expect(await names('is_public=none')).toEqual(['default_cgsnapshot_type', 'gt', 'y']);
    expect(await names('is_public=false')).toEqual(['y']);
    expect((await api.do('GET', '/group_types?is_public=maybe')).status).toBe(400);
    expect((await api.do('GET', '/group_types/default')).status).toBe(404);
    expect((await api.do('GET', '/group_types', undefined, 10)).status).toBe(404);
    expect((await api.do('DELETE', `/group_types/${id}`)).status).toBe(202);
    expect((await api.do('GET', `/group_types/${id}`)).status).toBe(404);
    expect(message(await api.do('DELETE', `/group_types/${api.typeId}`))).toEqual([
      400,
      expect.stringContaining('still in use'),
    ]);
  });

  test('has specs that are added, changed and removed one by one', async () => {
    await using api = await Groups.with();
    const path = `/group_types/${api.typeId}/group_specs`;
    expect((await api.do('POST', path, { group_specs: { k: 'v', n: null } })).status).toBe(202);
    expect((await api.do('GET', path)).body.group_specs).toEqual({
      consistent_group_snapshot_enabled: '<is> False',
      ...{ k: 'v', n: null },
    });
    expect((await api.do('PUT', `${path}/k`, { k: 'w' })).body).toEqual({ k: 'w' });
    expect((await api.do('GET', `${path}/k`)).body).toEqual({ k: 'w' });
    expect((await api.do('PUT', `${path}/k`, { other: 'w' })).status).toBe(400);
    expect((await api.do('PUT', `${path}/k`, { k: 'w', l: 'x' })).status).toBe(400);
    expect((await api.do('POST', path, { group_specs: { 'a b': 'x' } })).status).toBe(400);
    expect((await api.do('DELETE', `${path}/k`)).status).toBe(202);
    expect((await api.do('DELETE', `${path}/k`)).status).toBe(404);
    expect((await api.do('GET', `${path}/k`)).status).toBe(404);
    expect((await api.do('GET', `/group_types/${NOBODY}/group_specs`)).status).toBe(404);
  });
});

test('statuses are reset in their microversion, to words there are', async () => {
  await using api = await Groups.with();
  const snapshot = await api.snapshotGroup();
  for (const [path, since] of [
    [`/groups/${api.groupId}`, 20],
    [`/group_snapshots/${snapshot}`, 19],
  ] as const) {
    const reset = (status: string, minor: number = since) =>
      api.do('POST', `${path}/action`, { reset_status: { status } }, minor);
    expect((await reset('error')).status).toBe(202);
    const [shown] = Object.values((await api.do('GET', path)).body) as { status: string }[];
    expect(shown?.status).toBe('error');
    expect((await reset('nonsense')).status).toBe(400);
    expect((await reset('error', since - 1)).status).toBe(404);
  }
  expect((await api.groupAct(api.groupId, { enable_replication: {} })).body.badRequest.message).toContain(
    'not a replication group',
  );
});

test('a group of another project does not exist for a member, who resets none', async () => {
  await using api = await Groups.with();
  const { control } = api.api.world;
  const member = { ...CALLER, role: 'member', isAdmin: false } as const;
  const own = { ...member, projectId: '00000000000000000000000000000001' };
  const id = api.groupId;
  await expect(getGroup(control, member, { id, withVolumes: false })).rejects.toMatchObject({ code: 'not_found' });
  await expect(resetGroup(control, own, { id, status: 'error' })).rejects.toMatchObject({ code: 'forbidden' });
  const update = { name: 'x', addVolumes: [], removeVolumes: [] };
  await expect(updateGroup(control, { ...own, role: 'reader' }, { id, update })).rejects.toMatchObject({
    code: 'forbidden',
  });
  await updateGroup(control, own, { id, update });
  expect((await getGroup(control, own, { id, withVolumes: false })).row.name).toBe('x');
});
