import { open, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { decodeCheckpoint, encodeCheckpoint } from '../../src/format/checkpoint.ts';
import { startDaemon } from '../support/daemon.ts';
import { quarry, quarryOn } from '../support/quarry.ts';
import { tempFolder } from '../support/temp.ts';

test('quarry check refuses a folder in use, passes one that was left by SIGKILL, and exits 5 on one that is damaged', async () => {
  await using folder = await tempFolder();
  const dataDir = join(folder.path, 'data');
  await using daemon = await startDaemon({ dataDir });
  await quarryOn(daemon, 'volume', 'create', 'one', '--size', '1');
  await quarryOn(daemon, 'snapshot', 'create', 'one', 'two');

  const locked = await quarry(['check', '--data', dataDir]);
  expect(locked).toMatchObject({ code: 5, stdout: '' });
  expect(locked.stderr).toContain(`in use by another quarry daemon (process ${daemon.pid})`);

  await daemon.kill('SIGKILL');
  const before = await readFile(join(dataDir, 'pool', 'journal.0'));
  const passed = await quarry(['check', '--data', dataDir, '-o', 'json']);
  expect(passed).toMatchObject({ code: 0, stderr: '' });
  expect(JSON.parse(passed.stdout)).toMatchObject({ objects: 2, violations: [], verifiedExtents: null });
  const scrubbed = await quarry(['check', '--scrub', '--data', dataDir, '-o', 'json']);
  expect(scrubbed).toMatchObject({ code: 0, stderr: '' });
  expect(JSON.parse(scrubbed.stdout)).toMatchObject({ violations: [], verifiedExtents: 0 });
  expect((await readFile(join(dataDir, 'pool', 'journal.0'))).equals(before)).toBe(true);

  const header = await open(join(dataDir, 'pool', 'header'), 'r+');
  await header.write(Buffer.alloc(64, 0xff), 0, 64, 0);
  await header.close();
  const damaged = await quarry(['check', '--data', dataDir]);
  expect(damaged.code).toBe(5);
  expect(damaged.stdout).toMatch(/damaged +pool\/header/);
  expect(damaged.stderr).toMatch(/is damaged: 1 violation listed/);
});

test('quarry check exits 5 where there is no pool, and makes none', async () => {
  await using folder = await tempFolder();
  await writeFile(join(folder.path, 'file'), '');
  const { code, stderr } = await quarry(['check', '--data', folder.path]);
  expect(code).toBe(5);
  expect(stderr).toMatch(/holds no pool.*--data DIR/);
});

/** Right checksums, and a count that no map has. Returns the bytes of the root before. */
async function miscount(dataDir: string): Promise<Buffer> {
  for (const name of ['checkpoint.0', 'checkpoint.1']) {
    const path = join(dataDir, 'pool', name);
    const before = await readFile(path);
    const root = decodeCheckpoint(before);
    if ('kind' in root) continue;
    const objects = root.objects.map((object) => ({ ...object, mapped: object.mapped + 7 }));
    await writeFile(path, encodeCheckpoint({ ...root, objects }));
    return before;
  }
  throw new Error('a stopped pool has a root');
}

test('quarry check --repair shows its plan, changes nothing unasked, mends with --yes, and keeps what there was', async () => {
  await using folder = await tempFolder();
  const dataDir = join(folder.path, 'data');
  {
    await using daemon = await startDaemon({ dataDir });
    await quarryOn(daemon, 'volume', 'create', 'one', '--size', '1');
  }
  await miscount(dataDir);
  const args = ['check', '--data', dataDir, '--repair'];

  const unasked = await quarry(args);
  expect(unasked.code).toBe(2);
  expect(unasked.stdout).toMatch(/mapped-count +volume [0-9a-f-]{36} +7 extents by its count, 0 in its map/);
  expect(unasked.stderr).toMatch(/its count of mapped extents is set to what its map says \(1\)/);
  expect(unasked.stderr).toMatch(/Nothing was changed: there is no terminal to ask on\. Say --yes/);
  expect((await quarry(['check', '--data', dataDir])).code).toBe(5);

  const repaired = await quarry([...args, '--yes', '-o', 'json']);
  expect(repaired.code).toBe(0);
  expect(JSON.parse(repaired.stdout)).toMatchObject({
    before: { violations: [{}] },
    after: { violations: [] },
    lost: [],
  });
  const [kept] = (await readdir(join(dataDir, 'pool'))).filter((name) => name.startsWith('before-repair-'));
  expect(kept).toMatch(/^before-repair-\d{8}T\d{6}Z$/);
  expect(repaired.stderr).toContain(`${dataDir}/pool/${kept}`);
  expect(await readdir(join(dataDir, 'pool', kept ?? ''))).toContain('pages');

  expect((await quarry(['check', '--data', dataDir])).code).toBe(0);
  const again = await quarry([...args, '--yes']);
  expect(again).toMatchObject({ code: 0, stderr: 'Nothing is to be mended.\n' });
  await using daemon = await startDaemon({ dataDir });
  expect(await quarryOn(daemon, 'volume', 'list', '-o', 'value', '-c', 'name')).toBe('one\n');
});

test('quarry check --repair says which roots are left of a pool that does not start, and that there is none', async () => {
  await using folder = await tempFolder();
  const dataDir = join(folder.path, 'data');
  {
    await using _daemon = await startDaemon({ dataDir });
  }
  for (const name of ['checkpoint.0', 'checkpoint.1']) await writeFile(join(dataDir, 'pool', name), 'nothing');
  const { code, stdout, stderr } = await quarry(['check', '--data', dataDir, '--repair', '--yes']);
  expect(code).toBe(5);
  expect(stdout).toMatch(/damaged +pool\/checkpoint.0/);
  expect(stderr).toMatch(/There is no root to go back to: restore the folder from a copy/);
});

test.each([
  [['--yes'], /--yes means something only with --repair/],
  [['--discard-damaged'], /--discard-damaged means something only with --repair/],
  [['--repair', '--from-root', 'x'], /"x" is no root/],
])('quarry check %j is refused as a wrong command line', async (args, message) => {
  const { code, stderr } = await quarry(['check', ...args]);
  expect(code).toBe(2);
  expect(stderr).toMatch(message);
});
