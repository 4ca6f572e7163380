/**
 * Writers, deleters and collectors that are interrupted, late or at work together: what is needed stays, what is not
 * goes in the end, and nobody believes to have a backup that is not there.
 */
import { expect, test } from 'vitest';
import { ABANDONED_MS, collectAll, deleteBackup } from '../../src/backup/collect.ts';
import { createBackup } from '../../src/backup/create.ts';
import { wrappingKeyFrom } from '../../src/backup/encryption.ts';
import { Failure } from '../../src/base/errors.ts';
import type { ObjectStore } from '../../src/objects/objects.ts';
import { BackupWorld, FakeVolume } from './world.ts';

const KIB = 1024;
const MIB = 1 << 20;
const never = new AbortController().signal;
const STEPS_MAX = 60;

/** Calls back before each change of the store; may throw there, as a crash or an outage would. */
function watched(
  objects: ObjectStore,
  before: (what: string) => Promise<void>,
  after = async (_what: string) => {},
): ObjectStore {
  return {
    place: objects.place,
    async put(key, body, options) {
      await before(`put ${key}`);
      const outcome = await objects.put(key, body, options);
      await after(`put ${key}`);
      return outcome;
    },
    async delete(keys) {
      await before(`delete ${keys.join(' ')}`);
      await objects.delete(keys);
      await after(`delete ${keys.join(' ')}`);
    },
    get: (key, range) => objects.get(key, range),
    list: (prefix) => objects.list(prefix),
    folders: (prefix) => objects.folders(prefix),
    close: () => objects.close(),
  };
}

function volumeWithData(): FakeVolume {
  const volume = new FakeVolume(128 * MIB);
  volume.fill(0, 2 * MIB);
  volume.fill(70 * MIB, MIB);
  return volume;
}

/** Packs from the first one on without a gap: what is gone on with. Uploads overlap, so a later one may be alone. */
function leadingPacks(world: BackupWorld, backup: string): number {
  const files = [...world.files().keys()];
  let count = 0;
  while (files.some((key) => key.endsWith(`pack/${backup}/${String(count).padStart(8, '0')}.pack`))) count += 1;
  return count;
}

test.each([
  ['plain', null],
  ['encrypted', wrappingKeyFrom(Buffer.alloc(32, 9))],
])(
  '%s: a backup interrupted at any step goes on with what it had stored',
  async (_, wrappingKey) => {
    for (let at = 1; at < STEPS_MAX; at += 1) {
      for (const when of ['before', 'after'] as const) {
        await using world = await BackupWorld.open({ wrappingKey });
        const volume = volumeWithData();
        const parent = await world.take(volume, null, { packBytes: 256 * KIB });
        volume.fill(256 * KIB, MIB);
        volume.fill(100 * MIB, 512 * KIB);
        const frozen = volume.freeze();
        const order = world.order(frozen, parent, { packBytes: 256 * KIB });
        let steps = 0;
        let isDead = false;
        const step = async () => {
          steps += 1;
          if (steps >= at) isDead = true;
          if (isDead) throw new Failure('objects_unavailable', { reason: 'the process is gone' });
        };
        const around = (objects: ObjectStore) =>
          when === 'before' ? watched(objects, step) : watched(objects, async () => {}, step);
        await world.reopen({ wrappingKey, around });
        const outcome = await createBackup(world.repository, order).catch((error: unknown) => error);
        const isThrough = steps < at;
        if (!isThrough) expect(outcome).toMatchObject({ code: 'objects_unavailable' });
        await world.reopen({ wrappingKey });
        // A collection in between takes nothing of it: it is young.
        await collectAll(world.repository, never);
        const storedBefore = leadingPacks(world, order.backup);
        const readBefore = frozen.readBytes;
        const { manifest } = await createBackup(world.repository, order);
        if (storedBefore >= 3 && !isThrough) expect(frozen.readBytes - readBefore).toBeLessThan(MIB + 512 * KIB);
        expect(manifest.backup).toBe(order.backup);
        expect((await world.restore(order.backup)).isSameAs(frozen)).toBe(true);
        expect((await world.restore(parent.id)).isSameAs(parent.frozen)).toBe(true);
        for (const backup of [parent.id, order.backup])
          await deleteBackup(world.repository, { volume: world.volumeId, backup, signal: never });
        world.aheadMs = 2 * ABANDONED_MS;
        await collectAll(world.repository, never);
        expect([...world.files().keys()].filter((key) => !key.includes('manifest/'))).toEqual(['format.json']);
        if (isThrough) return;
      }
    }
    throw new Error(`more than ${STEPS_MAX} steps`);
  },
  240_000,
);

test('a deletion interrupted at any step is finished by repeating it, and hurts no other backup meanwhile', async () => {
  for (let at = 1; at < STEPS_MAX; at += 1) {
    await using world = await BackupWorld.open();
    const volume = volumeWithData();
    const first = await world.take(volume, null, { packBytes: 256 * KIB });
    volume.fill(0, MIB);
    const second = await world.take(volume, first, { packBytes: 256 * KIB });
    let steps = 0;
    const step = async () => {
      steps += 1;
      if (steps >= at) throw new Failure('objects_unavailable', { reason: 'the process is gone' });
    };
    await world.reopen({ around: (objects) => watched(objects, step) });
    const order = { volume: world.volumeId, backup: first.id, signal: never };
    await deleteBackup(world.repository, order).catch(() => {});
    await world.reopen({});
    expect((await world.restore(second.id)).isSameAs(second.frozen)).toBe(true);
    await deleteBackup(world.repository, order);
    expect((await world.restore(second.id)).isSameAs(second.frozen)).toBe(true);
    await deleteBackup(world.repository, { ...order, backup: second.id });
    world.aheadMs = 2 * ABANDONED_MS;
    await collectAll(world.repository, never);
    expect([...world.files().keys()].filter((key) => !key.includes('manifest/'))).toEqual(['format.json']);
    if (steps < at) return;
  }
  throw new Error(`more than ${STEPS_MAX} steps`);
}, 120_000);

test('a parent deleted at any step of its child never costs the child anything', async () => {
  for (let at = 1; at < STEPS_MAX; at += 1) {
    await using world = await BackupWorld.open();
    const volume = volumeWithData();
    const parent = await world.take(volume, null, { packBytes: 256 * KIB });
    volume.fill(0, 700 * KIB);
    const frozen = volume.freeze();
    let steps = 0;
    const plain = world.repository;
    const step = async () => {
      steps += 1;
      if (steps === at) await deleteBackup(plain, { volume: world.volumeId, backup: parent.id, signal: never });
    };
    await world.reopen({ around: (objects) => watched(objects, step) });
    const order = world.order(frozen, parent, { packBytes: 256 * KIB });
    await createBackup(world.repository, order);
    await world.reopen({});
    await collectAll(world.repository, never);
    expect((await world.restore(order.backup)).isSameAs(frozen), `deleted at step ${at}`).toBe(true);
    await deleteBackup(world.repository, { volume: world.volumeId, backup: parent.id, signal: never });
    await deleteBackup(world.repository, { volume: world.volumeId, backup: order.backup, signal: never });
    expect([...world.files().keys()]).toEqual(['format.json']);
    if (steps < at) return;
  }
  throw new Error(`more than ${STEPS_MAX} steps`);
}, 120_000);

test('a writer that was silent for long is given up: it fails in the end, and leaves nothing', async () => {
  await using world = await BackupWorld.open();
  const volume = volumeWithData();
  const parent = await world.take(volume, null, { packBytes: 256 * KIB });
  volume.fill(0, MIB);
  const frozen = volume.freeze();
  const plain = world.repository;
  const order = world.order(frozen, parent, { packBytes: 256 * KIB });
  const beforeManifest = async (what: string) => {
    if (!what.includes(`manifest/${order.backup}`)) return;
    await collectAll(plain, never);
    expect(world.files().size).toBeGreaterThan(5);
    world.aheadMs = ABANDONED_MS + 60_000;
    const collected = await collectAll(plain, never);
    expect(collected.objects).toBeGreaterThan(2);
  };
  await world.reopen({ around: (objects) => watched(objects, beforeManifest) });
  await expect(createBackup(world.repository, order)).rejects.toMatchObject({ code: 'conflict' });
  await world.reopen({});
  expect(await world.repository.manifest(world.volumeId, order.backup)).toBeNull();
  expect([...world.files().keys()].some((key) => key.includes(`pack/${order.backup}`))).toBe(false);
  expect((await world.restore(parent.id)).isSameAs(parent.frozen)).toBe(true);
  // Asked again it refuses at once, and reads nothing.
  const readBefore = frozen.readBytes;
  await expect(createBackup(world.repository, order)).rejects.toMatchObject({ code: 'conflict' });
  expect(frozen.readBytes).toBe(readBefore);
  world.aheadMs = 40 * ABANDONED_MS;
  await collectAll(world.repository, never);
  expect(await world.repository.manifestOrTombstone(world.volumeId, order.backup)).toBeNull();
});

test('a collection that meets a manifest it cannot read takes nothing', async () => {
  await using world = await BackupWorld.open();
  const volume = volumeWithData();
  const first = await world.take(volume);
  volume.fill(0, MIB);
  const second = await world.take(volume, first);
  await world.repository.objects.put(`vol/${world.volumeId}/manifest/${second.id}.json`, Buffer.from('{}'), {
    ifAbsent: false,
  });
  const before = world.files();
  world.aheadMs = 2 * ABANDONED_MS;
  await expect(collectAll(world.repository, never)).rejects.toMatchObject({ code: 'corrupt' });
  expect(world.files()).toEqual(before);
});

test('a server that ignores If-None-Match is found out when the repository is made', async () => {
  const careless = (objects: ObjectStore): ObjectStore => ({
    ...watched(objects, async () => {}),
    put: (key, body) => objects.put(key, body, { ifAbsent: false }),
  });
  await using world = await BackupWorld.open({ around: careless });
  expect(world.repository.isConditional).toBe(false);
  const volume = volumeWithData();
  const taken = await world.take(volume);
  expect((await world.restore(taken.id)).isSameAs(taken.frozen)).toBe(true);
  await using careful = await BackupWorld.open();
  expect(careful.repository.isConditional).toBe(true);
});
