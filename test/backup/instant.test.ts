/**
 * Instant restores by the real daemon: the volume is used before anything was fetched, while the store is away, through kills, and by
 * a client that writes, zeroes and reads at random; and it ends as the backup with what was written since.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { NbdClient } from '../../src/image/nbd-client.ts';
import { Random } from '../sim/random.ts';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { FaultProxy } from '../support/fault-proxy.ts';
import { describeWith } from '../support/peers.ts';
import { quarryFailing, quarryJson, quarryOn } from '../support/quarry.ts';
import { startS3 } from '../support/s3.ts';
import { tempFolder } from '../support/temp.ts';

const KIB = 1024;
const MIB = 1 << 20;
const PACKS = /\.pack/;

async function write(daemon: Daemon, name: string, offset: number, data: Buffer): Promise<void> {
  await using client = await NbdClient.connect(daemon.uri(name));
  for (let at = 0; at < data.length; at += 4 * MIB) await client.write(offset + at, data.subarray(at, at + 4 * MIB));
  await client.flush();
}

async function read(daemon: Daemon, name: string, offset: number, length: number): Promise<Buffer> {
  await using client = await NbdClient.connect(daemon.uri(name));
  const target = Buffer.alloc(length);
  for (let at = 0; at < length; at += 4 * MIB) await client.read(offset + at, target.subarray(at, at + 4 * MIB));
  return target;
}

type Shown = { readonly status: string; readonly usage: { readonly filling: Record<string, unknown> | null } };
const show = async (daemon: Daemon, name: string) => (await quarryJson(daemon, 'volume', 'show', name)) as Shown;

async function filled(daemon: Daemon, name: string): Promise<void> {
  const filling = async () => (await show(daemon, name)).usage.filling;
  await expect.poll(filling, { timeout: 60_000, interval: 200 }).toBe(null);
}

/** A configuration that a test may change between two starts. */
function configAt(folder: string): { path: string; set(lines: string): void } {
  mkdirSync(folder, { recursive: true });
  const path = join(folder, 'quarry.toml');
  const set = (lines: string): void => writeFileSync(path, `${lines}\n`);
  set('');
  return { path, set };
}

describeWith(['versitygw'], 'a store that goes away', () => {
  test('a volume is used before a pack is fetched, through an outage and a kill, and filled when the store is back', async () => {
    await using folder = await tempFolder();
    await using server = await startS3('versitygw');
    await using proxy = await FaultProxy.start(server.endpoint);
    const config = configAt(folder.path);
    config.set('restore_wait_seconds = 0');
    await using daemon = await startDaemon({
      args: ['--backups', 's3://tests/r', '--s3-endpoint', proxy.endpoint, '--config', config.path],
      env: {
        AWS_ACCESS_KEY_ID: server.options.credentials?.accessKeyId ?? '',
        AWS_SECRET_ACCESS_KEY: server.options.credentials?.secretAccessKey ?? '',
      },
    });
    await quarryOn(daemon, 'volume', 'create', 'disk', '--size', '1');
    const model = Buffer.alloc(80 * MIB);
    randomBytes(64 * MIB).copy(model);
    await write(daemon, 'disk', 0, model.subarray(0, 64 * MIB));
    await quarryOn(daemon, 'backup', 'create', 'disk', 'nightly');
    proxy.break({ fault: { kind: 'reset' }, path: PACKS });
    await quarryOn(daemon, 'backup', 'restore', 'nightly', 'fast', '--instant');
    expect(await show(daemon, 'fast')).toMatchObject({ status: 'available', usage: { filling: { done_bytes: 0 } } });
    const put = async (offset: number, length: number) => {
      const data = randomBytes(length);
      data.copy(model, offset);
      await write(daemon, 'fast', offset, data);
      expect((await read(daemon, 'fast', offset, length)).equals(data)).toBe(true);
    };
    await put(5 * MIB + 4 * KIB, 8 * KIB);
    await put(70 * MIB, MIB);
    await expect(read(daemon, 'fast', 0, 4 * KIB)).rejects.toThrow(/error 5|EIO|input\/output/i);
    const refused = await quarryFailing(daemon, 'snapshot', 'create', 'fast', 'early');
    expect(refused.stderr).toContain('still being filled');
    // Everything of the store is away now, and the daemon does not know what was fetched.
    proxy.break({ fault: { kind: 'reset' } });
    await daemon.kill();
    await daemon.start();
    expect((await read(daemon, 'fast', 70 * MIB, MIB)).equals(model.subarray(70 * MIB, 71 * MIB))).toBe(true);
    await put(20 * MIB, 64 * KIB);
    await expect(read(daemon, 'fast', MIB, 4 * KIB)).rejects.toThrow(/error 5|EIO|input\/output/i);
    proxy.break();
    await filled(daemon, 'fast');
    expect((await read(daemon, 'fast', 0, model.length)).equals(model)).toBe(true);
    await quarryOn(daemon, 'snapshot', 'create', 'fast', 'late');
    await daemon.kill();
    await daemon.start();
    expect((await read(daemon, 'fast', 0, model.length)).equals(model)).toBe(true);
  }, 240_000);

  test('a volume whose store is away is deleted without it', async () => {
    await using server = await startS3('versitygw');
    await using proxy = await FaultProxy.start(server.endpoint);
    await using daemon = await startDaemon({
      args: ['--backups', 's3://tests/r', '--s3-endpoint', proxy.endpoint],
      env: {
        AWS_ACCESS_KEY_ID: server.options.credentials?.accessKeyId ?? '',
        AWS_SECRET_ACCESS_KEY: server.options.credentials?.secretAccessKey ?? '',
      },
    });
    await quarryOn(daemon, 'volume', 'create', 'disk', '--size', '1');
    await write(daemon, 'disk', 0, randomBytes(4 * MIB));
    await quarryOn(daemon, 'backup', 'create', 'disk', 'nightly');
    proxy.break({ fault: { kind: 'stall' }, path: PACKS });
    await quarryOn(daemon, 'backup', 'restore', 'nightly', 'fast', '--instant');
    // A client waits for what does not come; it goes, and the volume after it.
    const client = await NbdClient.connect(daemon.uri('fast'));
    const waiting = client.read(0, Buffer.alloc(4 * KIB)).catch((error: unknown) => error);
    await expect.poll(() => proxy.hits).toBeGreaterThan(0);
    await client.close();
    expect(await waiting).toBeInstanceOf(Error);
    await quarryOn(daemon, 'volume', 'delete', 'fast');
    expect((await quarryFailing(daemon, 'volume', 'show', 'fast')).stderr).toContain('fast');
  }, 120_000);
});

test('whatever a client writes, zeroes and reads meanwhile, and however often the daemon is killed, nothing is lost', async () => {
  await using folder = await tempFolder();
  const config = configAt(folder.path);
  await using daemon = await startDaemon({ args: ['--config', config.path] });
  await quarryOn(daemon, 'volume', 'create', 'disk', '--size', '1');
  const model = Buffer.alloc(72 * MIB);
  for (const [offset, length] of [
    [0, 24 * MIB],
    [40 * MIB, 8 * MIB],
    [66 * MIB, 3 * MIB],
  ] as const) {
    randomBytes(length).copy(model, offset);
    await write(daemon, 'disk', offset, model.subarray(offset, offset + length));
  }
  await quarryOn(daemon, 'backup', 'create', 'disk', 'nightly');
  // Slow, so that it is still being filled after the kills.
  config.set('backup_bytes_per_second = 4194304');
  await daemon.kill();
  await daemon.start();
  await quarryOn(daemon, 'backup', 'restore', 'nightly', 'fast', '--instant');
  const seed = Number(process.env['SEED'] ?? randomBytes(4).readUInt32LE());
  const random = new Random(seed);
  for (let life = 0; life < 3; life += 1) {
    await using client = await NbdClient.connect(daemon.uri('fast'));
    for (let step = 0; step < 60; step += 1) {
      const offset = random.below(model.length / 512 - 256) * 512;
      const length = (1 + random.below(256)) * 512;
      const what = random.below(10);
      if (what < 4) {
        const data = randomBytes(length);
        data.copy(model, offset);
        await client.write(offset, data);
      } else if (what < 6) {
        model.fill(0, offset, offset + length);
        await client.writeZeroes(offset, length);
      } else {
        const found = Buffer.alloc(length);
        await client.read(offset, found);
        if (!found.equals(model.subarray(offset, offset + length)))
          throw new Error(`seed ${seed}: life ${life}, step ${step}: ${length} bytes at ${offset} are others`);
      }
    }
    await client.flush();
    await daemon.kill();
    config.set(life < 1 ? 'backup_bytes_per_second = 4194304' : '');
    await daemon.start();
  }
  await filled(daemon, 'fast');
  expect((await read(daemon, 'fast', 0, model.length)).equals(model), `seed ${seed}`).toBe(true);
  const shown = (await quarryJson(daemon, 'volume', 'show', 'fast')) as { usage: { mapped_bytes: number } };
  // Holes of the backup stayed holes, but for what was written.
  expect(shown.usage.mapped_bytes).toBeLessThan(60 * MIB);
}, 240_000);
