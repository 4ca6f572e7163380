import { expect, test } from 'vitest';
import { Api } from './api.ts';

const BLOCK = 65536;
const GIB = 2 ** 30;

test('the status shows pool, counts, connections and where NBD is', async () => {
  await using api = await Api.open();
  const id = await api.createVolume({ size: 2 });
  await api.createSnapshot(id);
  api.world.backend.connect(id);
  for (const path of ['/v3/quarry/status', '/v3/p1/quarry/status']) {
    const { status, body } = await api.ask('GET', path);
    expect(status).toBe(200);
    expect(body).toMatchObject({
      version: '0.0.0',
      auth: 'none',
      nbd: ['unix:/nowhere/nbd.sock'],
      pool: { volumes: 1, snapshots: 1 },
      volumes: { count: 1, size_bytes: 2 * GIB, by_status: { available: 1 } },
      connections: 1,
      tasks: [],
    });
  }
});

test('a volume tells its map, what changed since a snapshot, its use and its URIs', async () => {
  await using api = await Api.open();
  const id = await api.createVolume({ name: 'my data' });
  api.world.backend.write(id, 0);
  const snapshot = await api.createSnapshot(id);
  api.world.backend.write(id, BLOCK);
  const get = async (path: string) => (await api.ask('GET', `/v3/quarry/${path}`)).body;
  expect((await get(`volumes/${id}/map`)).ranges).toEqual([
    { offset: 0, length: 2 * BLOCK, kind: 'data' },
    { offset: 2 * BLOCK, length: GIB - 2 * BLOCK, kind: 'hole' },
  ]);
  const changed = [{ offset: BLOCK, length: BLOCK, kind: 'data' }];
  expect((await get(`volumes/${id}/diff?from=${snapshot}`)).ranges).toEqual(changed);
  expect((await get(`snapshots/${snapshot}/diff`)).ranges).toEqual([{ offset: 0, length: BLOCK, kind: 'data' }]);
  const space = { mapped_bytes: BLOCK, shared_bytes: BLOCK, exclusive_bytes: 0 };
  expect((await get(`snapshots/${snapshot}/usage`)).usage).toMatchObject({ kind: 'snapshot', ...space });
  expect((await get(`volumes/${id}/usage`)).usage).toMatchObject({ shared_bytes: BLOCK, exclusive_bytes: BLOCK });
  expect((await get('status')).pool).toMatchObject({ shared_bytes: BLOCK, exclusive_bytes: BLOCK });
  const { body: metrics } = await api.ask('GET', '/metrics');
  for (const line of [
    `quarry_volume_exclusive_bytes{volume="${id}"} ${BLOCK}`,
    `quarry_snapshot_exclusive_bytes{snapshot="${snapshot}"} 0`,
    `quarry_pool_shared_bytes ${BLOCK}`,
  ])
    expect(metrics).toContain(line);
  const address = 'unix:/nowhere/nbd.sock';
  expect((await get(`volumes/${id}/exports`)).exports).toEqual([
    { name: id, uri: `nbd+unix:///${id}?socket=/nowhere/nbd.sock`, address, read_only: false, listed: true },
    { name: 'my data', uri: 'nbd+unix:///my%20data?socket=/nowhere/nbd.sock', address, read_only: false, listed: true },
  ]);
  expect((await get(`snapshots/${snapshot}/exports`)).exports).toMatchObject([{ name: snapshot, read_only: true }]);
});

test('what does not exist is 404 there too', async () => {
  await using api = await Api.open();
  const id = await api.createVolume();
  for (const path of ['volumes/x/map', 'snapshots/x/exports', `snapshots/${id}/map`, `volumes/${id}/diff?from=x`])
    expect((await api.ask('GET', `/v3/quarry/${path}`)).status).toBe(404);
});

test('a volume that the backend reports as failed shows the status error and why', async () => {
  await using api = await Api.open();
  const id = await api.createVolume();
  api.world.backend.fail(id, 'sync failed with errno 5');
  // The next write of the catalog comes after the one of the event.
  await api.createVolume();
  expect(await api.status(id)).toBe('error');
  const { body } = await api.ask('GET', `/v3/quarry/volumes/${id}/usage`);
  expect(body.usage).toMatchObject({ failed: 'sync failed with errno 5', last_failure: 'sync failed with errno 5' });
  expect((await api.ask('DELETE', `/v3/volumes/${id}`)).status).toBe(202);
  await api.settle();
  expect(await api.status(id)).toBe(404);
});

test('metrics are scraped as Prometheus text', async () => {
  await using api = await Api.open();
  await api.createVolume();
  const { status, headers, body } = await api.ask('GET', '/metrics');
  expect(status).toBe(200);
  expect(String(headers['content-type'])).toContain('text/plain');
  expect(body).toContain('quarry_volumes{status="available"} 1');
  expect(body).toContain('quarry_tasks_total{kind="create-volume",outcome="done"} 1');
  expect(body).toMatch(/quarry_http_request_seconds_count\{method="POST",route="\/v3\/volumes",status="202"\} 1/);
});
