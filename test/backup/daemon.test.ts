/**
 * The real daemon and its command line: volumes written over NBD are backed up to a folder and to a real S3 server,
 * restored, read back, and read by the independent reader; and the process is killed in the middle.
 */
import { randomBytes } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { NbdClient } from '../../src/image/nbd-client.ts';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { describeWith, run } from '../support/peers.ts';
import { quarry, quarryJson, quarryOn } from '../support/quarry.ts';
import { type S3Server, startS3 } from '../support/s3.ts';
import { tempFolder } from '../support/temp.ts';

const KIB = 1024;
const MIB = 1 << 20;
const READER = join(import.meta.dirname, '..', '..', 'tools', 'read-backup.py');

async function write(daemon: Daemon, name: string, pieces: readonly (readonly [number, Buffer])[]): Promise<void> {
  await using client = await NbdClient.connect(daemon.uri(name));
  for (const [offset, data] of pieces) await client.write(offset, data);
  await client.flush();
}

async function read(daemon: Daemon, name: string, offset: number, length: number): Promise<Buffer> {
  await using client = await NbdClient.connect(daemon.uri(name));
  const target = Buffer.alloc(length);
  await client.read(offset, target);
  return target;
}

type Shown = { readonly id: string; readonly is_incremental: boolean; readonly detail: Record<string, number> };
const backup = async (daemon: Daemon, ...args: string[]) => (await quarryJson(daemon, 'backup', ...args)) as Shown;

const PLACES = [0, 5 * MIB, 130 * MIB, 1023 * MIB] as const;

/** Full, incremental, restored both, and over another volume. */
async function walk(daemon: Daemon): Promise<{ id: string; volume: string; data: Map<number, Buffer> }> {
  await quarryOn(daemon, 'volume', 'create', 'disk', '--size', '1');
  const data = new Map(PLACES.map((offset) => [offset, randomBytes(256 * KIB)]));
  await write(daemon, 'disk', [...data]);
  const full = await backup(daemon, 'create', 'disk', 'first');
  const changed = randomBytes(4 * KIB);
  const patched = Buffer.from(data.get(5 * MIB) ?? '');
  changed.copy(patched, 8 * KIB);
  await write(daemon, 'disk', [[5 * MIB + 8 * KIB, changed]]);
  const next = await backup(daemon, 'create', 'disk', 'second', '--incremental');
  expect(next).toMatchObject({ is_incremental: true, status: 'available' });
  expect(next.detail['added_bytes']).toBeLessThan(64 * KIB + 60 * KIB);
  await quarryOn(daemon, 'backup', 'restore', 'first', 'old');
  expect((await read(daemon, 'old', 5 * MIB, 256 * KIB)).equals(data.get(5 * MIB) ?? Buffer.alloc(0))).toBe(true);
  data.set(5 * MIB, patched);
  await quarryOn(daemon, 'backup', 'delete', full.id);
  await quarryOn(daemon, 'volume', 'create', 'target', '--size', '1');
  await write(daemon, 'target', [[77 * MIB, randomBytes(MIB)]]);
  await quarryOn(daemon, 'backup', 'restore', 'second', '--into', 'target');
  await quarryOn(daemon, 'volume', 'create', 'made', '--from-backup', 'second');
  for (const name of ['target', 'made']) {
    for (const [offset, bytes] of data)
      expect((await read(daemon, name, offset, bytes.length)).equals(bytes)).toBe(true);
    expect((await read(daemon, name, 77 * MIB, MIB)).equals(Buffer.alloc(MIB))).toBe(true);
  }
  const { stderr, code } = await quarry(['--url', daemon.url, 'backup', 'verify', 'second']);
  expect([code, stderr]).toEqual([0, expect.stringContaining('good (full')]);
  const usage = (await quarryJson(daemon, 'volume', 'show', 'made')) as { usage: { mapped_bytes: number } };
  expect(usage.usage.mapped_bytes).toBeLessThanOrEqual(MIB + 4 * 64 * KIB);
  const shown = (await quarryJson(daemon, 'volume', 'show', 'disk')) as { id: string };
  return { id: next.id, volume: shown.id, data };
}

test('to a folder and back; then another program restores it from the page that describes the format', async () => {
  await using daemon = await startDaemon();
  const { id, volume, data } = await walk(daemon);
  await using folder = await tempFolder();
  const image = join(folder.path, 'image');
  await run('python3', [READER, join(daemon.dataDir, 'backups'), volume, id, image]);
  const bytes = await readFile(image);
  expect(bytes.length).toBe(2 ** 30);
  for (const [offset, wanted] of data)
    expect(bytes.compare(wanted, 0, wanted.length, offset, offset + wanted.length)).toBe(0);
  expect(bytes.compare(Buffer.alloc(4 * MIB), 0, 4 * MIB, MIB, 5 * MIB)).toBe(0);
}, 180_000);

test('a daemon killed while it backs up goes on after its start, and one killed while it restores as well', async () => {
  await using daemon = await startDaemon();
  await quarryOn(daemon, 'volume', 'create', 'disk', '--size', '1');
  const bytes = randomBytes(4 * MIB);
  for (let offset = 0; offset < 192 * MIB; offset += 4 * MIB) await write(daemon, 'disk', [[offset, bytes]]);
  const made = await quarryJson(daemon, '--no-wait', 'backup', 'create', 'disk', 'cut');
  const { id } = made as Shown;
  const packs = async () =>
    (await readdir(join(daemon.dataDir, 'backups'), { recursive: true })).filter((name) => name.endsWith('.pack'));
  await expect.poll(packs, { timeout: 30_000, interval: 10 }).not.toEqual([]);
  await daemon.kill();
  await daemon.start();
  const settled = async (kind: string) =>
    (
      (await daemon.request('GET', `/v3/${kind}s/detail?name=${kind === 'backup' ? 'cut' : 'again'}`)).body as Record<
        string,
        { status: string }[]
      >
    )[`${kind}s`]?.[0]?.status;
  await expect.poll(() => settled('backup'), { timeout: 60_000 }).toBe('available');
  await quarryOn(daemon, '--no-wait', 'backup', 'restore', id, 'again');
  await daemon.kill();
  await daemon.start();
  await expect.poll(() => settled('volume'), { timeout: 60_000 }).toBe('available');
  for (const offset of [0, 100 * MIB, 188 * MIB])
    expect((await read(daemon, 'again', offset, 4 * MIB)).equals(bytes)).toBe(true);
  expect((await read(daemon, 'again', 192 * MIB, MIB)).equals(Buffer.alloc(MIB))).toBe(true);
}, 240_000);

describeWith(['versitygw'], 'S3', () => {
  const s3Daemon = (server: S3Server): Promise<Daemon> =>
    startDaemon({
      args: ['--backups', 's3://tests/some/prefix', '--s3-endpoint', server.endpoint],
      env: {
        AWS_ACCESS_KEY_ID: server.options.credentials?.accessKeyId ?? '',
        AWS_SECRET_ACCESS_KEY: server.options.credentials?.secretAccessKey ?? '',
      },
    });

  test('to a bucket and back, and from the bucket alone on a machine that never saw the volume', async () => {
    await using server = await startS3('versitygw');
    await using daemon = await s3Daemon(server);
    const { id, data } = await walk(daemon);
    await daemon.stop();
    await using other = await s3Daemon(server);
    expect(await quarryJson(other, 'backup', 'rescan')).toMatchObject({ imported: [id] });
    await quarryOn(other, 'backup', 'restore', 'second', 'elsewhere');
    for (const [offset, wanted] of data)
      expect((await read(other, 'elsewhere', offset, wanted.length)).equals(wanted)).toBe(true);
    await quarryOn(other, 'backup', 'delete', 'second');
    expect(await quarryJson(other, 'backup', 'gc')).toMatchObject({ unfinished: 0 });
    expect((await readdir(join(server.folder, 'tests', 'some', 'prefix'))).sort()).toEqual(['format.json']);
  }, 240_000);

  test('a server that goes away makes the backup fail with its reason, and nothing else', async () => {
    await using server = await startS3('versitygw');
    await using daemon = await s3Daemon(server);
    await quarryOn(daemon, 'volume', 'create', 'disk', '--size', '1');
    await server[Symbol.asyncDispose]();
    const { code, stderr } = await quarry(['--url', daemon.url, 'backup', 'create', 'disk', 'lost']);
    expect([code, stderr]).toEqual([1, expect.stringContaining('The object store cannot be reached')]);
    expect(await quarryJson(daemon, 'volume', 'show', 'disk')).toMatchObject({ status: 'available' });
  }, 120_000);
});
