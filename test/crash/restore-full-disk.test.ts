/**
 * A restore that meets a full disk, for real: the data folder on a small filesystem of its own, the backups elsewhere. It
 * fails and says so, never `available` with half of the data; and works once there is space. Needs root, for the mount.
 */
import { randomBytes } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { NbdClient } from '../../src/image/nbd-client.ts';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { run } from '../support/peers.ts';
import { quarryFailing, quarryJson, quarryOn } from '../support/quarry.ts';
import { tempFolder } from '../support/temp.ts';

const MIB = 1 << 20;
/** The reserve of 256 MiB, the journal's 32 MiB, and room for the volume once but not twice. */
const DISK = '400m';
const DATA_MIB = 48;
const isPossible = process.getuid?.() === 0;
if (!isPossible && process.env['CI'] === 'true') throw new Error('needs root');
const describeHere = isPossible ? describe : describe.skip;

async function fill(daemon: Daemon, name: string, data: Buffer): Promise<void> {
  await using client = await NbdClient.connect(daemon.uri(name));
  for (let at = 0; at < DATA_MIB; at += 1) await client.write(at * MIB, data);
  await client.flush();
}

/** Until the disk is full. */
async function exhaust(daemon: Daemon, name: string): Promise<unknown> {
  await using client = await NbdClient.connect(daemon.uri(name));
  const data = randomBytes(MIB);
  try {
    for (let at = 0; at < 1024; at += 1) await client.write(at * MIB, data);
    return null;
  } catch (error) {
    return error;
  }
}

async function isWhole(daemon: Daemon, name: string, data: Buffer): Promise<boolean> {
  await using client = await NbdClient.connect(daemon.uri(name));
  const target = Buffer.alloc(MIB);
  for (let at = 0; at < DATA_MIB; at += 1) {
    await client.read(at * MIB, target);
    if (!target.equals(data)) return false;
  }
  return true;
}

describeHere('a restore on a full disk', () => {
  it('fails with its reason, leaves no volume that looks whole, and works when there is space', async () => {
    await using folder = await tempFolder();
    const disk = join(folder.path, 'disk');
    await mkdir(disk);
    await run('mount', ['-t', 'tmpfs', '-o', `size=${DISK}`, 'tmpfs', disk]);
    try {
      const backups = `file:${join(folder.path, 'backups')}`;
      await using daemon = await startDaemon({ dataDir: join(disk, 'data'), args: ['--backups', backups] });
      for (const name of ['source', 'greedy', 'target'])
        await quarryOn(daemon, 'volume', 'create', name, '--size', '1');
      const data = randomBytes(MIB);
      await fill(daemon, 'source', data);
      await quarryOn(daemon, 'backup', 'create', 'source', 'b');
      expect(String(await exhaust(daemon, 'greedy'))).toMatch(/space/i);

      for (const args of [['again'], ['--into', 'target']]) {
        const { code, stderr } = await quarryFailing(daemon, 'backup', 'restore', 'b', ...args);
        expect([code, stderr]).toEqual([1, expect.stringContaining('error_restoring')]);
      }
      expect(daemon.log).toMatch(/no space|ENOSPC|full/i);
      const shown = (await quarryJson(daemon, 'backup', 'show', 'b')) as { status: string };
      expect(shown.status).toBe('available');
      // Neither harmed what is there.
      expect(await isWhole(daemon, 'source', data)).toBe(true);

      await quarryOn(daemon, 'volume', 'delete', 'greedy', 'again', 'target');
      await quarryOn(daemon, 'backup', 'restore', 'b', 'fresh');
      expect(await isWhole(daemon, 'fresh', data)).toBe(true);
    } finally {
      await run('umount', [disk]);
    }
  }, 240_000);
});
