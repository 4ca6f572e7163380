/**
 * Every route, asked by everybody. The routes come from the server and the expectations from the policy, so a new route
 * is in here the moment it exists: closed without a token, closed to other projects, and as open as its rule says.
 */
import { randomUUID } from 'node:crypto';
import { expect, test } from 'vitest';
import { POLICY, type Role } from '../../src/control/policy.ts';
import { Api, type Reply } from './api.ts';
import { as, ONE, OTHER, type Person, people } from './people.ts';
import { type Route, routesOf } from './route-table.ts';

type Objects = { readonly volume: string; readonly snapshot: string };

const MINOR = 71;

async function make(api: Api): Promise<Objects> {
  const headers = as('member');
  const created = async (url: string, body: unknown): Promise<Reply> => {
    const reply = await api.ask('POST', url, { headers, body });
    expect(reply.status, JSON.stringify(reply.body)).toBe(202);
    await api.settle();
    return reply;
  };
  const { body } = await created('/v3/volumes', { volume: { size: 1, name: 'secret', metadata: { key: 'value' } } });
  const volume = body.volume.id;
  const snapshot = await created('/v3/snapshots', { snapshot: { volume_id: volume, metadata: { key: 'value' } } });
  return { volume, snapshot: snapshot.body.snapshot.id };
}

/** What stands in a path for a parameter; an id of something that is not there where this file knows no better. */
function filled(url: string, { volume, snapshot }: Objects): string {
  const known: Readonly<Record<string, string>> = { projectId: ONE, key: 'key', target: ONE, name: 'default' };
  return url.replace(/:(\w+)/g, (_, name: string) => {
    if (known[name] !== undefined) return known[name];
    if (/\/volumes\/:id/.test(url)) return volume;
    return /\/snapshots\/:id/.test(url) ? snapshot : randomUUID();
  });
}

/** Bodies that would do something, where this file knows one. Without, a change ends as a bad request. */
function bodyFor({ method, url }: Route, { volume }: Objects): unknown {
  const path = url.replace(/^\/v3(\/:projectId)?/, '');
  const bodies: Readonly<Record<string, unknown>> = {
    'POST /volumes': { volume: { source_volid: volume } },
    'PUT /volumes/:id': { volume: { name: 'changed' } },
    'POST /volumes/:id/action': { 'os-set_bootable': { bootable: true } },
    'POST /snapshots': { snapshot: { volume_id: volume } },
    'PUT /snapshots/:id': { snapshot: { name: 'changed' } },
    'POST /snapshots/:id/action': { 'os-reset_status': { status: 'error' } },
    'PUT /volumes/:id/metadata/:key': { meta: { key: 'changed' } },
    'POST /backups': { backup: { volume_id: volume, force: true } },
    'PUT /snapshots/:id/metadata/:key': { meta: { key: 'changed' } },
    'PUT /os-quota-sets/:target': { quota_set: { volumes: 5000 } },
    'PUT /os-quota-class-sets/:name': { quota_class_set: { volumes: 5000 } },
  };
  if (path.endsWith('/metadata')) return { metadata: { key: 'changed' } };
  return bodies[`${method} ${path}`] ?? (method === 'GET' || method === 'DELETE' ? undefined : {});
}

const RANK: Readonly<Record<Role, number>> = { reader: 0, member: 1, admin: 2 };

/** The least role that the gate lets through; actions are looked at later. */
function leastRole({ method, config }: Route): Role {
  if (config.rule !== undefined) return POLICY[config.rule];
  return config.actions !== undefined || method === 'GET' ? 'reader' : 'member';
}

function ruleIn(reply: Reply): string | undefined {
  return /^Policy doesn't allow (.+) to be performed\.$/.exec(reply.body.forbidden?.message ?? '')?.[1];
}

test('every route does for everybody what the policy says', async () => {
  await using api = await Api.open({ server: { authenticator: people() } });
  const routes = await routesOf(api);
  expect(routes.length).toBeGreaterThan(80);
  for (const route of routes) await probe(api, route);
}, 300_000);

async function probe(api: Api, route: Route): Promise<void> {
  const { method, url, config } = route;
  const objects = await make(api);
  const path = filled(url, objects);
  const name = `${method} ${url}`;
  const body = bodyFor(route, objects);
  const asked = async (headers: Record<string, string>): Promise<Reply> => {
    const reply = await api.ask(method, path, { headers, body, minor: MINOR });
    await api.settle();
    expect(reply.status, `${name}: ${JSON.stringify(reply.body)}`).toBeLessThan(500);
    return reply;
  };
  if (config.isOpen) {
    expect((await asked({})).status, name).toBeLessThan(400);
    return;
  }
  const before = await fingerprint(api, objects);
  for (const headers of [{}, { 'x-auth-token': 'wrong' }]) expect((await asked(headers)).status, name).toBe(401);
  for (const person of ['reader elsewhere', 'member elsewhere'] as const)
    requireNothing(await asked(as(person)), { name, url, objects });
  await requireRole({ name, route, person: 'reader', role: 'reader' }, asked);
  if (method !== 'GET') expect(await fingerprint(api, objects), `${name} changed something`).toBe(before);
  await requireRole({ name, route, person: 'member', role: 'member' }, asked);
  await requireRole({ name, route, person: 'admin', role: 'admin' }, asked);
}

/** Of one project, as an administrator sees it. */
async function fingerprint(api: Api, { volume, snapshot }: Objects): Promise<string> {
  const headers = as('admin');
  const urls = [`/v3/volumes/${volume}`, `/v3/snapshots/${snapshot}`, `/v3/os-quota-sets/${ONE}`];
  const all = await Promise.all(urls.map((url) => api.ask('GET', url, { headers, minor: MINOR })));
  return JSON.stringify(all.map(({ status, body }) => [status, body]));
}

/** Somebody of another project: an answer shows nothing of this one, and there is none for its objects. */
function requireNothing(reply: Reply, about: { name: string; url: string; objects: Objects }): void {
  const { name, url, objects } = about;
  if (url.startsWith('/v3/:projectId')) {
    expect([reply.status, reply.body.badRequest?.message], name).toEqual([400, 'Malformed request url']);
    return;
  }
  if (/\/(volumes|snapshots)\/:id/.test(url)) expect([403, 404], name).toContain(reply.status);
  if (reply.status >= 300) return;
  const shown = JSON.stringify(reply.body ?? null);
  for (const secret of [objects.volume, objects.snapshot, ONE]) expect(shown, name).not.toContain(secret);
}

async function requireRole(
  { name, route, person, role }: { name: string; route: Route; person: Person; role: Role },
  asked: (headers: Record<string, string>) => Promise<Reply>,
): Promise<void> {
  const reply = await asked(as(person));
  const what = `${name} by ${person}: ${JSON.stringify(reply.body)}`;
  expect(reply.status, what).not.toBe(401);
  if (RANK[role] < RANK[leastRole(route)]) expect(reply.status, what).toBe(403);
  if (reply.status !== 403) return;
  // Whoever is refused is told by which rule, and it is one that asks for more than he is.
  const rule = ruleIn(reply);
  expect(rule, what).toBeDefined();
  const least = POLICY[rule as keyof typeof POLICY] ?? 'member';
  expect(RANK[least], what).toBeGreaterThan(RANK[role]);
}

test('a route of another project is closed whatever its form, also to its administrators', async () => {
  await using api = await Api.open({ server: { authenticator: people() } });
  const urls = (await routesOf(api)).filter(({ url }) => url.startsWith('/v3/:projectId'));
  for (const { method, url } of urls) {
    const path = filled(url, { volume: randomUUID(), snapshot: randomUUID() }).replace(ONE, OTHER);
    const reply = await api.ask(method, path, { headers: as('admin'), minor: MINOR });
    expect([reply.status, reply.body.badRequest?.message], `${method} ${url}`).toEqual([400, 'Malformed request url']);
  }
});

/** Said here once more, so that a rule that gets lost is noticed: what shows or changes more than one project. */
test.each([
  ['GET', '/quarry/status'],
  ['GET', '/quarry/scrub'],
  ['GET', '/os-services'],
  ['GET', '/scheduler-stats/get_pools'],
  ['PUT', `/os-quota-sets/${ONE}`],
  ['DELETE', `/os-quota-sets/${ONE}`],
  ['GET', '/os-quota-class-sets/default'],
  ['PUT', '/os-quota-class-sets/default'],
])('%s %s is for administrators', async (method, path) => {
  await using api = await Api.open({ server: { authenticator: people() } });
  const body = method === 'PUT' ? {} : undefined;
  expect((await api.ask(method, `/v3${path}`, { headers: as('member'), body })).status).toBe(403);
  expect((await api.ask(method, `/v3${path}`, { headers: as('admin'), body })).status).not.toBe(403);
});

test.each([
  ['volumes', { 'os-reset_status': { status: 'error' } }],
  ['volumes', { 'os-force_delete': {} }],
  ['volumes', { 'os-extend_volume_completion': {} }],
  ['snapshots', { 'os-reset_status': { status: 'error' } }],
  ['snapshots', { 'os-force_delete': {} }],
] as const)('of %s the action %j is for administrators', async (collection, body) => {
  await using api = await Api.open({ server: { authenticator: people() } });
  const { volume, snapshot } = await make(api);
  const path = `/v3/${collection}/${collection === 'volumes' ? volume : snapshot}/action`;
  expect((await api.ask('POST', path, { headers: as('manager'), body })).status).toBe(403);
  expect((await api.ask('POST', path, { headers: as('admin elsewhere'), body })).status).not.toBe(403);
});
