/**
 * The Block Storage API's backups, asked as clients ask: codes, fields by microversion, lists, restores, records and
 * actions; and our own routes beside them.
 */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { Api } from './api.ts';

const UNKNOWN = '00000000-0000-4000-8000-00000000abcd';

async function backup(api: Api, volumeId: string, fields: object = {}, minor = 71): Promise<string> {
  const { status, body } = await api.ask('POST', '/v3/backups', {
    body: { backup: { volume_id: volumeId, ...fields } },
    minor,
  });
  expect(status, JSON.stringify(body)).toBe(202);
  await api.settle();
  return body.backup.id;
}

test('a backup is made, shown, renamed and deleted; fields come with their microversions', async () => {
  await using api = await Api.open();
  const volume = await api.createVolume({ name: 'disk' });
  const made = await api.ask('POST', '/v3/backups', {
    body: {
      backup: {
        volume_id: volume,
        name: 'nightly',
        description: null,
        container: null,
        incremental: false,
        force: false,
        snapshot_id: null,
        metadata: { a: 'b' },
        availability_zone: null,
      },
    },
    minor: 51,
  });
  expect(made.status).toBe(202);
  const { id } = made.body.backup;
  expect(made.body.backup).toEqual({ id, name: 'nightly', links: expect.any(Array), metadata: { a: 'b' } });
  await api.settle();
  const oldest = (await api.ask('GET', `/v3/backups/${id}`)).body.backup;
  expect(Object.keys(oldest).sort()).toEqual(
    [
      ...['id', 'status', 'size', 'object_count', 'availability_zone', 'container', 'created_at', 'updated_at', 'name'],
      ...['description', 'fail_reason', 'volume_id', 'links', 'is_incremental', 'has_dependent_backups', 'snapshot_id'],
      'data_timestamp',
    ].sort(),
  );
  expect(oldest).toMatchObject({
    status: 'available',
    size: 1,
    volume_id: volume,
    is_incremental: false,
    has_dependent_backups: false,
    fail_reason: null,
  });
  const newest = (await api.ask('GET', `/v3/backups/${id}`, { minor: 71 })).body.backup;
  expect(newest).toMatchObject({ metadata: { a: 'b' }, user_id: expect.any(String) });
  expect(newest['os-backup-project-attr:project_id']).toEqual(expect.any(String));
  const renamed = await api.ask('PUT', `/v3/backups/${id}`, { body: { backup: { name: 'weekly' } }, minor: 9 });
  expect([renamed.status, renamed.body.backup.name]).toEqual([200, 'weekly']);
  const labelled = { backup: { metadata: { tier: 'cold' } } };
  const answer = await api.ask('PUT', `/v3/backups/${id}`, { body: labelled, minor: 71 });
  expect(Object.keys(answer.body.backup)).toEqual(['id', 'name', 'links']);
  expect((await api.ask('PUT', `/v3/backups/${id}`, { body: { backup: { name: 'x' } }, minor: 8 })).status).toBe(404);
  expect((await api.ask('PUT', `/v3/backups/${id}`, { body: { backup: {} }, minor: 71 })).status).toBe(400);
  expect((await api.ask('DELETE', `/v3/backups/${id}`)).status).toBe(202);
  await api.settle();
  expect((await api.ask('GET', `/v3/backups/${id}`)).status).toBe(404);
});

test('fields of a later microversion, unknown ones and malformed values are refused', async () => {
  await using api = await Api.open();
  const volume = await api.createVolume();
  const ask = (fields: object, minor: number) =>
    api.ask('POST', '/v3/backups', { body: { backup: { volume_id: volume, ...fields } }, minor });
  expect((await ask({ metadata: {} }, 42)).status).toBe(400);
  expect((await ask({ availability_zone: 'nova' }, 50)).status).toBe(400);
  expect((await ask({ availability_zone: 'elsewhere' }, 51)).status).toBe(400);
  expect((await ask({ colour: 'red' }, 71)).status).toBe(400);
  expect((await ask({ volume_id: 'x' }, 71)).status).toBe(400);
  expect((await ask({ incremental: 'perhaps' }, 71)).status).toBe(400);
  expect((await ask({ volume_id: UNKNOWN }, 71)).status).toBe(404);
  expect((await ask({ snapshot_id: UNKNOWN }, 71)).status).toBe(404);
  const none = await ask({ incremental: true }, 71);
  expect([none.status, none.body.badRequest.message]).toEqual([
    400,
    'Invalid backup: No backups available to do an incremental backup.',
  ]);
  expect((await api.ask('GET', '/v3/backups')).body.backups).toEqual([]);
  expect(await api.status(volume)).toBe('available');
});

test('lists are filtered, sorted, paged and counted', async () => {
  await using api = await Api.open();
  const [one, two] = [await api.createVolume({ name: 'a' }), await api.createVolume({ name: 'b', size: 2 })];
  const first = await backup(api, one, { name: 'alpha' });
  const second = await backup(api, one, { name: 'beta', incremental: true });
  const third = await backup(api, two, { name: 'alphabet' });
  const ids = async (query: string, minor = 71) =>
    (await api.ask('GET', `/v3/backups/detail?${query}`, { minor })).body.backups.map(({ id }: { id: string }) => id);
  expect(await ids('')).toEqual([third, second, first]);
  expect(await ids('sort=name:asc')).toEqual([first, third, second]);
  expect(await ids('sort=size:asc,created_at:asc')).toEqual([first, second, third]);
  expect(await ids(`volume_id=${one}`)).toEqual([second, first]);
  expect(await ids('name=beta')).toEqual([second]);
  expect(await ids('name~=alph')).toEqual([third, first]);
  expect(await ids('status=error')).toEqual([]);
  const page = await api.ask('GET', '/v3/backups?limit=2&with_count=true', { minor: 45 });
  expect(page.body.count).toBe(3);
  expect(page.body.backups.map(({ id }: { id: string }) => id)).toEqual([third, second]);
  expect(page.body.backups_links[0].href).toContain(`marker=${second}`);
  expect(await ids(`marker=${second}`)).toEqual([first]);
  expect((await api.ask('GET', `/v3/backups?marker=${UNKNOWN}`)).status).toBe(404);
  expect((await api.ask('GET', '/v3/backups?sort=colour')).status).toBe(400);
  const detail = (await api.ask('GET', `/v3/backups/${second}`)).body.backup;
  expect(detail.is_incremental).toBe(true);
});

test('a restore answers with the volume it fills, and a volume is made from a backup from 3.47', async () => {
  await using api = await Api.open();
  const volume = await api.createVolume({ size: 2 });
  api.world.backend.write(volume, 65536);
  const id = await backup(api, volume);
  const restore = (fields: object) => api.ask('POST', `/v3/backups/${id}/restore`, { body: { restore: fields } });
  const fresh = await restore({ volume_id: null, name: 'again' });
  expect([fresh.status, fresh.body]).toEqual([
    202,
    { restore: { backup_id: id, volume_id: expect.any(String), volume_name: 'again' } },
  ]);
  expect(await api.status(fresh.body.restore.volume_id)).toBe('restoring-backup');
  const second = await restore({});
  expect([second.status, second.body.badRequest.message]).toEqual([
    400,
    `Invalid backup: Backup ${id} status must be available, but current status is: restoring.`,
  ]);
  await api.settle();
  expect(await api.status(fresh.body.restore.volume_id)).toBe('available');
  expect(await api.status(volume)).toBe('available');
  const over = await restore({ volume_id: volume });
  expect(over.body.restore).toMatchObject({ volume_id: volume });
  await api.settle();
  const small = await api.createVolume({ size: 1 });
  expect((await restore({ volume_id: small })).status).toBe(400);
  expect((await restore({ volume_id: UNKNOWN })).status).toBe(404);
  expect((await restore({ colour: 'red' })).status).toBe(400);
  const made = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 3, backup_id: id } }, minor: 47 });
  expect(made.status).toBe(202);
  await api.settle();
  expect(await api.status(made.body.volume.id)).toBe('available');
  const { metadata } = (await api.ask('GET', `/v3/volumes/${made.body.volume.id}`)).body.volume;
  expect(metadata).toEqual({ src_backup_id: id });
  expect([...api.world.backend.blocksOf(made.body.volume.id)]).toEqual([...api.world.backend.blocksOf(volume)]);
  const less = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1, backup_id: id } }, minor: 47 });
  expect(less.status).toBe(400);
  expect((await api.ask('POST', `/v3/backups/${UNKNOWN}/restore`, { body: { restore: {} } })).status).toBe(404);
});

test('our own restore takes one word more: the volume is available at once and says how far it is filled', async () => {
  await using api = await Api.open();
  const volume = await api.createVolume({ size: 1 });
  api.world.backend.write(volume, 65536);
  const id = await backup(api, volume);
  const path = `/v3/quarry/backups/${id}/restore`;
  const restore = (fields: object) => api.ask('POST', path, { body: { restore: fields } });
  const fast = await restore({ name: 'fast', instant: true });
  expect([fast.status, fast.body]).toEqual([
    202,
    { restore: { backup_id: id, volume_id: expect.any(String), volume_name: 'fast' } },
  ]);
  await api.settle();
  const made = fast.body.restore.volume_id as string;
  expect(await api.status(made)).toBe('available');
  const filling = async () => (await api.ask('GET', `/v3/quarry/volumes/${made}/usage`)).body.usage.filling;
  await expect.poll(filling).toBe(null);
  expect([...api.world.backend.blocksOf(made).keys()]).toEqual([1]);
  const into = await restore({ volume_id: volume, instant: true });
  expect([into.status, into.body.badRequest.message]).toEqual([400, expect.stringContaining('leave volume_id out')]);
  expect((await restore({ instant: 'soon' })).status).toBe(400);
  expect((await api.ask('POST', `/v3/backups/${id}/restore`, { body: { restore: { instant: true } } })).status).toBe(
    400,
  );
  expect((await restore({ name: 'slow' })).status).toBe(202);
  await api.settle();
});

test('a volume that is made from a backup is restoring-backup while it is filled', async () => {
  const seen: unknown[] = [];
  let isFilled = (): Promise<unknown> => Promise.resolve();
  await using api = await Api.open({
    aroundData: async (what) => {
      if (what === 'write') seen.push(await isFilled());
    },
  });
  const volume = await api.createVolume();
  api.world.backend.write(volume, 0);
  const id = await backup(api, volume);
  const made = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1, backup_id: id } }, minor: 47 });
  expect(made.body.volume.status).toBe('creating');
  isFilled = () => api.status(made.body.volume.id);
  await api.settle();
  expect(new Set(seen)).toEqual(new Set(['restoring-backup']));
  expect(await api.status(made.body.volume.id)).toBe('available');
});

test('work on backups that fails is told to the project by messages', async () => {
  await using api = await Api.open();
  const volume = await api.createVolume();
  api.world.backend.write(volume, 0);
  const id = await backup(api, volume);
  const folder = join(api.world.folder, 'backups');
  writeFileSync(join(folder, 'vol', volume, 'manifest', `${id}.json`), 'damaged');
  const restored = await api.ask('POST', `/v3/backups/${id}/restore`, { body: { restore: {} } });
  const made = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1, backup_id: id } }, minor: 47 });
  expect([restored.status, made.status]).toEqual([202, 400]);
  await api.settle();
  const again = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1, backup_id: id } }, minor: 47 });
  await api.settle();
  expect(await api.status(restored.body.restore.volume_id)).toBe('error_restoring');
  expect(await api.status(again.body.volume.id)).toBe('error');
  rmSync(folder, { recursive: true });
  writeFileSync(folder, 'in the way');
  const failed = await backup(api, volume);
  await api.ask('DELETE', `/v3/backups/${failed}`);
  await api.settle();
  const messages = async (of: string) => {
    const { body } = await api.ask('GET', `/v3/messages?resource_uuid=${of}`, { minor: 71 });
    return body.messages.map((message: Record<string, string>) => message['event_id']).sort();
  };
  expect(await messages(id)).toEqual(['VOLUME_VOLUME_BACKUP_015_026', 'VOLUME_VOLUME_BACKUP_015_026']);
  expect(await messages(again.body.volume.id)).toEqual(['VOLUME_VOLUME_008_012']);
  expect(await messages(failed)).toEqual(['VOLUME_VOLUME_BACKUP_013_020', 'VOLUME_VOLUME_BACKUP_014_025']);
});

test('without a place for backups, or while their service is disabled, none is accepted and the service says so', async () => {
  await using api = await Api.open({ hasNoBackups: true });
  const volume = await api.createVolume();
  const service = async () => (await api.ask('GET', '/v3/os-services?binary=cinder-backup')).body.services[0];
  const create = () => api.ask('POST', '/v3/backups', { body: { backup: { volume_id: volume } } });
  expect(await service()).toMatchObject({ status: 'enabled', state: 'down' });
  const refused = await create();
  expect([refused.status, refused.body.serviceUnavailable.message]).toEqual([
    503,
    expect.stringContaining('--backups file:DIR'),
  ]);
  expect((await api.ask('POST', '/v3/quarry/backups/collect')).status).toBe(503);
  expect((await api.ask('POST', '/v3/quarry/backups/rescan')).status).toBe(503);
  await api.world.stop();
  await using other = await Api.open();
  const disk = await other.createVolume();
  const name = { binary: 'cinder-backup', host: 'here' };
  await other.ask('PUT', '/v3/os-services/disable-log-reason', { body: { ...name, disabled_reason: 'moving' } });
  const second = await other.ask('POST', '/v3/backups', { body: { backup: { volume_id: disk } } });
  expect([second.status, second.body.serviceUnavailable.message]).toEqual([503, expect.stringContaining('moving')]);
  await other.ask('PUT', '/v3/os-services/enable', { body: name });
  expect(await other.status(disk)).toBe('available');
  await backup(other, disk);
});

test('administrators reset and force; records go out and come back', async () => {
  await using api = await Api.open();
  const volume = await api.createVolume();
  const id = await backup(api, volume);
  const act = (body: object) => api.ask('POST', `/v3/backups/${id}/action`, { body });
  expect((await act({ 'os-reset_status': { status: 'deleting' } })).status).toBe(400);
  const record = await api.ask('GET', `/v3/backups/${id}/export_record`);
  expect(record.body['backup-record']).toEqual({ backup_service: expect.any(String), backup_url: expect.any(String) });
  expect((await act({ 'os-reset_status': { status: 'error' } })).status).toBe(202);
  expect((await api.ask('GET', `/v3/backups/${id}`)).body.backup.status).toBe('error');
  expect((await api.ask('GET', `/v3/backups/${id}/export_record`)).status).toBe(400);
  expect((await api.ask('POST', '/v3/backups/import_record', { body: record.body })).status).toBe(400);
  expect((await act({ 'os-force_delete': null })).status).toBe(202);
  await api.settle();
  const gone = await api.ask('POST', '/v3/backups/import_record', { body: record.body });
  expect([gone.status, gone.body.badRequest.message]).toEqual([400, expect.stringContaining('There is no backup')]);
  expect((await act({ 'os-dance': null })).status).toBe(400);
});

test('our own routes show progress and verification, collect garbage and rescan', async () => {
  await using api = await Api.open();
  const volume = await api.createVolume();
  api.world.backend.write(volume, 0);
  const id = await backup(api, volume);
  const shown = async () => (await api.ask('GET', `/v3/quarry/backups/${id}`)).body.backup;
  expect(await shown()).toMatchObject({ status: 'available', progress: null, verified: null, parent_id: null });
  expect((await api.ask('POST', `/v3/quarry/backups/${id}/verify`, { body: { depth: 'deep' } })).status).toBe(400);
  expect((await api.ask('POST', `/v3/quarry/backups/${id}/verify`)).status).toBe(202);
  await api.settle();
  expect((await shown()).verified).toMatchObject({ depth: 'full', outcome: 'good', problem_count: 0 });
  const state = async () => (await api.ask('GET', '/v3/quarry/backups/collect')).body.collection;
  expect(await state()).toEqual({ state: 'never' });
  expect((await api.ask('POST', '/v3/quarry/backups/collect')).status).toBe(202);
  expect((await api.ask('POST', '/v3/quarry/backups/collect')).status).toBe(409);
  await expect.poll(async () => (await state()).state).toBe('done');
  expect((await api.ask('POST', '/v3/quarry/backups/rescan')).body).toEqual({ imported: [], known: 1, unreadable: [] });
  const metrics = (await api.ask('GET', '/metrics')).body as string;
  expect(metrics).toContain('quarry_backups{status="available"} 1');
  expect(metrics).toMatch(/quarry_backup_read_bytes_total 65536/);
  const limits = (await api.ask('GET', '/v3/limits')).body.limits.absolute;
  expect(limits).toMatchObject({ totalBackupsUsed: 1, totalBackupGigabytesUsed: 1 });
});
