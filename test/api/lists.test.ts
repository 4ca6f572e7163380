import { describe, expect, test } from 'vitest';
import { Api } from './api.ts';

type Named = { id: string; name: string };

async function names(api: Api, query: string, minor = 71): Promise<string[]> {
  const { status, body } = await api.ask('GET', `/v3/volumes/detail?${query}`, { minor });
  if (status !== 200) throw new Error(`${status}: ${JSON.stringify(body)}`);
  return body.volumes.map((volume: Named) => volume.name);
}

async function fiveVolumes(api: Api): Promise<string[]> {
  const ids: string[] = [];
  for (const [name, size] of [
    ['a', 3],
    ['b', 1],
    ['c', 2],
    ['d', 1],
    [null, 2],
  ] as const)
    ids.push(await api.createVolume({ name, size, metadata: { odd: String(size % 2), [`is-${name}`]: 'yes' } }));
  return ids;
}

describe('pages', () => {
  test('the newest come first, a full page links to the next, and following the links sees each volume once', async () => {
    await using api = await Api.open();
    await fiveVolumes(api);
    for (const order of ['', 'sort=name:asc', 'sort=size:asc,name:desc', 'sort=updated_at', 'sort=name:desc,size']) {
      const seen: (string | null)[] = [];
      let url: string | undefined = `/v3/volumes/detail?limit=2&status=available&${order}`;
      let pages = 0;
      while (url !== undefined) {
        const { body } = await api.ask('GET', url, { headers: { host: 'h' } });
        seen.push(...body.volumes.map((volume: Named) => volume.name));
        url = body.volumes_links?.[0].href.replace('http://h', '');
        expect(body.volumes_links === undefined).toBe(body.volumes.length < 2);
        pages += 1;
      }
      expect(pages).toBe(3);
      const all = await names(api, order);
      expect(seen).toEqual(all);
      expect([...seen].sort()).toEqual(['a', 'b', 'c', 'd', null].sort());
    }
    expect(await names(api, '')).toEqual([null, 'd', 'c', 'b', 'a']);
    expect(await names(api, 'sort=name:asc')).toEqual([null, 'a', 'b', 'c', 'd']);
    expect(await names(api, 'sort_key=size&sort_dir=asc')).toHaveLength(5);
    expect(await names(api, 'limit=2&offset=3')).toEqual(['b', 'a']);
    expect(await names(api, 'limit=0')).toEqual([]);
    expect(await names(api, 'limit=100000')).toHaveLength(5);
  });

  test('among equals the order is by age, in the direction of the first key', async () => {
    await using api = await Api.open();
    for (const name of ['a', 'b', 'c', 'd'])
      await api.createVolume({ name, size: name === 'a' || name === 'c' ? 1 : 2 });
    expect(await names(api, 'sort=size:asc')).toEqual(['a', 'c', 'b', 'd']);
    expect(await names(api, 'sort=size:desc')).toEqual(['d', 'b', 'c', 'a']);
    expect(await names(api, 'sort=status:desc,size:asc')).toEqual(['c', 'a', 'd', 'b']);
  });

  test('the count is of all matches', async () => {
    await using api = await Api.open();
    await fiveVolumes(api);
    const { body } = await api.ask('GET', '/v3/volumes?limit=1&size=1&with_count=true', { minor: 45 });
    expect([body.volumes.length, body.count]).toEqual([1, 2]);
    const old = await api.ask('GET', '/v3/volumes?limit=1&with_count=true', { minor: 44 });
    expect(old.body).not.toHaveProperty('count');
  });

  test.each([
    'limit=x',
    'limit=-1',
    'offset=-1',
    'offset=2147483648',
    'sort=shape',
    'sort=name:up',
    'sort=name&sort_key=name',
    'bootable=maybe',
    'metadata=nonsense',
    'with_count=maybe',
    'all_tenants=maybe',
    'created_at=near:2026-01-01',
    'created_at=gt:soon',
  ])('%s is 400', async (query) => {
    await using api = await Api.open();
    const { status, body } = await api.ask('GET', `/v3/volumes?${query}`, { minor: 71 });
    expect([status, Object.keys(body)]).toEqual([400, ['badRequest']]);
  });

  test('an unknown marker is 404', async () => {
    await using api = await Api.open();
    expect((await api.ask('GET', '/v3/volumes?marker=nobody')).status).toBe(404);
    expect((await api.ask('GET', '/v3/snapshots?marker=nobody')).status).toBe(404);
  });
});

describe('filters', () => {
  test('narrow the list', async () => {
    await using api = await Api.open();
    const ids = await fiveVolumes(api);
    await api.act(ids[1] ?? '', { 'os-set_bootable': { bootable: true } });
    const expected: Record<string, readonly (string | null)[]> = {
      'name=b': ['b'],
      'name=nobody': [],
      'status=available&size=2': [null, 'c'],
      'status=nonsense': [],
      'size=big': [],
      [`id=${ids[2]}`]: ['c'],
      "metadata={'odd':'0'}": [null, 'c'],
      "metadata={'odd': '1', u'is-a': \"yes\"}": ['a'],
      'metadata={"is-d":"yes"}': ['d'],
      'bootable=true': ['b'],
      'bootable=0': [null, 'd', 'c', 'a'],
      'availability_zone=nova': [null, 'd', 'c', 'b', 'a'],
      'availability_zone=mars': [],
      'name~=B': ['b'],
      'name~=%25': [],
      'consumes_quota=false': [],
      'consumes_quota=true&name=a': ['a'],
      'migration_status=none&name=a': ['a'],
      'multiattach=true': [],
      'host=here@pool%23pool&name=a': ['a'],
      'host=here@pool&name=a': ['a'],
      'host=here&name=a': ['a'],
      'host=there@pool%23pool': [],
      'host=her': [],
      'colour=red': [],
      'created_at=gt:2020-01-01T00:00:00,lt:2020-01-02T00:00:00': [],
      'created_at=gte:2020-01-01&name=a': ['a'],
      'name=a&name=b': ['a'],
    };
    for (const [query, wanted] of Object.entries(expected))
      expect(await names(api, query.replaceAll(' ', '%20')), query).toEqual(wanted);
  });

  test('a time filter is exact to the microsecond', async () => {
    await using api = await Api.open();
    const ids = await fiveVolumes(api);
    const { body } = await api.ask('GET', `/v3/volumes/${ids[2]}`);
    const time = body.volume.created_at;
    expect(await names(api, `created_at=eq:${time}`)).toEqual(['c']);
    expect(await names(api, `created_at=gt:${time}`)).toEqual([null, 'd']);
    expect(await names(api, `created_at=lte:${time}`)).toEqual(['c', 'b', 'a']);
  });

  test('summaries have id, name and links only', async () => {
    await using api = await Api.open();
    await api.createVolume({ name: 'a' });
    const { body } = await api.ask('GET', '/v3/volumes', { minor: 71 });
    expect(Object.keys(body.volumes[0]).sort()).toEqual(['id', 'links', 'name']);
  });

  test('snapshots are listed by volume, name and status', async () => {
    await using api = await Api.open();
    const [one, two] = [await api.createVolume(), await api.createVolume()];
    const first = await api.createSnapshot(one, { name: 's1', metadata: { k: 'v' } });
    await api.createSnapshot(two, { name: 's2' });
    const list = async (query: string) => {
      const { body } = await api.ask('GET', `/v3/snapshots/detail?${query}`, { minor: 71 });
      return body.snapshots.map((snapshot: Named) => snapshot.name);
    };
    expect(await list('')).toEqual(['s2', 's1']);
    expect(await list(`volume_id=${one}`)).toEqual(['s1']);
    expect(await list('name=s2&status=available')).toEqual(['s2']);
    expect(await list("metadata={'k':'v'}")).toEqual(['s1']);
    expect(await list(`marker=${first}&sort=name:asc`)).toEqual(['s2']);
    const plain = await api.ask('GET', '/v3/snapshots?limit=1&with_count=1', { minor: 71 });
    expect(plain.body.count).toBe(2);
    expect(plain.body.snapshots_links).toHaveLength(1);
    const brief = ['created_at', 'description', 'id', 'metadata', 'name', 'size', 'status', 'updated_at', 'volume_id'];
    expect(Object.keys(plain.body.snapshots[0]).sort()).toEqual(brief);
  });
});

test('a thousand volumes are listed in pages of at most a thousand, with the same few queries', async () => {
  await using api = await Api.open();
  const bodies = Array.from({ length: 1001 }, (_, index) => ({ volume: { size: 1, metadata: { n: String(index) } } }));
  await Promise.all(bodies.map((body) => api.ask('POST', '/v3/volumes', { body })));
  await api.settle();
  const { body } = await api.ask('GET', '/v3/volumes/detail');
  expect(body.volumes).toHaveLength(1000);
  expect(new Set(body.volumes.map((volume: Named) => volume.id)).size).toBe(1000);
  const [link] = body.volumes_links;
  const rest = await api.ask('GET', link.href.replace(/^http:\/\/[^/]*/, ''));
  expect(rest.body.volumes).toHaveLength(1);
});
