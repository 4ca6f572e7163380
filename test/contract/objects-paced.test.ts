import { join } from 'node:path';
import { expect, test } from 'vitest';
import { FolderObjects } from '../../src/objects/folder.ts';
import { PacedObjects } from '../../src/objects/paced.ts';
import { tempFolder } from '../support/temp.ts';
import { objectsContract } from './objects.ts';

const RATE = 1000;

/** Time passes only while somebody waits. */
class Clock {
  nowMs = 0;
  readonly stop = new AbortController();

  paced(objects: FolderObjects): PacedObjects {
    return new PacedObjects(objects, {
      bytesPerSecond: RATE,
      elapsedMs: () => this.nowMs,
      pause: async (ms) => {
        const until = this.nowMs + ms;
        await Promise.resolve();
        this.nowMs = Math.max(this.nowMs, until);
      },
      signal: this.stop.signal,
    });
  }
}

objectsContract('folder at a limited rate', async () => {
  const temp = await tempFolder();
  const clock = new Clock();
  const open = async () => clock.paced(await FolderObjects.open(join(temp.path, 'backups'), Date.now()));
  return { objects: await open(), again: open, close: temp.remove };
});

test('bytes of both directions together take the time that the rate gives them', async () => {
  await using temp = await tempFolder();
  const clock = new Clock();
  const objects = clock.paced(await FolderObjects.open(temp.path, Date.now()));
  const put = (name: string, bytes: number) => objects.put(`vol/${name}`, Buffer.alloc(bytes), { ifAbsent: false });
  await put('a', 500);
  // The first found the line free.
  expect(clock.nowMs).toBe(0);
  await Promise.all([put('b', 700), put('c', 300)]);
  expect(clock.nowMs).toBe(1200);
  await objects.get('vol/b', { offset: 0, length: 100 });
  expect(clock.nowMs).toBe(1500);
  await objects.get('vol/b', null);
  expect(clock.nowMs).toBe(1600);
  await put('d', 1);
  expect(clock.nowMs).toBe(2300);
  // Nothing is saved up while nothing is wanted.
  clock.nowMs = 60_000;
  await Promise.all([put('e', 1000), put('f', 1000)]);
  expect(clock.nowMs).toBe(61_000);
});

test('who waits for his turn when everything stops does nothing any more', async () => {
  await using temp = await tempFolder();
  const stop = new AbortController();
  const objects = new PacedObjects(await FolderObjects.open(temp.path, Date.now()), {
    bytesPerSecond: 1,
    elapsedMs: () => 0,
    pause: (_, signal) => new Promise((resolve) => signal.addEventListener('abort', () => resolve())),
    signal: stop.signal,
  });
  await objects.put('vol/a', Buffer.alloc(1000), { ifAbsent: false });
  const late = objects.put('vol/b', Buffer.alloc(1000), { ifAbsent: false });
  stop.abort();
  await expect(late).rejects.toMatchObject({ code: 'shutting_down' });
  expect(await objects.folders('vol/')).toEqual([]);
});
