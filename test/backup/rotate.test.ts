/** The operator's key is changed: nothing is ever without a key that opens it, and afterwards the old one opens nothing. */
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { type WrappingKey, wrappingKeyFrom } from '../../src/backup/encryption.ts';
import { rotateKeys } from '../../src/backup/rotate.ts';
import { Failure } from '../../src/base/errors.ts';
import type { ObjectStore } from '../../src/objects/objects.ts';
import { BackupWorld, FakeVolume, type Taken } from './world.ts';

const MIB = 1 << 20;
const STEPS_MAX = 40;
const never = new AbortController().signal;
const OLD = wrappingKeyFrom(Buffer.alloc(32, 1));
const NEW = wrappingKeyFrom(Buffer.alloc(32, 2));
const BOTH: WrappingKey = { ...NEW, previous: [OLD] };

/** Asks before each call: what a crash after one leaves is what one before the next leaves. */
function dying(objects: ObjectStore, step: () => void): ObjectStore {
  const around = async <T>(call: () => Promise<T>): Promise<T> => {
    step();
    return call();
  };
  return {
    place: objects.place,
    put: (key, body, options) => around(() => objects.put(key, body, options)),
    delete: (keys) => around(() => objects.delete(keys)),
    get: (key, range) => around(() => objects.get(key, range)),
    folders: (prefix) => around(() => objects.folders(prefix)),
    list: (prefix) => objects.list(prefix),
    close: () => objects.close(),
  };
}

async function twoBackups(world: BackupWorld): Promise<Taken[]> {
  const volume = new FakeVolume(8 * MIB);
  volume.fill(0, MIB);
  const first = await world.take(volume);
  volume.fill(2 * MIB, MIB);
  return [first, await world.take(volume, first)];
}

async function expectRestored(world: BackupWorld, backups: readonly Taken[]): Promise<void> {
  for (const { id, frozen } of backups) expect((await world.restore(id)).isSameAs(frozen)).toBe(true);
}

const keyFiles = (world: BackupWorld): string[] => [...world.files().keys()].filter((key) => key.includes('/key/'));

test('interrupted at any step every backup can be restored, and doing it again ends it', async () => {
  let isThrough = false;
  for (let at = 1; at < STEPS_MAX && !isThrough; at += 1) {
    await using world = await BackupWorld.open({ wrappingKey: OLD });
    const backups = await twoBackups(world);
    const count = keyFiles(world).length;
    let steps = 0;
    let isArmed = false;
    const step = (): void => {
      if (isArmed) steps += 1;
      if (steps >= at) throw new Failure('objects_unavailable', { reason: 'the process is gone' });
    };
    await world.reopen({ wrappingKey: BOTH, around: (objects) => dying(objects, step) });
    isArmed = true;
    const outcome = await rotateKeys(world.repository, never).catch((error: Failure) => error.code);
    isThrough = steps < at;
    if (!isThrough) expect(outcome, `step ${at}`).toBe('objects_unavailable');
    await world.reopen({ wrappingKey: BOTH });
    await expectRestored(world, backups);
    const { wrapped, kept, foreign } = await rotateKeys(world.repository, never);
    expect([wrapped + kept, foreign], `step ${at}`).toEqual([count, []]);
    expect(keyFiles(world).every((key) => key.endsWith(`.${NEW.id}.json`))).toBe(true);
    await world.reopen({ wrappingKey: NEW });
    await expectRestored(world, backups);
    await world.reopen({ wrappingKey: OLD });
    await expect(world.restore(backups[0]?.id ?? '')).rejects.toMatchObject({ code: 'wrong_state' });
  }
  expect(isThrough).toBe(true);
}, 60_000);

test('a backup on one of the old key is incremental, and under the new key alone', async () => {
  await using world = await BackupWorld.open({ wrappingKey: OLD });
  const volume = new FakeVolume(8 * MIB);
  volume.fill(0, 2 * MIB);
  const first = await world.take(volume);
  await world.reopen({ wrappingKey: BOTH });
  volume.fill(0, 65536);
  const second = await world.take(volume, first);
  expect(second.manifest.packs.some(([, owner]) => owner === first.id)).toBe(true);
  await expectRestored(world, [first, second]);
  expect(await rotateKeys(world.repository, never)).toMatchObject({ wrapped: 1, kept: 1, removed: 1, foreign: [] });
  await world.reopen({ wrappingKey: NEW });
  await expectRestored(world, [first, second]);
});

test('what no configured key opens is named and left, and the rest is done', async () => {
  await using world = await BackupWorld.open({ wrappingKey: wrappingKeyFrom(Buffer.alloc(32, 3)) });
  const foreign = await twoBackups(world);
  const strange = keyFiles(world);
  await world.reopen({ wrappingKey: OLD });
  const volume = new FakeVolume(MIB);
  volume.fill(0, MIB);
  const own = await world.take(volume);
  await world.reopen({ wrappingKey: BOTH });
  const rotated = await rotateKeys(world.repository, never);
  expect(rotated).toMatchObject({ wrapped: 1, removed: 1 });
  expect([...rotated.foreign].sort()).toEqual(strange.sort());
  await expectRestored(world, [own]);
  await world.reopen({ wrappingKey: wrappingKeyFrom(Buffer.alloc(32, 3)) });
  await expectRestored(world, foreign);
});

test('a damaged object under the new key is written again from the one under the old', async () => {
  await using world = await BackupWorld.open({ wrappingKey: OLD });
  const backups = await twoBackups(world);
  for (const key of keyFiles(world))
    writeFileSync(join(world.folder, key.replace(OLD.id, NEW.id)), randomBytes(200).toString('hex'));
  await world.reopen({ wrappingKey: BOTH });
  await expectRestored(world, backups);
  expect(await rotateKeys(world.repository, never)).toMatchObject({ wrapped: 2, kept: 0, removed: 2 });
  await world.reopen({ wrappingKey: NEW });
  await expectRestored(world, backups);
});

test('the present key named as its own predecessor loses nothing', async () => {
  await using world = await BackupWorld.open({ wrappingKey: OLD });
  const backups = await twoBackups(world);
  await world.reopen({ wrappingKey: { ...OLD, previous: [OLD] } });
  expect(await rotateKeys(world.repository, never)).toMatchObject({ wrapped: 0, kept: 2, removed: 0 });
  await expectRestored(world, backups);
});

test('without a key there is nothing to change to', async () => {
  await using world = await BackupWorld.open();
  await expect(rotateKeys(world.repository, never)).rejects.toMatchObject({ code: 'wrong_state' });
});
