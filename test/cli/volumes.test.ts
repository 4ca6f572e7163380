import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { writeSample } from '../image/samples.ts';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { describeWith, run } from '../support/peers.ts';
import { quarryFailing, quarryJson, quarryOn } from '../support/quarry.ts';
import { type TempFolder, tempFolder } from '../support/temp.ts';

let daemon: Daemon;
let folder: TempFolder;

beforeAll(async () => {
  daemon = await startDaemon();
  folder = await tempFolder();
});
afterAll(async () => {
  await daemon?.stop();
  await folder?.remove();
});

const ids = async (...args: string[]) => (await quarryOn(daemon, '-o', 'value', '-c', 'id', ...args)).trim();

const failing = (...args: string[]) => quarryFailing(daemon, ...args);

describe('quarry volume', () => {
  test('creates, shows, changes, extends and deletes a volume, and each is done when the command returns', async () => {
    const id = await ids('volume', 'create', 'first', '--size', '1GiB', '--metadata', 'tier=gold');
    expect(id).toMatch(/^[0-9a-f-]{36}$/);
    expect(await quarryJson(daemon, 'volume', 'show', 'first')).toMatchObject({
      ...{ id, name: 'first', status: 'available', size: 1, metadata: { tier: 'gold' } },
      usage: { size_bytes: 2 ** 30, mapped_bytes: 0 },
    });
    await quarryOn(daemon, 'volume', 'set', 'first', '--name', 'second', '--metadata', 'a=b', '--unset', 'tier');
    expect(await quarryJson(daemon, 'volume', 'show', id)).toMatchObject({ name: 'second', metadata: { a: 'b' } });
    await quarryOn(daemon, 'volume', 'extend', 'second', '2');
    expect(await quarryJson(daemon, 'volume', 'show', 'second')).toMatchObject({ size: 2, status: 'available' });
    await quarryOn(daemon, 'volume', 'delete', 'second');
    expect(await failing('volume', 'show', id)).toEqual({
      code: 3,
      stderr: `quarry: Volume ${id} could not be found.\n`,
    });
  });

  test('refuses a name that two volumes bear, and says their ids', async () => {
    const one = await ids('volume', 'create', 'twin', '--size', '1');
    const two = await ids('volume', 'create', 'twin', '--size', '1');
    const { code, stderr } = await failing('volume', 'show', 'twin');
    expect(code).toBe(2);
    expect(stderr).toContain(one);
    expect(stderr).toContain(two);
    await quarryOn(daemon, 'volume', 'delete', one, two);
  });

  test('exits 4 where the state forbids it, with the daemon’s reason', async () => {
    await quarryOn(daemon, 'volume', 'create', 'held', '--size', '1');
    await quarryOn(daemon, 'snapshot', 'create', 'held', 'holds-it');
    const { code, stderr } = await failing('volume', 'delete', 'held');
    expect(code).toBe(4);
    expect(stderr).toMatch(/^quarry: Invalid volume: .*snapshot.*\n$/);
    await quarryOn(daemon, 'volume', 'delete', 'held', '--cascade');
    expect((await failing('snapshot', 'show', 'holds-it')).code).toBe(3);
  });

  test('with --no-wait returns while the daemon works', async () => {
    const created = await quarryJson(daemon, '--no-wait', 'volume', 'create', 'soon', '--size', '1');
    expect(created).toHaveProperty('status');
    // Waits for whatever is under way.
    await expect
      .poll(async () => await quarryJson(daemon, 'volume', 'show', 'soon'), { timeout: 10_000 })
      .toMatchObject({ status: 'available' });
    await quarryOn(daemon, 'volume', 'delete', 'soon');
  });
});

describeWith(['qemu-io', 'qemu-img'], 'quarry with data', () => {
  test('makes snapshots and clones, shows their difference, and reverts', async () => {
    await quarryOn(daemon, 'volume', 'create', 'disk', '--size', '1');
    const uri = (await quarryOn(daemon, 'volume', 'uri', 'disk')).split('\n')[0] ?? '';
    const io = (target: string, ...commands: string[]) =>
      run('qemu-io', ['-f', 'raw', ...commands.flatMap((command) => ['-c', command]), target]);
    await io(uri, 'write -P 1 0 1M', 'flush');
    await quarryOn(daemon, 'snapshot', 'create', 'disk', 'before');
    await io(uri, 'write -P 2 64k 64k', 'flush');
    await quarryOn(daemon, 'snapshot', 'create', 'disk', 'after');
    expect(await quarryJson(daemon, 'snapshot', 'diff', 'before', 'after')).toEqual([
      { offset: 65536, length: 65536, kind: 'data' },
    ]);
    expect(await quarryJson(daemon, 'volume', 'map', 'disk')).toEqual([
      { offset: 0, length: 1 << 20, kind: 'data' },
      { offset: 1 << 20, length: 2 ** 30 - (1 << 20), kind: 'hole' },
    ]);

    await quarryOn(daemon, 'volume', 'create', 'clone', '--from-snapshot', 'before');
    const clone = (await quarryOn(daemon, 'volume', 'uri', 'clone')).split('\n')[0] ?? '';
    await io(clone, 'read -P 1 0 1M', 'read -P 0 1M 1M');
    const snapshotUri = (await quarryOn(daemon, 'snapshot', 'uri', 'after')).trim();
    await run('qemu-io', ['-r', '-f', 'raw', '-c', 'read -P 2 64k 64k', snapshotUri]);

    await quarryOn(daemon, 'snapshot', 'delete', 'after');
    await quarryOn(daemon, 'volume', 'revert', 'disk', 'before');
    await io(uri, 'read -P 1 0 1M');
    await quarryOn(daemon, 'snapshot', 'delete', 'before');
    await io(clone, 'read -P 1 0 1M');
    await quarryOn(daemon, 'volume', 'delete', 'disk', 'clone');
  });

  test('imports raw and qcow2 images and exports them again, byte for byte', async () => {
    const raw = join(folder.path, 'source.raw');
    const qcow2 = join(folder.path, 'source.qcow2');
    await writeSample(raw, 24 << 20);
    await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', '-c', raw, qcow2]);
    for (const [name, image] of [
      ['from-raw', raw],
      ['from-qcow2', qcow2],
    ] as const) {
      await quarryOn(daemon, 'volume', 'create', name, '--image', image, '--metadata', 'kept=yes');
      const volume = await quarryJson(daemon, 'volume', 'show', name);
      expect(volume).toMatchObject({ size: 1, status: 'available', metadata: { kept: 'yes' } });
      expect(volume).not.toHaveProperty('metadata.quarry_import');
      const uri = (await quarryOn(daemon, 'volume', 'uri', name)).split('\n')[0] ?? '';
      await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', raw, uri]);

      const out = join(folder.path, `${name}.out`);
      await quarryOn(daemon, 'volume', 'export', name, out);
      const { size, blocks } = await stat(out);
      expect(size).toBe(2 ** 30);
      expect(blocks * 512).toBeLessThan(4 << 20);
      await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', raw, out]);
      // The snapshot that was taken for it is gone.
      expect(await quarryJson(daemon, 'snapshot', 'list')).toEqual([]);
      const again = await failing('volume', 'export', name, out);
      expect(again).toMatchObject({ code: 4, stderr: expect.stringContaining('--overwrite') });
    }
    await quarryOn(daemon, 'volume', 'delete', 'from-raw', 'from-qcow2');
  });

  test('refuses a size smaller than the image, and takes a larger one', async () => {
    const image = join(folder.path, 'large.qcow2');
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', image, '1025M']);
    const { code, stderr } = await failing('volume', 'create', 'large', '--image', image, '--size', '1');
    expect({ code, stderr }).toEqual({
      code: 2,
      stderr: 'quarry: The image has 1074790400 bytes: --size must be 2GiB at least.\n',
    });
    await quarryOn(daemon, 'volume', 'create', 'large', '--image', image, '--size', '3');
    expect(await quarryJson(daemon, 'volume', 'show', 'large')).toMatchObject({ size: 3 });
    await quarryOn(daemon, 'volume', 'delete', 'large');
  });

  test('deletes the volume when an import fails on the way, and says so', async () => {
    const image = join(folder.path, 'broken.qcow2');
    const raw = join(folder.path, 'broken.raw');
    await writeSample(raw, 24 << 20);
    await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, image]);
    await run('truncate', ['-s', '1M', image]);
    const { code, stderr } = await failing('volume', 'create', 'broken', '--image', image);
    expect(code).toBe(5);
    expect(stderr).toMatch(
      /^quarry: The import failed: .* is damaged: .*outside the file.* Volume [0-9a-f-]{36} was deleted\.\n$/,
    );
    expect(await quarryJson(daemon, 'volume', 'list', '--name', 'broken')).toEqual([]);
  });
});

describe('quarry status', () => {
  test('counts what there is', async () => {
    await quarryOn(daemon, 'volume', 'create', 'counted', '--size', '1');
    const status = await quarryJson(daemon, 'status');
    expect(status).toMatchObject({
      volumes: { count: 1, size_bytes: 2 ** 30, by_status: { available: 1 } },
      tasks: [],
    });
    const table = await quarryOn(daemon, 'status');
    expect(table).toMatch(/^volumes +1 of 1 GiB in all \(1 available\)$/m);
    await quarryOn(daemon, 'volume', 'delete', 'counted');
  });
});
