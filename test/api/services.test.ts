import { describe, expect, test } from 'vitest';
import { type LogLevel, SILENT_LOG } from '../../src/base/log.ts';
import { hostUse, listServices } from '../../src/control/services.ts';
import { Api } from './api.ts';

const VOLUMES = { binary: 'cinder-volume', host: 'here@pool' };
const MEMBER = { projectId: 'p2', userId: 'u2', role: 'member', isAdmin: false, isService: false } as const;

describe('services', () => {
  test('are listed with what their microversion shows', async () => {
    await using api = await Api.open();
    const { body } = await api.ask('GET', '/v3/os-services');
    expect(body.services.map(({ binary, host }: Record<string, string>) => `${binary} ${host}`)).toEqual([
      'cinder-scheduler here',
      'cinder-volume here@pool',
      'cinder-backup here',
    ]);
    expect(body.services[1]).toEqual({
      ...VOLUMES,
      zone: 'nova',
      status: 'enabled',
      state: 'up',
      updated_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
      disabled_reason: null,
      replication_status: 'disabled',
      active_backend_id: null,
      frozen: false,
    });
    const newest = await api.ask('GET', '/v3/os-services?binary=cinder-volume', { minor: 49 });
    expect(newest.body.services).toMatchObject([{ cluster: null, backend_state: 'up' }]);
    const at = async (host: string) =>
      (await api.ask('GET', `/v3/os-services?host=${host}`)).body.services.map((row: { binary: string }) => row.binary);
    expect(await at('here')).toEqual(['cinder-scheduler', 'cinder-volume', 'cinder-backup']);
    expect(await at('here@pool')).toEqual(['cinder-volume']);
    for (const host of ['nowhere', 'her', 'here@', 'here@poo']) expect(await at(host), host).toEqual([]);
    await expect(listServices(api.world.control, MEMBER)).rejects.toMatchObject({ code: 'forbidden' });
    await expect(hostUse(api.world.control, MEMBER, 'here@pool')).rejects.toMatchObject({ code: 'forbidden' });
  });

  test('are disabled with a reason and enabled again', async () => {
    await using api = await Api.open();
    const put = (what: string, body: object) => api.ask('PUT', `/v3/os-services/${what}`, { body });
    const shown = async () => (await api.ask('GET', '/v3/os-services?binary=cinder-volume')).body.services[0];
    const disabled = await put('disable-log-reason', { ...VOLUMES, disabled_reason: 'moving' });
    expect(disabled.body).toEqual({
      ...VOLUMES,
      service: '',
      status: 'disabled',
      disabled: true,
      disabled_reason: 'moving',
    });
    expect(await shown()).toMatchObject({ status: 'disabled', disabled_reason: 'moving' });
    expect(await api.status(await api.createVolume())).toBe('error');
    const zones = await api.ask('GET', '/v3/os-availability-zone');
    expect(zones.body.availabilityZoneInfo).toEqual([{ zoneName: 'nova', zoneState: { available: false } }]);
    expect((await put('enable', VOLUMES)).body).toEqual({
      ...VOLUMES,
      service: '',
      status: 'enabled',
      disabled: false,
    });
    expect(await shown()).toMatchObject({ status: 'enabled', disabled_reason: null });
    expect((await put('disable', { service: 'cinder-volume', host: 'here@pool' })).body).toMatchObject({
      service: 'cinder-volume',
      binary: '',
      status: 'disabled',
    });
    for (const [what, body, status] of [
      ['enable', { binary: 'cinder-volume', host: 'nowhere' }, 404],
      ['disable', { binary: 'nova-compute', host: 'here' }, 404],
      ['disable', { host: 'here' }, 400],
      ['disable', { binary: 'cinder-volume' }, 400],
      ['disable-log-reason', { ...VOLUMES, disabled_reason: '' }, 400],
      ['enable', { ...VOLUMES, colour: 'red' }, 400],
      ['explode', VOLUMES, 404],
    ] as const)
      expect([what, (await put(what, body)).status]).toEqual([what, status]);
  });

  test('freeze and thaw, and never fail over', async () => {
    await using api = await Api.open();
    const put = async (what: string, host: string) => {
      const { status } = await api.ask('PUT', `/v3/os-services/${what}`, { body: { host } });
      return status;
    };
    expect(await put('freeze', 'here@pool')).toBe(200);
    const { body } = await api.ask('GET', '/v3/os-services?binary=cinder-volume');
    expect(body.services[0]).toMatchObject({ frozen: true, status: 'disabled', disabled_reason: 'frozen' });
    expect(await put('freeze', 'here@pool')).toBe(400);
    expect(await put('thaw', 'here@pool')).toBe(200);
    expect(await put('thaw', 'nowhere')).toBe(400);
    expect(await put('failover_host', 'here@pool')).toBe(400);
  });

  test('tell how much they log, and log as much as they are told', async () => {
    let level: LogLevel = 'info';
    const setLevel = (wanted: LogLevel) => {
      level = wanted;
    };
    await using api = await Api.open({ log: { ...SILENT_LOG, level: () => level, setLevel } });
    const put = (what: string, body: object, minor = 32) => api.ask('PUT', `/v3/os-services/${what}`, { body, minor });
    const { body } = await put('get-log', { binary: 'cinder-volume' });
    expect(body).toEqual({ log_levels: [{ ...VOLUMES, levels: { quarry: 'INFO' } }] });
    expect((await put('get-log', {})).body.log_levels).toHaveLength(4);
    expect((await put('set-log', { binary: 'cinder-api', level: 'WARNING' })).status).toBe(202);
    expect(level).toBe('warn');
    expect((await put('get-log', { server: 'here' })).body.log_levels[0].levels).toEqual({ quarry: 'WARNING' });
    expect((await put('set-log', { server: 'nowhere', level: 'debug' })).status).toBe(202);
    expect(level).toBe('warn');
    expect((await put('set-log', { level: 'loud' })).status).toBe(400);
    expect((await put('get-log', {}, 31)).status).toBe(404);
  });
});

describe('pools and hosts', () => {
  test('pools are found by name and by the types that fit', async () => {
    await using api = await Api.open();
    const pools = async (query: string, minor = 71) =>
      (await api.ask('GET', `/v3/scheduler-stats/get_pools${query}`, { minor })).body.pools;
    const name = 'here@pool#pool';
    await api.createVolume({ size: 3 });
    const [{ capabilities }] = await pools('?detail=true');
    expect(capabilities).toMatchObject({
      vendor_name: 'Quarry',
      storage_protocol: 'nbd',
      total_capacity_gb: 1024,
      free_capacity_gb: 1024,
      allocated_capacity_gb: 3,
      QoS_support: true,
      timestamp: expect.stringMatching(/^\d{4}-/),
    });
    expect(await pools(`?name=${encodeURIComponent(name)}`)).toEqual([{ name }]);
    expect(await pools('?name=other')).toEqual([]);
    expect(await pools('?name=other', 27)).toEqual([{ name }]);
    const type = (fields: object) => api.ask('POST', '/v3/types', { body: { volume_type: fields } });
    await type({ name: 'fits', extra_specs: { storage_protocol: 'nbd' } });
    await type({ name: 'misfit', extra_specs: { storage_protocol: 'iscsi' } });
    expect(await pools('?volume_type=fits')).toEqual([{ name }]);
    expect(await pools('?volume_type=misfit')).toEqual([]);
    expect((await api.ask('GET', '/v3/scheduler-stats/get_pools?detail=maybe')).status).toBe(400);
  });

  test('a host tells what it can do and which project uses how much', async () => {
    await using api = await Api.open();
    const volume = await api.createVolume({ size: 2 });
    await api.createSnapshot(volume);
    await api.ask('POST', '/v3/other/volumes', { body: { volume: { size: 1 } } });
    await api.settle();
    const host = encodeURIComponent('here@pool');
    const { body } = await api.ask('GET', `/v3/os-hosts/${host}`);
    const line = (project: string, volumes: [string, string], snapshots: [string, string]) => ({
      resource: {
        host: 'here@pool',
        project,
        volume_count: volumes[0],
        total_volume_gb: volumes[1],
        snapshot_count: snapshots[0],
        total_snapshot_gb: snapshots[1],
      },
    });
    expect(body.host).toEqual([
      line('(total)', ['2', '3'], ['1', '2']),
      line('00000000000000000000000000000001', ['1', '2'], ['1', '2']),
      line('other', ['1', '1'], ['0', '0']),
    ]);
    expect((await api.ask('GET', '/v3/os-hosts/nowhere')).status).toBe(404);
    const { hosts } = (await api.ask('GET', '/v3/os-hosts')).body;
    expect(hosts[1]).toMatchObject({ host_name: 'here@pool', service: 'cinder-volume', 'service-status': 'available' });
    expect((await api.ask('GET', '/v3/os-hosts?zone=north')).body).toEqual({ hosts: [] });
    const capabilities = await api.ask('GET', `/v3/capabilities/${host}`);
    expect(capabilities.body).toMatchObject({
      namespace: 'OS::Storage::Capabilities::here@pool',
      vendor_name: 'Quarry',
      pool_name: 'pool',
      replication_targets: [],
    });
    expect((await api.ask('GET', '/v3/capabilities/nowhere')).status).toBe(404);
  });

  test('there are no clusters and nothing to clean up', async () => {
    await using api = await Api.open();
    expect((await api.ask('GET', '/v3/clusters', { minor: 7 })).body).toEqual({ clusters: [] });
    expect((await api.ask('GET', '/v3/clusters', { minor: 6 })).status).toBe(404);
    expect((await api.ask('GET', '/v3/clusters/any', { minor: 7 })).status).toBe(404);
    const cleanup = await api.ask('POST', '/v3/workers/cleanup', { body: {}, minor: 24 });
    expect([cleanup.status, cleanup.body]).toEqual([202, { cleaning: [], unavailable: [] }]);
    expect((await api.ask('POST', '/v3/workers/cleanup', { body: { colour: 1 }, minor: 24 })).status).toBe(400);
  });
});
