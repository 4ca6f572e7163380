/**
 * Attachments with real clients over real sockets: an export exists for its attachment alone, under a name that only the
 * attachment tells, and whoever came through it is gone when the attachment is.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { describeWith, run, tryRun } from '../support/peers.ts';
import { quarry, quarryJson, quarryOn } from '../support/quarry.ts';
import { tempFolder } from '../support/temp.ts';
import { startClient } from './client.ts';

const TIMEOUT_MS = 120_000;
const HEADERS = { 'openstack-api-version': 'volume 3.54' };

type Connection = { readonly name: string; readonly uri: string; readonly access_mode: string };
type Attachment = { readonly id: string; readonly status: string; readonly connection_info: Connection };

async function attachment(daemon: Daemon, fields: object): Promise<Attachment> {
  const { status, body } = await daemon.request('POST', '/v3/attachments', { attachment: fields }, HEADERS);
  expect(status).toBe(200);
  return (body as { attachment: Attachment }).attachment;
}

async function volume(daemon: Daemon, name: string): Promise<string> {
  return (await quarryOn(daemon, 'volume', 'create', name, '--size', '1', '-o', 'value', '-c', 'id')).trim();
}

const io = (uri: string, ...commands: string[]) =>
  tryRun('qemu-io', ['-f', 'raw', ...commands.flatMap((command) => ['-c', command]), uri]);
const readOnlyIo = (uri: string, ...commands: string[]) =>
  tryRun('qemu-io', ['-r', '-f', 'raw', ...commands.flatMap((command) => ['-c', command]), uri]);

describeWith(['qemu-io', 'qemu-img', 'nbdinfo', 'nbdsh'], 'an attachment with real clients', () => {
  it(
    'is reached by its own name alone, which no list shows, and survives kill and restart',
    async () => {
      await using daemon = await startDaemon();
      const id = await volume(daemon, 'disk');
      const { connection_info } = await attachment(daemon, { volume_uuid: id, connector: { host: 'here' } });
      const { name, uri } = connection_info;
      expect(name).toMatch(/^att-[0-9a-f]{32}$/);
      expect((await io(uri, 'write -P 7 0 64k', 'flush', 'read -P 7 0 64k')).code).toBe(0);

      const list = JSON.parse(await run('nbdinfo', ['--list', '--json', `nbd+unix:///?socket=${daemon.nbdSocket}`]));
      const listed = list.exports.map((item: Record<string, unknown>) => item['export-name']);
      expect(listed).toContain(id);
      expect(listed).not.toContain(name);
      const last = name.endsWith('0') ? '1' : '0';
      for (const wrong of [`${name.slice(0, -1)}${last}`, name.slice(0, -1), name.toUpperCase(), 'att-'])
        expect((await io(daemon.uri(wrong), 'read 0 4k')).code, wrong).not.toBe(0);

      for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
        await daemon.restart(signal);
        expect((await readOnlyIo(daemon.uri(name), 'read -P 7 0 64k')).code).toBe(0);
      }
    },
    TIMEOUT_MS,
  );

  it(
    'ends the connections that came through it before it says that it is gone, and no others',
    async () => {
      await using daemon = await startDaemon();
      const id = await volume(daemon, 'disk');
      const one = await attachment(daemon, { volume_uuid: id, connector: { host: 'here' } });
      await using client = await startClient(one.connection_info.uri);
      await using neighbour = await startClient(daemon.uri(id));
      expect(await client.write(0)).toBe('ok');
      expect(await neighbour.write(4096)).toBe('ok');
      const refused = await daemon.request('DELETE', `/v3/volumes/${id}`);
      expect(refused.status).toBe(400);
      const { status } = await daemon.request('DELETE', `/v3/attachments/${one.id}`, undefined, HEADERS);
      expect(status).toBe(200);
      expect(await client.write(0)).not.toBe('ok');
      expect(await neighbour.write(8192)).toBe('ok');
      expect((await io(one.connection_info.uri, 'read 0 4k')).code).not.toBe(0);
    },
    TIMEOUT_MS,
  );

  it(
    'of mode ro refuses writes, and the commands attach and detach do the same',
    async () => {
      await using daemon = await startDaemon();
      const id = await volume(daemon, 'disk');
      const uri = (await quarryOn(daemon, 'volume', 'attach', 'disk', '--host', 'reader', '--mode', 'ro')).trim();
      expect(await quarryJson(daemon, 'volume', 'show', 'disk')).toMatchObject({
        status: 'in-use',
        attachments: [{ host_name: 'reader', volume_id: id }],
      });
      expect(JSON.parse(await run('nbdinfo', ['--json', uri])).exports[0]).toMatchObject({ is_read_only: true });
      expect((await io(uri, 'write 0 4k')).code).not.toBe(0);
      expect((await readOnlyIo(uri, 'read -P 0 0 4k')).code).toBe(0);
      expect((await quarryOn(daemon, 'volume', 'uri', 'disk')).split('\n')).toContain(uri);
      const busy = await quarry(['--url', daemon.url, 'volume', 'attach', 'disk']);
      expect([busy.code, busy.stderr]).toEqual([4, expect.stringContaining('in-use')]);
      await quarryOn(daemon, 'volume', 'detach', 'disk', '--host', 'reader');
      expect(await quarryJson(daemon, 'volume', 'show', 'disk')).toMatchObject({ status: 'available' });
      expect((await readOnlyIo(uri, 'read 0 4k')).code).not.toBe(0);
      expect((await quarry(['--url', daemon.url, 'volume', 'detach', 'disk'])).code).toBe(4);

      await quarryOn(daemon, 'volume', 'set', 'disk', '--readonly', 'on');
      const again = await quarryJson(daemon, 'volume', 'attach', 'disk');
      expect(again).toMatchObject({ attach_mode: 'ro', connection_info: { access_mode: 'ro' } });
    },
    TIMEOUT_MS,
  );

  it(
    'is published without anything else where a token is needed',
    async () => {
      const token = 'a-token-of-thirty-two-characters';
      await using folder = await tempFolder();
      const config = join(folder.path, 'quarry.toml');
      const row = { token, project_id: 'p1', user_id: 'u1', roles: ['member'] };
      const lines = Object.entries(row).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
      await writeFile(config, ['auth = "token"', '[[tokens]]', ...lines, ''].join('\n'));
      await using daemon = await startDaemon({ args: ['--config', config] });
      const headers = { ...HEADERS, 'x-auth-token': token };
      const created = await daemon.request('POST', '/v3/volumes', { volume: { size: 1, name: 'disk' } }, headers);
      expect(created.status).toBe(202);
      const { id } = (created.body as { volume: { id: string } }).volume;
      await expect
        .poll(async () => (await daemon.request('GET', `/v3/volumes/${id}`, undefined, headers)).body)
        .toMatchObject({ volume: { status: 'available' } });
      expect((await io(daemon.uri(id), 'read 0 4k')).code).not.toBe(0);
      const fields = { volume_uuid: id, connector: { host: 'here' } };
      const made = await daemon.request('POST', '/v3/attachments', { attachment: fields }, headers);
      const { connection_info } = (made.body as { attachment: Attachment }).attachment;
      expect((await io(connection_info.uri, 'write -P 3 0 4k', 'flush')).code).toBe(0);
      await daemon.restart('SIGKILL');
      expect((await io(connection_info.uri, 'read -P 3 0 4k')).code).toBe(0);
      const list = await tryRun('nbdinfo', ['--list', '--json', `nbd+unix:///?socket=${daemon.nbdSocket}`]);
      expect(list.stdout).not.toContain(connection_info.name);
    },
    TIMEOUT_MS,
  );
});
