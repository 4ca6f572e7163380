import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { quarry, quarryJson, quarryOn } from '../support/quarry.ts';

let daemon: Daemon;

beforeAll(async () => {
  daemon = await startDaemon();
});
afterAll(async () => {
  await daemon?.stop();
});

const value = async (column: string, ...args: string[]) =>
  (await quarryOn(daemon, '-o', 'value', '-c', column, ...args)).trim();
/** A new object, as the API has it. */
const made = async (...args: string[]) => (await quarryJson(daemon, ...args)) as Record<string, string>;
const failing = async (...args: string[]) => quarry(['--url', daemon.url, ...args]);

test('quarry transfer offers a volume with a key, which alone takes it; an offer can be withdrawn', async () => {
  const volume = await value('id', 'volume', 'create', 'gift', '--size', '1');
  const first = await made('transfer', 'create', 'gift', 'for-you');
  expect(first).toMatchObject({ volume_id: volume, name: 'for-you', no_snapshots: false });
  expect(await value('volume', 'transfer', 'show', 'for-you')).toBe(volume);
  expect(await value('id', 'transfer', 'list')).toBe(first['id']);
  const wrong = await failing('transfer', 'accept', first['id'] ?? '', '0000000000000000');
  expect([wrong.code, wrong.stderr]).toEqual([2, expect.stringContaining('invalid auth key')]);
  await quarryOn(daemon, 'transfer', 'delete', 'for-you');
  expect((await failing('transfer', 'show', 'for-you')).code).toBe(3);
  const second = await made('transfer', 'create', 'gift', '--no-snapshots');
  expect(second['no_snapshots']).toBe(true);
  expect(await value('volume', 'transfer', 'accept', second['id'] ?? '', second['auth_key'] ?? '')).toBe(volume);
  expect(await value('status', 'volume', 'show', 'gift')).toBe('available');
  await quarryOn(daemon, 'volume', 'delete', 'gift');
});

describe('quarry group', () => {
  test('makes a group, snapshots and copies it, and each is done when the command returns', async () => {
    await quarryOn(daemon, 'group', 'type', 'create', 'plain');
    const group = await value('id', 'group', 'create', 'g', '--type', 'plain');
    const ids = [];
    for (const name of ['one', 'two']) ids.push(await value('id', 'volume', 'create', name, '--size', '1'));
    expect(await value('volumes', 'group', 'add', 'g', 'one', 'two')).toBe(ids.join(' '));
    const snapshot = await value('id', 'group', 'snapshot', 'create', 'g', 'gs');
    expect(await value('status', 'group', 'snapshot', 'show', 'gs')).toBe('available');
    expect(await value('id', 'group', 'snapshot', 'list')).toBe(snapshot);
    const copy = await made('group', 'create', 'copy', '--from-snapshot', 'gs');
    expect(copy).toMatchObject({ status: 'available', group_snapshot_id: snapshot });
    expect(copy['volumes']).toHaveLength(2);
    const refused = await failing('group', 'delete', 'g', '--with-volumes');
    expect([refused.code, refused.stderr]).toEqual([4, expect.stringContaining('existing snapshots')]);
    await quarryOn(daemon, 'group', 'snapshot', 'delete', 'gs');
    expect((await failing('group', 'snapshot', 'show', 'gs')).code).toBe(3);
    expect(await value('volumes', 'group', 'remove', 'g', 'two')).toBe(ids[0]);
    await quarryOn(daemon, 'group', 'delete', group, 'copy', '--with-volumes');
    expect(await value('id', 'volume', 'list')).toBe(ids[1]);
    expect(await value('id', 'group', 'list')).toBe('');
    await quarryOn(daemon, 'group', 'type', 'delete', 'plain');
    expect(await value('name', 'group', 'type', 'list')).toBe('default_cgsnapshot_type');
    await quarryOn(daemon, 'volume', 'delete', 'two');
  });

  test('is made in one way', async () => {
    for (const ways of [[], ['--type', 't', '--from-group', 'g']])
      expect((await failing('group', 'create', 'g', ...ways)).code).toBe(2);
    expect((await failing('group', 'show', 'nobody')).code).toBe(3);
  });
});

test('quarry message lists nothing where nothing failed, and knows no other', async () => {
  expect(await quarryJson(daemon, 'message', 'list')).toEqual([]);
  for (const verb of ['show', 'delete']) expect((await failing('message', verb, 'nobody')).code).toBe(3);
});
