/**
 * What a user does in the first hour, with nothing faked: a real filesystem imported, attached by qemu, libnbd and fio,
 * snapshotted under load, cloned, overwritten, grown, killed, checked and deleted until the disk is empty again.
 */
import { mkdir, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { fileDigest } from '../image/samples.ts';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { describeWith, run, tryRun } from '../support/peers.ts';
import { MAIN, quarryOn } from '../support/quarry.ts';
import { tempFolder } from '../support/temp.ts';
import { startWriter } from './writer.ts';

const GIB = 2 ** 30;
const TIMEOUT_MS = 600_000;

async function quarry(daemon: Daemon, ...args: string[]): Promise<string> {
  return (await quarryOn(daemon, ...args)).trim();
}

async function idOf(daemon: Daemon, kind: 'volume' | 'snapshot', name: string): Promise<string> {
  return quarry(daemon, kind, 'show', name, '-o', 'value', '-c', 'id');
}

/** Files of many sizes, with content that does not compress to nothing. */
async function makeFiles(folder: string): Promise<void> {
  let state = 1;
  for (let index = 0; index < 300; index += 1) {
    const path = join(folder, `directory-${index % 17}`);
    await mkdir(path, { recursive: true });
    const bytes = Buffer.alloc((index * 7919) % 600_000);
    for (let at = 0; at + 4 <= bytes.length; at += 4) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      bytes.writeUInt32LE(state, at);
    }
    await writeFile(join(path, `file-${index}`), bytes);
  }
}

/** Blocks that files of a folder take in the filesystem, in bytes. */
async function bytesOnDisk(folder: string): Promise<number> {
  let total = 0;
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) total += (await stat(join(entry.parentPath, entry.name))).blocks * 512;
  }
  return total;
}

const PEERS = ['qemu-img', 'qemu-io', 'nbdcopy', 'nbdinfo', 'nbdsh', 'fio', 'mkfs.ext4', 'e2fsck'];

describeWith(PEERS, 'the tour', () => {
  it(
    'an imported filesystem is attached, snapshotted, cloned, grown, killed and deleted, and is right at every step',
    async () => {
      await using folder = await tempFolder();
      await using daemon = await startDaemon();
      const image = join(folder.path, 'disk.ext4');
      await makeFiles(join(folder.path, 'tree'));
      await run('mkfs.ext4', ['-q', '-d', join(folder.path, 'tree'), image, '1G']);

      // Import, and attach with every client there is.
      await quarry(daemon, 'volume', 'create', 'disk', '--image', image, '--size', '4');
      const uri = daemon.uri('disk');
      const expectIdentical = async (left: string, right: string): Promise<void> => {
        expect(await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', left, right])).toMatch(
          /Images are identical/,
        );
      };
      await expectIdentical(image, uri);
      const info = JSON.parse(await run('nbdinfo', ['--json', uri]));
      expect(info.exports[0]).toMatchObject({ 'export-size': 4 * GIB, is_read_only: false, can_multi_conn: true });
      const map: { offset: number; length: number; type: number }[] = JSON.parse(
        await run('nbdinfo', ['--map', '--json', uri]),
      );
      expect(map.reduce((sum, { length }) => sum + length, 0)).toBe(4 * GIB);
      expect(map.some(({ type }) => type === 0)).toBe(true);
      // The hole behind the image, and whatever mkfs left empty, took no space.
      expect(await bytesOnDisk(join(daemon.dataDir, 'pool', 'extents'))).toBeLessThan(GIB / 2);

      // A snapshot while fio writes behind the filesystem, to extents that are checked afterwards.
      const fioArgs = ['--name=load', '--ioengine=nbd', `--uri=${uri}`, '--offset=1g', '--size=512m', '--rw=randwrite'];
      const checks = ['--verify=crc32c', '--do_verify=1', '--io_size=256m'];
      // fio leaves a file behind where it runs.
      const fio = run('fio', [...fioArgs, '--bs=4k', '--iodepth=32', ...checks], { cwd: folder.path });
      for (let taken = 1; taken <= 5; taken += 1)
        await quarry(daemon, 'snapshot', 'create', 'disk', `under-load-${taken}`);
      await fio;
      await quarry(daemon, 'snapshot', 'create', 'disk', 'before');
      const snapshotUri = daemon.uri(await idOf(daemon, 'snapshot', 'before'));
      const before = join(folder.path, 'before.raw');
      await run('nbdcopy', [snapshotUri, before], { timeoutMs: TIMEOUT_MS });
      await expectIdentical(before, uri);
      const digest = await fileDigest(before);

      // Snapshots are read-only; a clone and its source are written and do not see each other.
      expect((await tryRun('qemu-io', ['-f', 'raw', '-c', 'write -P 1 0 4k', snapshotUri])).code).not.toBe(0);
      await quarry(daemon, 'volume', 'create', 'copy', '--from-snapshot', 'before');
      const copyUri = daemon.uri('copy');
      for (const [pattern, target] of [
        ['0x11', uri],
        ['0x22', copyUri],
      ] as const) {
        const commands = ['-c', `write -P ${pattern} 2g 1m`, '-c', `write -P ${pattern} 1234567 7777`, '-c', 'flush'];
        await run('qemu-io', ['-f', 'raw', ...commands, target]);
      }
      for (const [pattern, target] of [
        ['0x11', uri],
        ['0x22', copyUri],
      ] as const) {
        const read = await run('qemu-io', [
          '-f',
          'raw',
          '-c',
          `read -P ${pattern} 2g 1m`,
          '-c',
          `read -P ${pattern} 1234567 7777`,
          target,
        ]);
        expect(read).not.toMatch(/Pattern verification failed/);
      }
      const again = join(folder.path, 'again.raw');
      await run('nbdcopy', [snapshotUri, again], { timeoutMs: TIMEOUT_MS });
      expect(await fileDigest(again)).toBe(digest);

      // The filesystem of each is whole (the patterns above are put back first: they went into the middle of it).
      for (const [name, target] of [
        ['disk', uri],
        ['copy', copyUri],
      ] as const) {
        await run('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', before, target], { timeoutMs: TIMEOUT_MS });
        const file = join(folder.path, `${name}.raw`);
        await quarry(daemon, 'volume', 'export', name, file);
        await run('e2fsck', ['-fn', file]);
      }
      const exported = join(folder.path, 'disk.raw');
      expect(await fileDigest(exported)).toBe(digest);
      expect((await stat(exported)).blocks * 512).toBeLessThan(2 * GIB);

      // Grown while a client is connected; the new part is there for the next one.
      await quarry(daemon, 'volume', 'extend', 'disk', '6');
      expect((await run('nbdinfo', ['--size', uri])).trim()).toBe(String(6 * GIB));
      await run('qemu-io', ['-f', 'raw', '-c', 'write -P 0x33 5g 64k', '-c', 'flush', uri]);

      // Killed under a writer that remembers what was flushed.
      const writer = await startWriter(uri);
      await writer.flushed(50);
      await daemon.kill('SIGKILL');
      const promised = await writer.end();
      await daemon.start();
      await writer.verify(daemon.uri('disk'), promised);
      const afterKill = join(folder.path, 'after-kill.raw');
      await run('nbdcopy', [daemon.uri(await idOf(daemon, 'snapshot', 'before')), afterKill], {
        timeoutMs: TIMEOUT_MS,
      });
      expect(await fileDigest(afterKill)).toBe(digest);

      // The stopped folder passes its check.
      await daemon.kill('SIGTERM');
      await run(process.execPath, [MAIN, 'check', '--data', daemon.dataDir], { timeoutMs: TIMEOUT_MS });
      await daemon.start();

      // Everything deleted, in an order that has clones outlive their sources; the disk is empty again.
      await quarry(daemon, 'volume', 'delete', 'disk', '--cascade');
      await expectIdentical(before, daemon.uri('copy'));
      await quarry(daemon, 'volume', 'delete', 'copy');
      await daemon.restart();
      // What the stop interrupted goes on by itself after the start.
      const pool = async (): Promise<unknown> => (await daemon.request('GET', '/v3/quarry/status')).body;
      const empty = { pool: { mapped_bytes: 0, volumes: 0, snapshots: 0 } };
      await expect.poll(pool, { timeout: 30_000 }).toMatchObject(empty);
      await expect.poll(() => bytesOnDisk(join(daemon.dataDir, 'pool', 'extents')), { timeout: 30_000 }).toBe(0);
      expect(await bytesOnDisk(join(daemon.dataDir, 'pool'))).toBeLessThan(40 * 2 ** 20);
    },
    TIMEOUT_MS,
  );
});
