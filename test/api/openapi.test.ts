import { Validator } from '@seriousme/openapi-schema-validator';
import { describe, expect, test } from 'vitest';
import { Api } from './api.ts';
import { as, people } from './people.ts';
import { routesOf } from './route-table.ts';

type Operation = {
  operationId: string;
  parameters?: { name: string; in: string }[];
  requestBody?: { content: Record<string, { schema: Record<string, unknown> }> };
  responses: Record<string, Record<string, unknown>>;
  security: Record<string, unknown>[];
};
type Document = {
  openapi: string;
  paths: Record<string, Record<string, Operation>>;
  components: { responses: object };
};

async function documentOf(api: Api): Promise<Document> {
  const { status, body } = await api.ask('GET', '/openapi.json');
  expect(status).toBe(200);
  return body;
}

describe('the OpenAPI document', () => {
  test('is one of version 3.1, with the same content below /v3 for who has a token', async () => {
    await using api = await Api.open({ server: { authenticator: people() } });
    const document = await documentOf(api);
    expect(document.openapi).toBe('3.1.0');
    const verdict = await new Validator().validate(JSON.parse(JSON.stringify(document)));
    expect(verdict.errors ?? []).toEqual([]);
    expect(verdict.valid).toBe(true);
    expect((await api.ask('GET', '/v3/openapi.json')).status).toBe(401);
    expect((await api.ask('GET', '/v3/openapi.json', { headers: as('reader') })).body).toEqual(document);
  });

  test('has every route: its parameters, its body, who may, what can go wrong', async () => {
    await using api = await Api.open({ server: { authenticator: people() } });
    const routes = await routesOf(api);
    const document = await documentOf(api);
    const ids = new Set<string>();
    for (const { method, url, config } of routes) {
      const path = url.replace(/:(\w+)/g, '{$1}');
      const operation = document.paths[path]?.[method.toLowerCase()];
      const name = `${method} ${path}`;
      if (operation === undefined) throw new Error(`${name} is not in the document`);
      ids.add(operation.operationId);
      const inPath = (operation.parameters ?? []).filter((one) => one.in === 'path').map((one) => one.name);
      expect(inPath, name).toEqual([...url.matchAll(/:(\w+)/g)].map((match) => match[1]));
      const header = (operation.parameters ?? []).some((one) => one.name === 'OpenStack-API-Version');
      expect(header, name).toBe(url.startsWith('/v3'));
      expect(operation.security, name).toEqual(config.isOpen ? [] : [{ token: [] }]);
      if (method === 'POST' || method === 'PUT')
        expect(operation.requestBody, `${name} names no shape of its body: config.body in its route`).toBeDefined();
      const faults = config.isOpen ? ['500'] : ['400', '401', '403', '404', '406', '429', '500', '503'];
      for (const status of faults) expect(operation.responses[status], `${name} ${status}`).toHaveProperty('$ref');
      expect(
        Object.keys(operation.responses).some((status) => Number(status) < 400),
        name,
      ).toBe(true);
    }
    expect(ids.size).toBe(routes.length);
    const documented = Object.values(document.paths).flatMap((path) => Object.keys(path));
    expect(documented.length).toBe(routes.length);
  });

  test('says what lists filter by, and which actions there are with which bodies', async () => {
    await using api = await Api.open();
    const document = await documentOf(api);
    const parameters = document.paths['/v3/volumes']?.['get']?.parameters?.map(({ name }) => name);
    expect(parameters).toEqual(expect.arrayContaining(['limit', 'marker', 'sort', 'status', 'metadata']));
    const body = document.paths['/v3/volumes/{id}/action']?.['post']?.requestBody?.content['application/json'];
    const actions = ((body?.schema['oneOf'] ?? []) as { required: string[] }[]).map(({ required }) => required[0]);
    expect(actions).toEqual(expect.arrayContaining(['os-extend', 'revert', 'os-reset_status']));
    const secured = document.paths['/v3/volumes']?.['get']?.security;
    expect(secured).toEqual([{}, { token: [] }]);
  });

  test('tells the status that a success has', async () => {
    await using api = await Api.open();
    const document = await documentOf(api);
    const id = await api.createVolume({ metadata: { k: 'v' } });
    for (const [method, path, body] of [
      ['POST', '/v3/volumes', { volume: { size: 1 } }],
      ['GET', '/v3/volumes/{id}', undefined],
      ['PUT', '/v3/volumes/{id}', { volume: { name: 'x' } }],
      ['POST', '/v3/volumes/{id}/metadata', { metadata: { a: 'b' } }],
      ['DELETE', '/v3/volumes/{id}/metadata/{key}', undefined],
      ['POST', '/v3/snapshots', { snapshot: { volume_id: id } }],
      ['DELETE', '/v3/os-quota-sets/{target}', undefined],
      ['GET', '/', undefined],
    ] as const) {
      const url = path.replace('{id}', id).replace('{key}', 'k').replace('{target}', 'p');
      const reply = await api.ask(method, url, { body });
      await api.settle();
      const documented = Object.keys(document.paths[path]?.[method.toLowerCase()]?.responses ?? {});
      expect(documented, `${method} ${path}`).toContain(String(reply.status));
      expect(reply.status, `${method} ${path}`).toBeLessThan(400);
    }
  });
});
