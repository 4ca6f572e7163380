/** What the disk changed under a snapshot comes back from a backup, by itself: the real daemon on a folder of backups. */
import { randomBytes } from 'node:crypto';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { Client } from 'undici';
import { expect, test } from 'vitest';
import { NbdClient } from '../../src/image/nbd-client.ts';
import { flipBit } from '../support/bit-rot.ts';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { quarry, quarryJson, quarryOn } from '../support/quarry.ts';
import { tempFolder } from '../support/temp.ts';

const MIB = 1 << 20;
const EXTENT = 65536;

async function metric(daemon: Daemon, name: string): Promise<number> {
  const client = new Client('http://localhost', { socketPath: daemon.url.replace('unix:', '') });
  try {
    const { body } = await client.request({ method: 'GET', path: '/metrics' });
    return Number((await body.text()).match(new RegExp(`^${name} (.*)$`, 'm'))?.[1]);
  } finally {
    await client.close();
  }
}

/** Where 64 KiB of data lie in the only extent file. */
async function slotOf(path: string, piece: Buffer): Promise<number> {
  await using file = await open(path, 'r');
  const head = Buffer.alloc(16 * MIB);
  await file.read(head, 0, head.length, 0);
  for (let at = 0; at < head.length; at += EXTENT) if (head.subarray(at, at + EXTENT).equals(piece)) return at;
  throw new Error('the piece is not in the file');
}

test('a scrub mends a flipped bit from the backup that holds its bytes, and not from one that is damaged too', async () => {
  await using folder = await tempFolder();
  const dataDir = join(folder.path, 'data');
  await using daemon = await startDaemon({ dataDir });
  await quarryOn(daemon, 'volume', 'create', 'disk', '--size', '1');
  const data = randomBytes(2 * MIB);
  await using client = await NbdClient.connect(daemon.uri('disk'));
  await client.write(0, data);
  await client.flush();
  await quarryOn(daemon, 'snapshot', 'create', 'disk', 'kept');
  await quarryOn(daemon, 'backup', 'create', 'disk', 'saved');
  await quarryOn(daemon, 'scrub');
  // A later backup with other bytes there is tried first, and does no harm.
  await client.write(5 * EXTENT, randomBytes(EXTENT));
  await client.flush();
  await quarryOn(daemon, 'backup', 'create', 'disk', 'later', '--incremental');

  const path = join(dataDir, 'pool', 'extents', '0000001.dat');
  const right = data.subarray(5 * EXTENT, 6 * EXTENT);
  const slot = await slotOf(path, right);
  await flipBit(path, slot + 12_345);
  // It may be mended before the command looks, or after it.
  await quarry(['--url', daemon.url, 'scrub']);
  await expect.poll(() => metric(daemon, 'quarry_damage_healed_total'), { timeout: 20_000 }).toBe(1);
  expect(await metric(daemon, 'quarry_damage_found_total')).toBe(1);
  expect(await quarryJson(daemon, 'scrub')).toMatchObject({ damaged_bytes: 0, findings: [] });
  expect(await slotOf(path, right)).toBe(slot);
  await using snapshot = await NbdClient.connect(daemon.uri(await snapshotId(daemon)));
  const target = Buffer.alloc(EXTENT);
  await snapshot.read(5 * EXTENT, target);
  expect(target.equals(right)).toBe(true);

  // With no backup left that can be read, damage stays damage.
  for (const name of ['saved', 'later']) await quarryOn(daemon, 'backup', 'delete', name);
  await flipBit(path, slot + 99);
  expect((await quarry(['--url', daemon.url, 'scrub'])).code).toBe(1);
  await expect(snapshot.read(5 * EXTENT, target)).rejects.toThrow();
  expect(await metric(daemon, 'quarry_damage_healed_total')).toBe(1);
});

async function snapshotId(daemon: Daemon): Promise<string> {
  return ((await quarryJson(daemon, 'snapshot', 'show', 'kept')) as { id: string }).id;
}
