import { describe, expect, test } from 'vitest';
import type { MemoryBackend } from '../../src/backend/memory.ts';
import { Failure } from '../../src/base/errors.ts';
import {
  deleteMessage,
  getMessage,
  listMessages,
  noteFailure,
  removeExpiredMessages,
} from '../../src/control/messages.ts';
import { CALLER, World } from '../control/world.ts';
import { Api } from './api.ts';

/** A backend of which some calls fail while `broken` names them. */
function breakable(broken: Set<string>) {
  return {
    aroundBackend: (backend: MemoryBackend) =>
      new Proxy(backend, {
        get(target, name) {
          const value: unknown = Reflect.get(target, name, target);
          if (typeof value !== 'function') return value;
          return (...args: unknown[]) => {
            if (broken.has(String(name)))
              return Promise.reject(new Failure('io_error', { reason: `/dev/x: ${String(name)}` }));
            return Reflect.apply(value, target, args);
          };
        },
      }),
  };
}

const messages = async (api: Api, query = '', minor = 71) =>
  (await api.ask('GET', `/v3/messages?${query}`, { minor })).body.messages;

describe('work that fails after its 202', () => {
  test('leaves a message with the ids and words that clients know, and the id of the request', async () => {
    const broken = new Set<string>();
    await using api = await Api.open(breakable(broken));
    const volume = await api.createVolume();
    const snapshot = await api.createSnapshot(volume);
    const expected: [
      call: string,
      ask: () => Promise<{ headers: Record<string, unknown> }>,
      event: string,
      text: string,
      id?: string,
    ][] = [
      [
        'createVolume',
        () => api.ask('POST', '/v3/volumes', { body: { volume: { size: 1 } } }),
        'VOLUME_VOLUME_008_012',
        'create volume from backend storage:Driver failed to create the volume.',
      ],
      [
        'resizeVolume',
        () => api.act(volume, { 'os-extend': { new_size: 2 } }),
        'VOLUME_VOLUME_007_010',
        'extend volume:Volume Driver failed to extend volume.',
        volume,
      ],
      [
        'createSnapshot',
        () => api.ask('POST', '/v3/snapshots', { body: { snapshot: { volume_id: volume, force: true } } }),
        'VOLUME_VOLUME_SNAPSHOT_009_013',
        'create snapshot:Snapshot failed to create.',
      ],
      [
        'delete',
        () => api.ask('DELETE', `/v3/snapshots/${snapshot}`),
        'VOLUME_VOLUME_SNAPSHOT_010_016',
        'delete snapshot:Snapshot failed to delete.',
        snapshot,
      ],
    ];
    for (const [call, ask, event, text, id] of expected) {
      broken.add(call);
      const { headers } = await ask();
      await api.settle();
      broken.clear();
      await api.act(volume, { 'os-reset_status': { status: 'available' } });
      const [newest] = await messages(api);
      expect(newest).toMatchObject({
        event_id: event,
        user_message: text,
        message_level: 'ERROR',
        resource_type: event.includes('SNAPSHOT') ? 'VOLUME_SNAPSHOT' : 'VOLUME',
        request_id: headers['x-openstack-request-id'],
      });
      if (id !== undefined) expect(newest.resource_uuid).toBe(id);
      // What went wrong exactly is for whoever runs the daemon.
      expect(JSON.stringify(newest)).not.toContain('/dev/x');
      const lifetime = Date.parse(`${newest.guaranteed_until}Z`) - Date.parse(`${newest.created_at}Z`);
      expect(lifetime).toBe(30 * 24 * 3600 * 1000);
    }
    expect(await messages(api)).toHaveLength(expected.length);
    const other = await api.createVolume();
    broken.add('delete');
    await api.ask('DELETE', `/v3/volumes/${other}`);
    await api.settle();
    expect((await messages(api, `resource_uuid=${other}`))[0]).toMatchObject({ event_id: 'VOLUME_VOLUME_900_001' });
  });

  test('says where nothing can hold a volume: new, of another type, or as a member of a copied group', async () => {
    await using api = await Api.open();
    const minor = 71;
    const created = async (path: string, body: unknown): Promise<{ id: string }> => {
      const reply = await api.ask('POST', `/v3${path}`, { body, minor });
      if (reply.status >= 300) throw new Error(`${reply.status}: ${JSON.stringify(reply.body)}`);
      await api.settle();
      return Object.values(reply.body)[0] as { id: string };
    };
    const extra_specs = { vendor_name: 'Other' };
    await created('/types', { volume_type: { name: 'elsewhere', extra_specs } });
    await created('/types', { volume_type: { name: 'plain' } });
    const misplaced = await created('/volumes', { volume: { size: 1, volume_type: 'elsewhere' } });
    expect((await messages(api, `resource_uuid=${misplaced.id}`))[0]).toMatchObject({
      event_id: 'VOLUME_VOLUME_001_003',
      user_message: 'schedule allocate volume:Could not find any available weighted backend.',
      message_level: 'ERROR',
      resource_type: 'VOLUME',
    });
    const volume = await api.createVolume();
    const retyped = await api.act(volume, { 'os-retype': { new_type: 'elsewhere', migration_policy: 'never' } });
    expect(retyped.status).toBe(202);
    expect(await api.status(volume)).toBe('available');
    expect((await messages(api, `resource_uuid=${volume}`))[0]).toMatchObject({
      event_id: 'VOLUME_VOLUME_902_003',
      request_id: retyped.headers['x-openstack-request-id'],
    });

    const groupType = await created('/group_types', { group_type: { name: 'gt' } });
    const group = { group_type: groupType.id, volume_types: ['plain'] };
    const source = await created('/groups', { group });
    const member = { size: 1, volume_type: 'plain', group_id: source.id };
    await created('/volumes', { volume: member });
    const service = { body: { binary: 'cinder-volume', host: 'here@pool' }, minor };
    expect((await api.ask('PUT', '/v3/os-services/disable', service)).status).toBe(200);
    const copy = await created('/groups/action', { 'create-from-src': { source_group_id: source.id } });
    expect((await messages(api, `resource_uuid=${copy.id}`))[0]).toMatchObject({
      event_id: 'VOLUME_VOLUME_GROUP_903_003',
      resource_type: 'VOLUME_GROUP',
    });
    const shown = (await api.ask('GET', `/v3/groups/${copy.id}?list_volume=true`, { minor })).body.group;
    expect(shown.status).toBe('error');
    expect(await Promise.all(shown.volumes.map((id: string) => api.status(id)))).toEqual(['error']);
    expect(api.world.backend.ids()).not.toContain(shown.volumes[0]);
  });

  test('success leaves none', async () => {
    await using api = await Api.open();
    await api.createVolume();
    expect(await messages(api)).toEqual([]);
  });
});

async function noteThree(world: World, projectIds: readonly string[] = ['p1', 'p1', 'p2']): Promise<void> {
  for (const [index, projectId] of projectIds.entries())
    await world.control.catalog.write((writer) =>
      noteFailure(world.control, writer, {
        projectId,
        resource: index === 0 ? 'VOLUME' : 'VOLUME_BACKUP',
        resourceId: `r${index}`,
        action: 'create_backup',
        detail: 'backup_create_failed',
        requestId: null,
        level: index === 1 ? 'WARNING' : 'ERROR',
      }),
    );
}

describe('the list of messages', () => {
  test('is paged and filtered from 3.5, and is not there before 3.3', async () => {
    await using api = await Api.open();
    await noteThree(api.world);
    const found = async (query: string, minor = 71): Promise<string[]> =>
      (await messages(api, query, minor)).map((message: { resource_uuid: string }) => message.resource_uuid);
    expect(await found('')).toEqual(['r2', 'r1', 'r0']);
    expect(await found('resource_type=VOLUME')).toEqual(['r0']);
    expect(await found('message_level=WARNING')).toEqual(['r1']);
    expect(await found('event_id=VOLUME_VOLUME_BACKUP_013_020&sort=created_at:asc')).toEqual(['r1', 'r2']);
    expect(await found('limit=1&offset=1')).toEqual(['r1']);
    expect(await found('limit=1', 4)).toHaveLength(3);
    expect((await api.ask('GET', '/v3/messages', { minor: 2 })).status).toBe(404);
    const { body } = await api.ask('GET', '/v3/messages?limit=2', { minor: 71, headers: { host: 'h' } });
    const next = await api.ask('GET', body.messages_links[0].href.replace('http://h', ''), { minor: 71 });
    expect(next.body.messages.map((message: { resource_uuid: string }) => message.resource_uuid)).toEqual(['r0']);
    expect((await api.ask('GET', '/v3/messages?marker=nobody', { minor: 71 })).status).toBe(404);
  });

  test('each can be shown and deleted', async () => {
    await using api = await Api.open();
    await noteThree(api.world);
    const [first] = await messages(api);
    const url = `/v3/messages/${first.id}`;
    expect((await api.ask('GET', url, { minor: 3 })).body.message).toEqual(first);
    expect((await api.ask('DELETE', url, { minor: 3 })).status).toBe(204);
    expect((await api.ask('GET', url, { minor: 3 })).status).toBe(404);
    expect((await api.ask('DELETE', url, { minor: 3 })).status).toBe(404);
    expect(await messages(api)).toHaveLength(2);
  });
});

test('a member sees and deletes the messages of its own project only, a reader deletes none', async () => {
  await using world = await World.open();
  await noteThree(world);
  const { control } = world;
  const listing = {
    projectId: null,
    filters: [],
    order: [{ column: 'id', descending: false }],
    marker: null,
    offset: 0,
    limit: 10,
  } as const;
  const all = await listMessages(control, CALLER, listing);
  const theirs = all.find((row) => row.project_id === 'p2');
  const own = all.find((row) => row.project_id === 'p1');
  const member = { ...CALLER, role: 'member', isAdmin: false } as const;
  await expect(getMessage(control, member, theirs?.id ?? '')).rejects.toMatchObject({ code: 'not_found' });
  await expect(deleteMessage(control, member, theirs?.id ?? '')).rejects.toMatchObject({ code: 'not_found' });
  await expect(deleteMessage(control, { ...member, role: 'reader' }, own?.id ?? '')).rejects.toMatchObject({
    code: 'forbidden',
  });
  await deleteMessage(control, member, own?.id ?? '');
  expect(await listMessages(control, CALLER, listing)).toHaveLength(2);
});

test('a message is neither shown nor kept after its time', async () => {
  const day = 24 * 3600 * 1000;
  let now = Date.parse('2026-01-01T00:00:00Z');
  await using world = await World.open({ now: () => now });
  await noteThree(world);
  const listing = {
    projectId: null,
    filters: [],
    order: [{ column: 'id', descending: false }],
    marker: null,
    offset: 0,
    limit: 10,
  } as const;
  const [message] = await listMessages(world.control, CALLER, listing);
  now += 29 * day;
  expect(await removeExpiredMessages(world.control)).toBe(0);
  expect(await listMessages(world.control, CALLER, listing)).toHaveLength(3);
  now += 2 * day;
  expect(await listMessages(world.control, CALLER, listing)).toEqual([]);
  await expect(getMessage(world.control, CALLER, message?.id ?? '')).rejects.toMatchObject({ code: 'not_found' });
  expect(await removeExpiredMessages(world.control)).toBe(3);
});
