/** Chunks compressed by zstd: smaller, damaged ones are found, and the independent reader understands them. */
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { loadZstd } from '../../src/backup/zstd.ts';
import { NbdClient } from '../../src/image/nbd-client.ts';
import { startDaemon } from '../support/daemon.ts';
import { describeWithPython, runPython } from '../support/python.ts';
import { quarry, quarryJson, quarryOn } from '../support/quarry.ts';
import { tempFolder } from '../support/temp.ts';
import { BackupWorld, FakeVolume } from './world.ts';

const MIB = 1 << 20;
const READER = join(import.meta.dirname, '..', '..', 'tools', 'read-backup.py');

/** Text of few words: what compressors differ at. */
function words(bytes: number): Buffer {
  const parts: string[] = [];
  const list = ['extent', 'volume', 'snapshot', 'backup', 'chunk', 'pack', 'leaf', 'journal'];
  for (let length = 0; length < bytes; ) {
    const word = `${list[randomBytes(1).readUInt8(0) % list.length]} ${randomBytes(1).toString('hex')} `;
    parts.push(word);
    length += word.length;
  }
  return Buffer.from(parts.join('')).subarray(0, bytes);
}

test('a frame that claims another length is refused without memory for it', () => {
  const { compress, decompress } = loadZstd();
  const plain = words(65536);
  expect(decompress(compress(plain), 65536).equals(plain)).toBe(true);
  expect(() => decompress(compress(Buffer.alloc(1 << 27)), 65536)).toThrow();
  expect(() => decompress(compress(plain.subarray(1)), 65536)).toThrow('65535');
  expect(() => decompress(Buffer.from('no frame'), 65536)).toThrow();
});

test('a repository may hold both, and a change of compression stores nothing again', async () => {
  await using world = await BackupWorld.open();
  const volume = new FakeVolume(8 * MIB);
  await volume.write(0, words(2 * MIB));
  const first = await world.take(volume);
  await world.reopen({ compression: 'zstd' });
  await volume.write(4 * MIB, words(2 * MIB));
  const second = await world.take(volume, first);
  expect(second.manifest.added_bytes).toBeLessThan(first.manifest.added_bytes);
  expect((await world.restore(second.id)).isSameAs(second.frozen)).toBe(true);
  await world.reopen({ compression: 'lz4' });
  const third = await world.take(volume, second);
  expect(third.manifest.root).toBe(second.manifest.root);
  expect((await world.restore(third.id)).isSameAs(second.frozen)).toBe(true);
});

test('a compression that is not there is refused at the start, with what there is', async () => {
  await using folder = await tempFolder();
  const config = join(folder.path, 'quarry.toml');
  await writeFile(config, 'backup_compression = "brotli"\n');
  const { code, stderr } = await quarry(['serve', '--data', join(folder.path, 'data'), '--config', config]);
  expect([code, stderr]).toEqual([2, expect.stringContaining('lz4 or zstd')]);
});

await describeWithPython('backup-reader', 'the independent reader', (python) => {
  test('restores a backup that a daemon compressed by zstd', async () => {
    await using folder = await tempFolder();
    const config = join(folder.path, 'quarry.toml');
    await writeFile(config, 'backup_compression = "zstd"\n');
    await using daemon = await startDaemon({ args: ['--config', config] });
    await quarryOn(daemon, 'volume', 'create', 'disk', '--size', '1');
    const data = words(MIB);
    {
      await using client = await NbdClient.connect(daemon.uri('disk'));
      await client.write(3 * MIB, data);
      await client.flush();
    }
    const made = (await quarryJson(daemon, 'backup', 'create', 'disk', 'b')) as { id: string; volume_id: string };
    const image = join(folder.path, 'image');
    await runPython(python, [READER, join(daemon.dataDir, 'backups'), made.volume_id, made.id, image]);
    const bytes = await readFile(image);
    expect(bytes.subarray(3 * MIB, 4 * MIB).equals(data)).toBe(true);
    await quarryOn(daemon, 'backup', 'restore', 'b', 'again');
    await quarryOn(daemon, 'backup', 'verify', 'b');
  }, 180_000);
});
