import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { quarryFailing, quarryJson, quarryOn } from '../support/quarry.ts';

const URI = /^nbd\+unix:\/\/\/att-[0-9a-f]{32}\?socket=/;

let daemon: Daemon;

beforeAll(async () => {
  daemon = await startDaemon();
});
afterAll(async () => {
  await daemon?.stop();
});

const failing = (...args: string[]) => quarryFailing(daemon, ...args);

type Shown = { id: string; status: string; attachments: { attachment_id: string; host_name: string }[] };
const shown = async (name: string) => (await quarryJson(daemon, 'volume', 'show', name)) as Shown;
const uris = async (name: string) => (await quarryOn(daemon, 'volume', 'uri', name)).trim().split('\n');

describe('quarry volume attach and detach', () => {
  test('print the URI of an export that exists until it is detached', async () => {
    await quarryOn(daemon, 'volume', 'create', 'disk', '--size', '1');
    const uri = (await quarryOn(daemon, 'volume', 'attach', 'disk', '--host', 'worker1')).trim();
    expect(uri).toMatch(URI);
    expect(await shown('disk')).toMatchObject({ status: 'in-use', attachments: [{ host_name: 'worker1' }] });
    expect(await uris('disk')).toContain(uri);
    expect((await failing('volume', 'attach', 'disk', '--host', 'worker2')).code).toBe(4);
    expect((await failing('volume', 'delete', 'disk')).code).toBe(4);
    expect(await failing('volume', 'detach', 'disk', '--host', 'worker2')).toEqual({
      code: 4,
      stderr: expect.stringMatching(/is not attached on host worker2\.\n$/),
    });
    await quarryOn(daemon, 'volume', 'detach', 'disk', '--host', 'worker1');
    expect(await shown('disk')).toMatchObject({ status: 'available', attachments: [] });
    expect(await uris('disk')).not.toContain(uri);
    expect((await failing('volume', 'detach', 'disk')).code).toBe(4);
  });

  test('give the whole attachment as JSON, and end the one that is named', async () => {
    await quarryOn(daemon, 'volume', 'create', 'named', '--size', '1');
    const made = await quarryJson(daemon, 'volume', 'attach', 'named', '--mode', 'ro');
    expect(made).toMatchObject({
      status: 'attached',
      attach_mode: 'ro',
      connection_info: { driver_volume_type: 'nbd', access_mode: 'ro', uri: expect.stringMatching(URI) },
    });
    const { id } = made as { id: string };
    await quarryOn(daemon, 'volume', 'detach', 'named', '--attachment', id);
    expect((await failing('volume', 'detach', 'named', '--attachment', id)).code).toBe(3);
    expect((await failing('volume', 'attach', 'named', '--mode', 'both')).code).toBe(2);
    expect((await failing('volume', 'attach', 'nowhere')).code).toBe(3);
  });

  test('ask which one where a volume has several attachments', async () => {
    await quarryOn(daemon, 'type', 'create', 'shared', '--spec', 'multiattach=<is> True');
    await quarryOn(daemon, 'volume', 'create', 'both', '--size', '1', '--type', 'shared');
    const [one, two] = [
      await quarryOn(daemon, 'volume', 'attach', 'both', '--host', 'a'),
      await quarryOn(daemon, 'volume', 'attach', 'both', '--host', 'b'),
    ];
    expect(one).not.toBe(two);
    const { code, stderr } = await failing('volume', 'detach', 'both');
    expect([code, stderr]).toEqual([2, expect.stringContaining('has 2 attachments. Give --host or --attachment')]);
    await quarryOn(daemon, 'volume', 'detach', 'both', '--host', 'a');
    expect(await shown('both')).toMatchObject({ status: 'in-use', attachments: [{ host_name: 'b' }] });
    await quarryOn(daemon, 'volume', 'detach', 'both');
    expect((await shown('both')).status).toBe('available');
  });
});

describe('quarry volume retype', () => {
  test('gives another type, keeps the old one where that cannot be, and refuses what is no type', async () => {
    await quarryOn(daemon, 'type', 'create', 'plain');
    await quarryOn(daemon, 'type', 'create', 'misfit', '--spec', 'vendor_name=Other');
    await quarryOn(daemon, 'volume', 'create', 'changing', '--size', '1');
    await quarryOn(daemon, 'volume', 'retype', 'changing', 'plain');
    expect(await quarryJson(daemon, 'volume', 'show', 'changing')).toMatchObject({ volume_type: 'plain' });
    const { code, stderr } = await failing('volume', 'retype', 'changing', 'misfit');
    expect([code, stderr]).toEqual([
      1,
      expect.stringContaining('it kept type plain: retype volume:Could not find any'),
    ]);
    expect(await quarryJson(daemon, 'volume', 'show', 'changing')).toMatchObject({
      ...{ volume_type: 'plain', status: 'available' },
    });
    expect((await failing('volume', 'retype', 'changing', 'plain')).code).toBe(4);
    expect((await failing('volume', 'retype', 'changing', 'nothing')).code).toBe(3);
  });
});

describe('quarry volume set', () => {
  test('changes name, description, metadata and the read-only flag, which clients then see', async () => {
    await quarryOn(daemon, 'volume', 'create', 'old', '--size', '1', '--metadata', 'a=1');
    await quarryOn(
      ...([daemon, 'volume', 'set', 'old', '--name', 'new', '--description', 'text'] as const),
      ...['--metadata', 'b=2', '--unset', 'a', '--readonly', 'on'],
    );
    const volume = await quarryJson(daemon, 'volume', 'show', 'new');
    expect(volume).toMatchObject({ name: 'new', description: 'text', metadata: { b: '2', readonly: 'True' } });
    expect(volume).not.toHaveProperty('metadata.a');
    const attached = await quarryJson(daemon, 'volume', 'attach', 'new');
    expect(attached).toMatchObject({ attach_mode: 'ro', connection_info: { access_mode: 'ro' } });
    expect((await failing('volume', 'set', 'new', '--readonly', 'off')).code).toBe(4);
    await quarryOn(daemon, 'volume', 'detach', 'new');
    await quarryOn(daemon, 'volume', 'set', 'new', '--readonly', 'off');
    expect((await failing('volume', 'set', 'new', '--readonly', 'maybe')).code).toBe(2);
    expect((await failing('volume', 'set', 'new')).code).toBe(2);
  });
});
