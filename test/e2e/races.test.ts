/**
 * Requests that exclude each other, sent at once over connections of their own to the real daemon: one is granted, the
 * others get the refusal that the API promises, and what is left is as if they had come one after the other.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Answer, ApiPool, type Json } from '../support/api-pool.ts';
import { type Daemon, startDaemon } from '../support/daemon.ts';

/** Each pair meets this often: which one comes first differs from time to time. */
const TIMES = 5;
const AT_ONCE = 4;

let daemon: Daemon;
let api: ApiPool;

beforeAll(async () => {
  daemon = await startDaemon();
  api = new ApiPool(daemon);
  await api.make('/types', { volume_type: { name: 'A' } });
  await api.make('/types', { volume_type: { name: 'B' } });
});
afterAll(async () => {
  await api?.[Symbol.asyncDispose]();
  await daemon?.stop();
});

/** Null when it is gone. */
async function settled(path: string): Promise<Json | null> {
  const passing = ['creating', 'extending', 'retyping', 'reverting', 'deleting'];
  let found: Json = null;
  await expect
    .poll(
      async () => {
        const { status, body } = await api.ask('GET', path);
        found = status === 404 ? null : Object.values(body)[0];
        return found?.status;
      },
      { timeout: 30_000, interval: 20 },
    )
    .not.toSatisfy((status: string | undefined) => passing.includes(status ?? ''));
  return found;
}

async function volume(fields: object = {}): Promise<string> {
  const { id } = await api.make('/volumes', { volume: { size: 1, ...fields } });
  expect(await settled(`/volumes/${id}`)).toMatchObject({ status: 'available' });
  return id;
}

const granted = (answers: readonly Answer[]): Answer[] => answers.filter(({ status }) => status < 300);
const refused = (answers: readonly Answer[]): number[] =>
  [...new Set(answers.map(({ status }) => status).filter((status) => status >= 300))].sort();

type Race = {
  readonly ask: (id: string, index: number) => Promise<Answer>;
  /** Statuses that the losers may get. */
  readonly refusals: readonly number[];
  readonly after: (found: Json | null, id: string) => void | Promise<void>;
};

const attachments = async (id: string): Promise<Json[]> =>
  (await api.ask('GET', `/attachments?volume_id=${id}`)).body.attachments;

const RACES: Readonly<Record<string, Race>> = {
  'delete and delete': {
    ask: (id) => api.ask('DELETE', `/volumes/${id}`),
    // 404 where the first was done before the next was looked at.
    refusals: [400, 404],
    after: (found) => expect(found).toBeNull(),
  },
  'extend and extend': {
    ask: (id, index) => api.act(id, { 'os-extend': { new_size: 2 + index } }),
    refusals: [400],
    after: (found) => expect(found).toMatchObject({ status: 'available' }),
  },
  'retype and retype': {
    ask: (id, index) => api.act(id, { 'os-retype': { new_type: ['A', 'B'][index % 2], migration_policy: 'never' } }),
    refusals: [400],
    after: (found) =>
      expect(found).toMatchObject({ status: 'available', volume_type: expect.stringMatching(/^[AB]$/) }),
  },
  'attach and attach': {
    ask: (id) => api.ask('POST', '/attachments', { attachment: { volume_uuid: id, connector: { host: 'h' } } }),
    refusals: [400],
    after: async (found, id) => {
      expect(found).toMatchObject({ status: 'attaching' });
      expect(await attachments(id)).toHaveLength(1);
    },
  },
  'the older attach and attach': {
    ask: (id, index) => api.act(id, { 'os-attach': { host_name: `h${index}`, mountpoint: '/dev/vdb' } }),
    refusals: [400],
    after: async (found, id) => {
      expect(found).toMatchObject({ status: 'in-use' });
      expect(await attachments(id)).toHaveLength(1);
    },
  },
  'offer and attach': {
    ask: (id, index) =>
      index % 2 === 0
        ? api.ask('POST', '/volume-transfers', { transfer: { volume_id: id } })
        : api.ask('POST', '/attachments', { attachment: { volume_uuid: id, connector: { host: 'h' } } }),
    refusals: [400],
    after: async (found, id) =>
      expect(await attachments(id)).toHaveLength(found.status === 'awaiting-transfer' ? 0 : 1),
  },
  'delete and attach': {
    ask: (id, index) =>
      index % 2 === 0
        ? api.ask('DELETE', `/volumes/${id}`)
        : api.ask('POST', '/attachments', { attachment: { volume_uuid: id, connector: { host: 'h' } } }),
    refusals: [400, 404],
    after: async (found, id) => expect(await attachments(id)).toHaveLength(found === null ? 0 : 1),
  },
  'delete and extend': {
    ask: (id, index) =>
      index % 2 === 0 ? api.ask('DELETE', `/volumes/${id}`) : api.act(id, { 'os-extend': { new_size: 2 } }),
    refusals: [400, 404],
    after: (found) => expect([undefined, 'available']).toContain(found?.status),
  },
};

describe.each(Object.entries(RACES))('%s', (_, { ask, refusals, after }) => {
  test('of one volume at once: one is granted', async () => {
    for (let time = 1; time <= TIMES; time += 1) {
      const id = await volume();
      const answers = await Promise.all(Array.from({ length: AT_ONCE }, (_unused, index) => ask(id, index)));
      const found = await settled(`/volumes/${id}`);
      const said = JSON.stringify(answers);
      // Extensions that come late enough are no race any more: the volume is free again.
      expect(granted(answers).length, said).toBeGreaterThanOrEqual(1);
      if (found?.status !== 'available') expect(granted(answers), said).toHaveLength(1);
      for (const status of refused(answers)) expect(refusals, said).toContain(status);
      await after(found, id);
    }
  });
});

test('delete and snapshot: the snapshot keeps its volume, or comes too late', async () => {
  for (let time = 1; time <= TIMES; time += 1) {
    const id = await volume();
    const [gone, taken] = (await Promise.all([
      api.ask('DELETE', `/volumes/${id}`),
      api.ask('POST', '/snapshots', { snapshot: { volume_id: id } }),
    ])) as [Answer, Answer];
    const found = await settled(`/volumes/${id}`);
    if (gone.status === 202) {
      expect([400, 404]).toContain(taken.status);
      expect(found).toBeNull();
    } else {
      expect([gone.status, taken.status]).toEqual([400, 202]);
      expect(await settled(`/snapshots/${taken.body.snapshot.id}`)).toMatchObject({ status: 'available' });
      expect(found).toMatchObject({ status: 'available' });
    }
  }
});

test('an offer is accepted by one of those who know its key', async () => {
  for (let time = 1; time <= TIMES; time += 1) {
    const id = await volume();
    const { id: transfer, auth_key } = await api.make('/volume-transfers', { transfer: { volume_id: id } });
    const projects = Array.from({ length: AT_ONCE }, (_unused, index) => `taker${index}`);
    const answers = await Promise.all(
      projects.map((project) =>
        api.ask('POST', `/${project}/volume-transfers/${transfer}/accept`, { accept: { auth_key } }),
      ),
    );
    expect(granted(answers)).toHaveLength(1);
    expect(refused(answers)).toEqual([404]);
    const winner = projects[answers.findIndex(({ status }) => status === 202)];
    expect(await settled(`/volumes/${id}`)).toMatchObject({ 'os-vol-tenant-attr:tenant_id': winner });
  }
});

test('the last free place of a quota is given once, and given back when its volume is gone', async () => {
  const project = 'narrow';
  expect((await api.ask('PUT', `/os-quota-sets/${project}`, { quota_set: { volumes: 3, gigabytes: 3 } })).status).toBe(
    200,
  );
  const create = () => api.ask('POST', `/${project}/volumes`, { volume: { size: 1 } });
  for (let time = 1; time <= 2; time += 1) {
    const answers = await Promise.all(Array.from({ length: 20 }, create));
    expect(granted(answers)).toHaveLength(time === 1 ? 3 : 1);
    expect(refused(answers)).toEqual([413]);
    const made = granted(answers).map(({ body }) => body.volume.id);
    for (const id of made) await settled(`/volumes/${id}`);
    const { quota_set: use } = (await api.ask('GET', `/os-quota-sets/${project}?usage=true`)).body;
    expect(use.volumes).toMatchObject({ in_use: 3, reserved: 0 });
    expect(use.gigabytes).toMatchObject({ in_use: 3, reserved: 0 });
    expect((await api.ask('DELETE', `/${project}/volumes/${made[0]}`)).status).toBe(202);
    expect(await settled(`/volumes/${made[0]}`)).toBeNull();
  }
});
