/**
 * Every verb of a volume in every condition that another part of the API can bring it into: in a group, on offer,
 * reserved, exported, attached, with snapshots, or in a status under way. What is refused must also change nothing.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Api, type Reply } from './api.ts';

const MINOR = 71;
const HOST = { host: 'compute1' };

let api: Api;
let groupType = '';
let group = '';
let otherGroup = '';

const ask = (method: string, path: string, body?: unknown): Promise<Reply> =>
  api.ask(method, `/v3${path}`, { minor: MINOR, ...(body !== undefined && { body }) });
const act = (id: string, body: Record<string, unknown>): Promise<Reply> => ask('POST', `/volumes/${id}/action`, body);

async function done(reply: Promise<Reply>): Promise<Reply> {
  const { status, body } = await reply;
  if (status >= 300) throw new Error(`${status}: ${JSON.stringify(body)}`);
  await api.settle();
  return reply;
}

async function newGroup(): Promise<string> {
  const made = await done(ask('POST', '/groups', { group: { group_type: groupType, volume_types: ['__DEFAULT__'] } }));
  return made.body.group.id;
}

beforeAll(async () => {
  api = await Api.open();
  const made = await done(ask('POST', '/group_types', { group_type: { name: 'gt' } }));
  groupType = made.body.group_type.id;
  [group, otherGroup] = [await newGroup(), await newGroup()];
  await done(ask('POST', '/types', { volume_type: { name: 'another' } }));
});
afterAll(async () => api[Symbol.asyncDispose]());

const attachment = (id: string, connector?: object): Promise<Reply> =>
  done(ask('POST', '/attachments', { attachment: { volume_uuid: id, ...(connector && { connector }) } }));

async function attached(id: string): Promise<void> {
  const { body } = await attachment(id, HOST);
  await done(ask('POST', `/attachments/${body.attachment.id}/action`, { 'os-complete': {} }));
}

const inStatus = (status: string) => async (id: string) =>
  void (await done(act(id, { 'os-reset_status': { status } })));

const CONDITIONS = {
  free: async () => {},
  'with a snapshot': async (id) => void (await api.createSnapshot(id)),
  'in a group': async (id) => void (await done(ask('PUT', `/groups/${group}`, { group: { add_volumes: id } }))),
  'on offer': async (id) => void (await done(ask('POST', '/volume-transfers', { transfer: { volume_id: id } }))),
  reserved: async (id) => void (await attachment(id)),
  connected: async (id) => void (await attachment(id, HOST)),
  attached,
  detaching: async (id) => {
    await attached(id);
    await done(act(id, { 'os-begin_detaching': {} }));
  },
  exported: async (id) => void (await done(act(id, { 'os-initialize_connection': { connector: HOST } }))),
  'called available though attached': async (id) => {
    await attached(id);
    await inStatus('available')(id);
  },
  creating: inStatus('creating'),
  extending: inStatus('extending'),
  retyping: inStatus('retyping'),
  'backing-up': inStatus('backing-up'),
  'restoring-backup': inStatus('restoring-backup'),
  maintenance: inStatus('maintenance'),
  error: inStatus('error'),
  error_extending: inStatus('error_extending'),
  error_restoring: inStatus('error_restoring'),
  'error_backing-up': inStatus('error_backing-up'),
} as const satisfies Record<string, (id: string) => Promise<void>>;
type Condition = keyof typeof CONDITIONS;
const ALL = Object.keys(CONDITIONS) as Condition[];
const but = (...not: Condition[]): Condition[] => ALL.filter((one) => !not.includes(one));

/** Statuses as of a volume that nobody holds. */
const FREE: Condition[] = ['free', 'with a snapshot', 'in a group', 'exported', 'called available though attached'];
const UNATTACHED = FREE.filter((one) => one !== 'called available though attached');
const HELD: Condition[] = ['connected', 'attached', 'detaching', 'exported', 'called available though attached'];

type Verb = {
  readonly run: (id: string, prepared: string) => Promise<Reply>;
  readonly allowed: readonly Condition[];
  readonly refusal?: number;
  /** Before the condition. */
  readonly prepare?: (id: string) => Promise<string>;
  readonly except?: readonly Condition[];
};

const DELETABLE: Condition[] = ['free', 'error', 'error_extending', 'error_restoring'];

const VERBS: Readonly<Record<string, Verb>> = {
  delete: { run: (id) => ask('DELETE', `/volumes/${id}`), allowed: DELETABLE },
  'delete with snapshots': {
    run: (id) => ask('DELETE', `/volumes/${id}?cascade=true`),
    allowed: [...DELETABLE, 'with a snapshot'],
  },
  'delete by force': {
    run: (id) => act(id, { 'os-force_delete': {} }),
    allowed: but(...HELD, 'in a group', 'with a snapshot'),
  },
  extend: { run: (id) => act(id, { 'os-extend': { new_size: 2 } }), allowed: [...FREE, 'attached'] },
  retype: {
    run: (id) => act(id, { 'os-retype': { new_type: 'another', migration_policy: 'never' } }),
    allowed: [...FREE, 'attached'].filter((one): one is Condition => one !== 'in a group'),
  },
  snapshot: {
    run: (id) => ask('POST', '/snapshots', { snapshot: { volume_id: id } }),
    allowed: [...FREE, 'attached'],
  },
  clone: {
    run: (id) => ask('POST', '/volumes', { volume: { source_volid: id } }),
    allowed: [...FREE, 'on offer', 'reserved', 'connected', 'attached', 'detaching', 'backing-up'],
  },
  revert: {
    prepare: (id) => api.createSnapshot(id),
    run: (id, snapshot_id) => act(id, { revert: { snapshot_id } }),
    allowed: ['free', 'in a group'],
    refusal: 409,
    // Then it is not the newest any more.
    except: ['with a snapshot'],
  },
  reserve: { run: (id) => act(id, { 'os-reserve': {} }), allowed: FREE },
  attach: {
    run: (id) => act(id, { 'os-attach': { host_name: 'compute2', mountpoint: '/dev/vdb' } }),
    allowed: UNATTACHED,
  },
  'create an attachment': {
    run: (id) => ask('POST', '/attachments', { attachment: { volume_uuid: id } }),
    allowed: UNATTACHED,
  },
  'initialize a connection': {
    run: (id) => act(id, { 'os-initialize_connection': { connector: HOST } }),
    allowed: [...FREE, 'reserved', 'connected', 'attached', 'detaching'],
  },
  'begin to detach': { run: (id) => act(id, { 'os-begin_detaching': {} }), allowed: ['attached'] },
  detach: { run: (id) => act(id, { 'os-detach': {} }), allowed: but('maintenance') },
  offer: {
    run: (id) => ask('POST', '/volume-transfers', { transfer: { volume_id: id } }),
    allowed: ['free', 'with a snapshot'],
  },
  'make read-only': {
    run: (id) => act(id, { 'os-update_readonly_flag': { readonly: true } }),
    allowed: ['free', 'with a snapshot', 'in a group'],
  },
  'add to a group': {
    run: (id) => ask('PUT', `/groups/${otherGroup}`, { group: { add_volumes: id } }),
    allowed: [...FREE, 'attached'].filter((one): one is Condition => one !== 'in a group'),
  },
  rename: { run: (id) => ask('PUT', `/volumes/${id}`, { volume: { name: 'new' } }), allowed: but('maintenance') },
  'set metadata': {
    run: (id) => ask('POST', `/volumes/${id}/metadata`, { metadata: { a: 'b' } }),
    allowed: but('maintenance'),
  },
};

const shown = async (id: string) => (await ask('GET', `/volumes/${id}`)).body;

describe.each(Object.entries(VERBS))('to %s', (name, { run, allowed, refusal = 400, prepare, except = [] }) => {
  test.each(ALL.filter((one) => !except.includes(one)))('of a volume that is %s', async (condition) => {
    const id = await api.createVolume();
    const prepared = (await prepare?.(id)) ?? '';
    await CONDITIONS[condition](id);
    const before = await shown(id);
    const { status, body } = await run(id, prepared);
    await api.settle();
    const about = `${name}, ${condition}: ${status} ${JSON.stringify(body)}`;
    if (allowed.includes(condition)) {
      expect(status, about).toBeLessThan(300);
      return;
    }
    expect(status, about).toBe(refusal);
    expect(Object.keys(body), about).toEqual([refusal === 400 ? 'badRequest' : 'conflictingRequest']);
    expect(await shown(id), about).toEqual(before);
  });
});
