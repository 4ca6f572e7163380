/**
 * A full disk under load, for real: the data folder on a small filesystem of its own. The writer gets ENOSPC, nobody else
 * notices, and writes go on by themselves once there is space. Needs root, for the mount.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { hasPeer, run, tryRun } from '../support/peers.ts';
import { quarryOn } from '../support/quarry.ts';
import { tempFolder } from '../support/temp.ts';

/** The reserve of 256 MiB, the journal's 32 MiB, and room for less than what is written. */
const DISK = '400m';
const isPossible = process.getuid?.() === 0 && hasPeer('qemu-io');
if (!isPossible && process.env['CI'] === 'true') throw new Error('needs root and qemu-io');

async function withSmallDisk(work: (daemon: Daemon) => Promise<void>): Promise<void> {
  await using folder = await tempFolder();
  const disk = join(folder.path, 'disk');
  await mkdir(disk);
  await run('mount', ['-t', 'tmpfs', '-o', `size=${DISK}`, 'tmpfs', disk]);
  try {
    await using daemon = await startDaemon({ dataDir: join(disk, 'data') });
    await work(daemon);
  } finally {
    await run('umount', [disk]);
  }
}

function qemuIo(uri: string, ...commands: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return tryRun('qemu-io', ['-f', 'raw', ...commands.flatMap((command) => ['-c', command]), uri]);
}

const describeHere = isPossible ? describe : describe.skip;

describeHere('a full disk', () => {
  it('fails the writer with ENOSPC, harms nobody else, and is over when something is deleted', async () => {
    await withSmallDisk(async (daemon) => {
      for (const name of ['victim', 'other', 'greedy']) await quarryOn(daemon, 'volume', 'create', name, '--size', '1');
      const [other, greedy] = [daemon.uri('other'), daemon.uri('greedy')];
      expect((await qemuIo(daemon.uri('victim'), 'write -P 7 0 48m', 'flush')).code).toBe(0);
      expect((await qemuIo(other, 'write -P 1 0 1m', 'flush')).code).toBe(0);
      const filled = await qemuIo(greedy, 'write -P 2 0 16m', 'flush', 'write -P 3 16m 512m');
      expect(`${filled.stdout}${filled.stderr}`).toMatch(/No space left on device/);

      const status = async () =>
        JSON.parse(await quarryOn(daemon, 'status', '-o', 'json')) as { pool: { level: string } };
      expect((await status()).pool.level).toMatch(/^(critical|full)$/);

      // What was written before is there, in place writes go on, and so do snapshots, which cost no space.
      const kept = await qemuIo(greedy, 'read -P 2 0 16m');
      expect(kept.stdout).not.toMatch(/verification failed/);
      const inPlace = await qemuIo(other, 'write -P 4 0 1m', 'flush', 'read -P 4 0 1m');
      expect({ code: inPlace.code, failed: /verification failed/.test(inPlace.stdout) }).toEqual({
        code: 0,
        failed: false,
      });
      await quarryOn(daemon, 'snapshot', 'create', 'other', 'while-full');
      expect(await quarryOn(daemon, 'volume', 'show', 'greedy', '-o', 'value', '-c', 'status')).toMatch(/available/);

      // A restart on the full disk serves everything.
      await daemon.restart('SIGKILL');
      const again = await qemuIo(daemon.uri('other'), 'read -P 4 0 1m');
      expect({ code: again.code, failed: /verification failed/.test(again.stdout) }).toEqual({
        code: 0,
        failed: false,
      });

      await quarryOn(daemon, 'volume', 'delete', 'victim');
      await expect
        .poll(async () => (await qemuIo(daemon.uri('greedy'), 'write -P 5 600m 4m', 'flush')).code, { timeout: 30_000 })
        .toBe(0);
      const written = await qemuIo(daemon.uri('greedy'), 'read -P 5 600m 4m', 'read -P 2 0 16m');
      expect(written.stdout).not.toMatch(/verification failed/);
    });
  });
});
