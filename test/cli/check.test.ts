import { open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
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
