import { mkdirSync, readdirSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { FolderObjects } from '../../src/objects/folder.ts';
import { tempFolder } from '../support/temp.ts';
import { objectsContract } from './objects.ts';

objectsContract('folder', async () => {
  const temp = await tempFolder();
  const open = () => FolderObjects.open(join(temp.path, 'backups'), Date.now());
  return { objects: await open(), again: open, close: temp.remove };
});

test('parts that a crash left are removed at the next opening, those under way are not, and no listing shows them', async () => {
  await using temp = await tempFolder();
  const parts = join(temp.path, '.parts');
  mkdirSync(parts);
  writeFileSync(join(parts, 'old'), 'half an object');
  writeFileSync(join(parts, 'young'), 'half an object');
  const old = new Date(Date.now() - 48 * 3600 * 1000);
  utimesSync(join(parts, 'old'), old, old);
  const objects = await FolderObjects.open(temp.path, Date.now());
  expect(readdirSync(parts)).toEqual(['young']);
  await objects.put('vol/a.pack', Buffer.from('x'), { ifAbsent: true });
  expect(await objects.folders('vol/')).toEqual([]);
  expect(readdirSync(parts)).toEqual(['young']);
});

test('a folder that cannot be made or written is named in the refusal', async () => {
  await using temp = await tempFolder();
  writeFileSync(join(temp.path, 'file'), '');
  await expect(FolderObjects.open(join(temp.path, 'file', 'below'), Date.now())).rejects.toMatchObject({
    code: 'objects_unavailable',
    message: expect.stringContaining(join(temp.path, 'file', 'below')),
  });
});
