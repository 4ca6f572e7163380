import { randomUUID } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { allQosSpecs, createQosSpec, deleteQosSpec, getQosSpec } from '../../src/control/qos-specs.ts';
import { Api } from './api.ts';

async function make(api: Api, name: string, fields: Record<string, unknown> = {}): Promise<string> {
  const { status, body } = await api.ask('POST', '/v3/qos-specs', { body: { qos_specs: { name, ...fields } } });
  if (status !== 200) throw new Error(`${status}: ${JSON.stringify(body)}`);
  return body.qos_specs.id;
}

async function makeType(api: Api, name: string): Promise<string> {
  return (await api.ask('POST', '/v3/types', { body: { volume_type: { name } } })).body.volume_type.id;
}

describe('specs of quality of service', () => {
  test('are made, shown, changed key by key and deleted', async () => {
    await using api = await Api.open();
    const created = await api.ask('POST', '/v3/qos-specs', {
      body: { qos_specs: { name: ' fast ', total_iops_sec: 100, 'vendor:x': 'y' } },
    });
    const { id } = created.body.qos_specs;
    const shown = { id, name: 'fast', consumer: 'back-end', specs: { total_iops_sec: '100', 'vendor:x': 'y' } };
    expect([created.status, created.body.qos_specs]).toEqual([200, shown]);
    expect(created.body.links[0].href).toMatch(new RegExp(`/v3/qos-specs/${id}$`));
    const path = `/v3/qos-specs/${id}`;
    const { body } = await api.ask('GET', path);
    expect(body).toEqual({ qos_specs: shown, links: created.body.links });
    const sent = { qos_specs: { consumer: 'both', read_iops_sec: '5' } };
    expect((await api.ask('PUT', path, { body: sent })).body).toEqual(sent);
    expect((await api.ask('GET', path)).body.qos_specs).toEqual({
      ...shown,
      consumer: 'both',
      specs: { ...shown.specs, read_iops_sec: '5' },
    });
    const remove = (keys: unknown) => api.ask('PUT', `${path}/delete_keys`, { body: { keys } });
    expect((await remove(['read_iops_sec', 'nothing'])).status).toBe(404);
    expect((await remove(['read_iops_sec', 'vendor:x'])).status).toBe(202);
    expect((await remove('read_iops_sec')).status).toBe(400);
    expect((await api.ask('GET', path)).body.qos_specs.specs).toEqual({ total_iops_sec: '100' });
    expect((await api.ask('DELETE', path)).status).toBe(202);
    for (const [method, url] of [
      ['GET', path],
      ['DELETE', path],
      ['GET', `${path}/associations`],
      ['GET', `${path}/disassociate_all`],
    ] as const)
      expect((await api.ask(method, url)).status).toBe(404);
  });

  test('refuse taken names, unknown consumers and limits that are no numbers, and change nothing', async () => {
    await using api = await Api.open();
    const id = await make(api, 'one', { total_iops_sec: '7' });
    const post = (qos_specs: object) => api.ask('POST', '/v3/qos-specs', { body: { qos_specs } });
    const put = (qos_specs: object) => api.ask('PUT', `/v3/qos-specs/${id}`, { body: { qos_specs } });
    expect((await post({ name: 'one' })).body.conflictingRequest.message).toBe('QoS Specs one already exists.');
    expect((await post({})).status).toBe(400);
    expect((await post({ name: ' ' })).status).toBe(400);
    expect((await post({ name: 'two', consumer: 'nobody' })).body.badRequest.message).toBe(
      "Invalid qos specs: consumer is 'nobody', but must be one of front-end, back-end, both.",
    );
    expect((await put({ total_iops_sec: '-5' })).body.badRequest.message).toContain("total_iops_sec is '-5'");
    expect((await put({ total_iops_sec: -5 })).status).toBe(400);
    expect((await put({ read_iops_sec: '1', write_iops_sec: 'fast' })).status).toBe(400);
    expect((await put({ nested: { a: 1 } })).status).toBe(400);
    expect((await put({})).status).toBe(400);
    const { body } = await api.ask('GET', '/v3/qos-specs');
    expect(body.qos_specs).toEqual([{ id, name: 'one', consumer: 'back-end', specs: { total_iops_sec: '7' } }]);
  });

  test('are listed by page, order and filters', async () => {
    await using api = await Api.open();
    await make(api, 'b', { consumer: 'both' });
    await make(api, 'a');
    await make(api, 'c');
    const names = async (query: string) =>
      (await api.ask('GET', `/v3/qos-specs${query}`)).body.qos_specs.map(({ name }: { name: string }) => name);
    expect(await names('')).toEqual(['c', 'a', 'b']);
    expect(await names('?sort=name:asc')).toEqual(['a', 'b', 'c']);
    expect(await names('?consumer=both')).toEqual(['b']);
    const first = await api.ask('GET', '/v3/qos-specs?limit=2&sort=name:asc');
    const { search } = new URL(first.body.qos_specs_links[0].href);
    expect(await names(search)).toEqual(['c']);
    expect((await api.ask('GET', `/v3/qos-specs?marker=${randomUUID()}`)).status).toBe(404);
  });

  test('belong to types: one each, until disassociated, and are kept while they do', async () => {
    await using api = await Api.open();
    const [id, other] = [await make(api, 'one'), await make(api, 'two')];
    const [gold, silver] = [await makeType(api, 'gold'), await makeType(api, 'silver')];
    const get = (path: string) => api.ask('GET', `/v3/qos-specs/${path}`);
    expect((await get(`${id}/associate?vol_type_id=${gold}`)).status).toBe(202);
    expect((await get(`${id}/associate?vol_type_id=${gold}`)).status).toBe(202);
    expect((await get(`${id}/associate?vol_type_id=${silver}`)).status).toBe(202);
    expect((await get(`${other}/associate?vol_type_id=${gold}`)).body.badRequest.message).toContain(
      'is already associated with another qos specs',
    );
    expect((await get(`${id}/associate`)).status).toBe(400);
    expect((await get(`${id}/associate?vol_type_id=${randomUUID()}`)).status).toBe(404);
    expect((await get(`${id}/associations`)).body).toEqual({
      qos_associations: [
        { association_type: 'volume_type', name: 'gold', id: gold },
        { association_type: 'volume_type', name: 'silver', id: silver },
      ],
    });
    expect((await api.ask('GET', `/v3/types/${gold}`)).body.volume_type.qos_specs_id).toBe(id);
    expect((await api.ask('DELETE', `/v3/qos-specs/${id}`)).status).toBe(400);
    expect((await api.ask('DELETE', `/v3/qos-specs/${id}?force=perhaps`)).status).toBe(400);
    expect((await get(`${id}/disassociate?vol_type_id=${silver}`)).status).toBe(202);
    expect((await api.ask('DELETE', `/v3/types/${gold}`)).status).toBe(202);
    expect((await get(`${id}/associations`)).body).toEqual({ qos_associations: [] });
    expect((await get(`${id}/associate?vol_type_id=${silver}`)).status).toBe(202);
    expect((await api.ask('DELETE', `/v3/qos-specs/${id}?force=true`)).status).toBe(202);
    expect((await api.ask('GET', `/v3/types/${silver}`)).body.volume_type.qos_specs_id).toBeNull();
  });

  test('are not for members', async () => {
    await using api = await Api.open();
    const id = await make(api, 'one');
    const { control } = api.world;
    const member = { projectId: 'p2', userId: 'u2', role: 'member', isAdmin: false, isService: false } as const;
    const refusal = { code: 'forbidden' };
    await expect(allQosSpecs(control, member)).rejects.toMatchObject(refusal);
    await expect(getQosSpec(control, member, id)).rejects.toMatchObject(refusal);
    await expect(deleteQosSpec(control, member, { id, force: true })).rejects.toMatchObject(refusal);
    const wanted = { name: 'two', consumer: null, specs: {} };
    await expect(createQosSpec(control, member, wanted)).rejects.toMatchObject(refusal);
  });
});
