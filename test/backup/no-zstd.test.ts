/** A daemon without the library for zstd: it says what is missing, when it is told to use it and when it has to. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { NbdClient } from '../../src/image/nbd-client.ts';
import { startDaemon } from '../support/daemon.ts';
import { quarry, quarryFailing, quarryOn } from '../support/quarry.ts';
import { tempFolder } from '../support/temp.ts';

/** Also for the threads of a process: as if it were not installed. */
const HIDE = `
const Module = require('node:module');
const resolve = Module._resolveFilename;
Module._resolveFilename = function (name, ...rest) {
  if (String(name).startsWith('zstd-napi')) throw new Error('not installed');
  return resolve.call(this, name, ...rest);
};
`;

test('without its library zstd is refused at the start, and a restore fails with the reason', async () => {
  await using folder = await tempFolder();
  const [config, hide] = [join(folder.path, 'quarry.toml'), join(folder.path, 'hide.cjs')];
  await writeFile(config, 'backup_compression = "zstd"\n');
  await writeFile(hide, HIDE);
  const env = { NODE_OPTIONS: `--require ${hide}` };
  const refused = await quarry(['serve', '--data', join(folder.path, 'data'), '--config', config], { env });
  expect([refused.code, refused.stderr]).toEqual([4, expect.stringContaining('zstd-napi')]);

  const backups = ['--backups', `file:${join(folder.path, 'backups')}`];
  {
    await using maker = await startDaemon({ args: ['--config', config, ...backups] });
    await quarryOn(maker, 'volume', 'create', 'disk', '--size', '1');
    await using client = await NbdClient.connect(maker.uri('disk'));
    await client.write(0, Buffer.alloc(1 << 20, 'much the same '));
    await client.flush();
    await quarryOn(maker, 'backup', 'create', 'disk', 'b', '--force');
  }
  await using other = await startDaemon({ args: backups, env });
  await quarryOn(other, 'backup', 'rescan');
  expect(await quarryFailing(other, 'backup', 'restore', 'b', 'again')).toMatchObject({ code: 1 });
  expect(other.log).toContain('need the optional package zstd-napi');
  expect(other.log).not.toContain('nobody thought of');
}, 120_000);
