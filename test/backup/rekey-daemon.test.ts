/** A daemon whose backups are encrypted changes its key by the command line, and is killed while it does. */
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { NbdClient } from '../../src/image/nbd-client.ts';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { quarry, quarryFailing, quarryJson, quarryOn } from '../support/quarry.ts';
import { tempFolder } from '../support/temp.ts';

test('the key is changed, and the daemon goes on with the new one alone', async () => {
  await using temp = await tempFolder();
  const config = join(temp.path, 'quarry.toml');
  const pathOf = (name: string): string => join(temp.path, name);
  for (const name of ['old', 'new']) await writeFile(pathOf(name), randomBytes(32).toString('hex'));
  const configure = (lines: readonly string[]) => writeFile(config, lines.join('\n'));
  await configure([`backup_key_file = "${pathOf('old')}"`]);
  await using daemon = await startDaemon({ args: ['--config', config] });
  await quarryOn(daemon, 'volume', 'create', 'disk', '--size', '1');
  const data = await write(daemon, 0);
  await quarryOn(daemon, 'backup', 'create', 'disk', 'first');

  await configure([`backup_key_file = "${pathOf('new')}"`]);
  await daemon.restart();
  const lost = await quarryFailing(daemon, 'backup', 'restore', 'first', 'lost');
  expect(lost).toMatchObject({ code: 1, stderr: expect.stringContaining('error_restoring') });
  const refused = await quarry(['--url', daemon.url, 'backup', 'rekey']);
  expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining('backup_previous_key_files') });

  await configure([`backup_key_file = "${pathOf('new')}"`, `backup_previous_key_files = ["${pathOf('old')}"]`]);
  await daemon.restart();
  const more = await write(daemon, data.length);
  await quarryOn(daemon, 'backup', 'create', 'disk', 'second', '--incremental');
  await quarryOn(daemon, '--no-wait', 'backup', 'rekey');
  await daemon.restart('SIGKILL');
  expect(await quarryJson(daemon, 'backup', 'rekey')).toMatchObject({ state: 'done', foreign_count: 0 });

  await configure([`backup_key_file = "${pathOf('new')}"`]);
  await daemon.restart();
  for (const name of ['first', 'second']) {
    await quarryOn(daemon, 'backup', 'restore', name, `of-${name}`);
    await quarryOn(daemon, 'backup', 'verify', name);
    expect((await read(daemon, `of-${name}`, 0, data.length)).equals(data)).toBe(true);
  }
  expect((await read(daemon, 'of-second', data.length, more.length)).equals(more)).toBe(true);
});

/** To `disk`. */
async function write(daemon: Daemon, offset: number): Promise<Buffer> {
  const data = randomBytes(1 << 20);
  await using client = await NbdClient.connect(daemon.uri('disk'));
  await client.write(offset, data);
  await client.flush();
  return data;
}

async function read(daemon: Daemon, name: string, offset: number, length: number): Promise<Buffer> {
  await using client = await NbdClient.connect(daemon.uri(name));
  const target = Buffer.alloc(length);
  await client.read(offset, target);
  return target;
}
