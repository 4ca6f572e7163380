import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { startDaemon } from '../support/daemon.ts';
import { MAIN, quarry, quarryJson, quarryOn } from '../support/quarry.ts';
import { tempFolder } from '../support/temp.ts';

describe('quarry serve', () => {
  test('serves the API on a free port when it is told so', async () => {
    await using daemon = await startDaemon({ api: 'tcp' });
    expect(daemon.url).toMatch(/^http:\/\/127\.0\.0\.1:[1-9]\d*$/);
    expect(await quarryJson(daemon, 'volume', 'list')).toEqual([]);
  });

  test('exits 5 on a folder that another daemon serves, and leaves that one alone', async () => {
    await using daemon = await startDaemon();
    await quarryOn(daemon, 'volume', 'create', 'kept', '--size', '1');
    await using folder = await tempFolder();
    const sockets = ['--api', `unix:${join(folder.path, 'a')}`, '--nbd', `unix:${join(folder.path, 'n')}`];
    const { code, stdout, stderr } = await quarry(['serve', '--data', daemon.dataDir, ...sockets]);
    expect({ code, stdout }).toEqual({ code: 5, stdout: '' });
    expect(stderr).toMatch(/in use by another quarry daemon/);
    expect(await quarryJson(daemon, 'volume', 'list')).toMatchObject([{ name: 'kept' }]);
  });

  test('exits 0 on SIGTERM and SIGINT, and serves what was there when it is started again', async () => {
    await using daemon = await startDaemon();
    await quarryOn(daemon, 'volume', 'create', 'kept', '--size', '1');
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      expect(await daemon.kill(signal)).toEqual({ code: 0, signal: null });
      await daemon.start();
      expect(await quarryJson(daemon, 'volume', 'list')).toMatchObject([{ name: 'kept' }]);
    }
  });

  test('serves what was there after SIGKILL', async () => {
    await using daemon = await startDaemon();
    await quarryOn(daemon, 'volume', 'create', 'kept', '--size', '1');
    await daemon.restart('SIGKILL');
    expect(await quarryJson(daemon, 'volume', 'list')).toMatchObject([{ name: 'kept' }]);
  });

  test('refuses an open address without --insecure, and a flag it does not know', async () => {
    await using folder = await tempFolder();
    const open = await quarry(['serve', '--data', join(folder.path, 'd'), '--api', '0.0.0.0:0']);
    expect(open.code).toBe(2);
    expect(open.stderr).toMatch(/--insecure/);
    expect((await quarry(['serve', '--frob'])).code).toBe(2);
  });
});

describe('npm start', () => {
  test('makes a first volume, says how to attach it, and stops on Ctrl-C; again it serves the same', async () => {
    await using folder = await tempFolder();
    const start = join(MAIN, '..', 'start.js');
    const program = `import(${JSON.stringify(start)}).then((module) => module.main(process.argv.slice(1)))`;
    const pages: string[] = [];
    for (let round = 0; round < 2; round += 1) {
      const args = ['-e', program, '--', '--data', join(folder.path, 'd'), '--api', `unix:${join(folder.path, 'a')}`];
      const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
      let page = '';
      for await (const chunk of child.stdout) {
        page += chunk;
        if (page.includes('Ctrl-C stops it')) break;
      }
      const ended = once(child, 'close');
      child.kill('SIGINT');
      expect(await ended).toEqual([0, null]);
      pages.push(page);
    }
    expect(pages[0]).toMatch(/volume +demo, 10 GiB/);
    expect(pages[0]).toMatch(/NBD URI +nbd\+unix:\/\/\/demo\?socket=/);
    expect(pages[0]).toMatch(/nbd-client +sudo nbd-client -unix \S+ \/dev\/nbd0 -N demo\n/);
    expect(pages[0]).toMatch(/qemu +qemu-system-x86_64 .*-drive 'file=nbd\+unix:/);
    expect(pages[1]).toBe(pages[0]);
  });
});
