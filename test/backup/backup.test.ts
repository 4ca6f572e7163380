/**
 * Backups of volumes that are maps of blocks, in a folder: what a backup holds, what it reads and stores, and that every
 * one restores by itself whatever became of the others.
 */
import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { collectAll, deleteBackup } from '../../src/backup/collect.ts';
import { wrappingKeyFrom } from '../../src/backup/encryption.ts';
import { verifyBackup } from '../../src/backup/verify.ts';
import { BackupWorld, FakeVolume, type Taken } from './world.ts';

const KIB = 1024;
const MIB = 1 << 20;
const never = new AbortController().signal;

/** Data in two leaves, a hole between. */
function someVolume(): FakeVolume {
  const volume = new FakeVolume(192 * MIB);
  volume.fill(0, 3 * MIB);
  volume.fill(60 * MIB, 6 * MIB);
  volume.fill(180 * MIB, 128 * KIB);
  return volume;
}

async function expectGood(world: BackupWorld, taken: Taken): Promise<void> {
  const restored = await world.restore(taken.id);
  expect(restored.isSameAs(taken.frozen)).toBe(true);
  const order = {
    volume: world.volumeId,
    backup: taken.id,
    depth: 'full' as const,
    signal: never,
    onProgress: () => {},
  };
  const report = await verifyBackup(world.repository, order);
  expect(report).toMatchObject({ outcome: 'good', problems: [] });
}

describe.each([
  ['plain', null, 'lz4'],
  ['encrypted', wrappingKeyFrom(Buffer.alloc(32, 7)), 'lz4'],
  ['by zstd', null, 'zstd'],
] as const)('%s', (_, wrappingKey, compression) => {
  test('a full backup restores what was there, and a restored volume has no more data than it needs', async () => {
    await using world = await BackupWorld.open({ wrappingKey, compression });
    const volume = someVolume();
    // Zeros that were written are not stored.
    await volume.write(100 * MIB, Buffer.alloc(2 * MIB));
    const taken = await world.take(volume);
    await expectGood(world, taken);
    const restored = await world.restore(taken.id);
    expect(restored.map().some(({ offset }) => offset >= 100 * MIB && offset < 102 * MIB)).toBe(false);
    expect(taken.manifest).toMatchObject({ parent: null, is_encrypted: wrappingKey !== null });
  });

  test('an incremental one reads and stores what changed only, and restores by itself', async () => {
    await using world = await BackupWorld.open({ wrappingKey, compression });
    const volume = someVolume();
    const full = await world.take(volume);
    volume.fill(MIB, 4 * KIB);
    volume.fill(61 * MIB, 256 * KIB);
    volume.discard(64 * MIB, MIB);
    volume.fill(150 * MIB, 64 * KIB);
    const incremental = await world.take(volume, full);
    // 64 KiB for the one block, 256, 64.
    expect(incremental.readFromVolume).toBe(384 * KIB);
    expect(incremental.manifest.added_bytes).toBeLessThan(384 * KIB + 100 * KIB);
    await expectGood(world, incremental);
    await expectGood(world, full);
  });

  test('without the base only hashes tell what changed: everything is read, the same is stored', async () => {
    await using world = await BackupWorld.open({ wrappingKey, compression });
    const volume = someVolume();
    const full = await world.take(volume);
    volume.fill(2 * MIB, 64 * KIB);
    volume.discard(180 * MIB, 128 * KIB);
    const taken = await world.take(volume, full, { changes: async () => null });
    expect(taken.readFromVolume).toBeGreaterThanOrEqual(9 * MIB);
    expect(taken.manifest.added_bytes).toBeLessThan(64 * KIB + 100 * KIB);
    await expectGood(world, taken);
  });

  test('an unchanged volume costs a manifest and nothing else', async () => {
    await using world = await BackupWorld.open({ wrappingKey, compression });
    const volume = someVolume();
    const full = await world.take(volume);
    const before = world.files().size;
    const again = await world.take(volume, full);
    expect(again).toMatchObject({ readFromVolume: 0, manifest: { added_bytes: 0 } });
    expect(again.manifest.root).toBe(full.manifest.root);
    // An encrypted backup has a key of its own besides.
    expect(world.files().size - before).toBe(wrappingKey === null ? 1 : 2);
    await expectGood(world, again);
  });
});

test('a volume that grows or shrinks between backups restores at its size', async () => {
  await using world = await BackupWorld.open();
  const small = new FakeVolume(10 * MIB);
  small.fill(0, MIB);
  small.fill(9 * MIB, MIB);
  const first = await world.take(small);
  const large = small.freeze(130 * MIB);
  large.fill(129 * MIB, MIB);
  const second = await world.take(large, first);
  expect(second.readFromVolume).toBe(MIB);
  const shrunk = large.freeze(9 * MIB);
  const third = await world.take(shrunk, second);
  for (const taken of [first, second, third]) {
    await expectGood(world, taken);
    expect(taken.manifest.size_bytes).toBe(taken.frozen.sizeBytes);
  }
});

test('a restore into a volume with data leaves nothing of it, also behind the end of the backup', async () => {
  await using world = await BackupWorld.open();
  const volume = someVolume();
  const taken = await world.take(volume);
  const target = new FakeVolume(300 * MIB);
  target.fill(2 * MIB, 70 * MIB);
  target.fill(179 * MIB + 4 * KIB, 4 * MIB);
  target.fill(299 * MIB, MIB);
  await world.restore(taken.id, target);
  expect(target.isSameAs(taken.frozen)).toBe(true);
  const smaller = new FakeVolume(100 * MIB);
  smaller.fill(0, MIB);
  const before = smaller.freeze();
  await expect(world.restore(taken.id, smaller)).rejects.toMatchObject({ code: 'bad_request' });
  expect(smaller.isSameAs(before)).toBe(true);
});

test('backups are deleted in any order; the others stay whole and the last leaves nothing', async () => {
  const orders = [
    [0, 1, 2, 3],
    [3, 2, 1, 0],
    [1, 3, 0, 2],
    [2, 0, 3, 1],
  ];
  for (const order of orders) {
    await using world = await BackupWorld.open();
    const volume = someVolume();
    const taken: Taken[] = [];
    for (let round = 0; round < 4; round += 1) {
      taken.push(await world.take(volume, taken.at(-1) ?? null, { packBytes: MIB }));
      volume.fill(round * 200 * KIB - ((round * 200 * KIB) % (4 * KIB)), 300 * KIB);
      volume.discard(60 * MIB + round * MIB, MIB);
    }
    const left = new Set(taken);
    for (const index of order) {
      const gone = taken[index];
      if (gone === undefined) throw new Error('no such backup');
      left.delete(gone);
      const collected = await deleteBackup(world.repository, {
        volume: world.volumeId,
        backup: gone.id,
        signal: never,
      });
      expect(collected.unfinished).toBe(0);
      for (const one of left) await expectGood(world, one);
    }
    expect([...world.files().keys()]).toEqual(['format.json']);
  }
}, 120_000);

test('random histories of writes, discards, backups and deletions restore exactly, and nothing is left over', async () => {
  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  let state = seed;
  const random = (below: number): number => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  await using world = await BackupWorld.open();
  const volume = new FakeVolume(140 * MIB);
  const taken: Taken[] = [];
  for (let step = 0; step < 25; step += 1) {
    for (let change = 0; change < 4; change += 1) {
      const at = random(140 * 256 - 100) * 4 * KIB;
      const length = (1 + random(60)) * 4 * KIB;
      if (random(3) === 0) volume.discard(at, length);
      else volume.fill(at, length);
    }
    const parent = taken.length === 0 || random(5) === 0 ? null : (taken[random(taken.length)] ?? null);
    const knowsBase = random(3) > 0 ? {} : { changes: async () => null };
    taken.push(await world.take(volume, parent, { packBytes: 256 * KIB, ...knowsBase }));
    if (taken.length > 3) {
      const [gone] = taken.splice(random(taken.length), 1);
      if (gone !== undefined)
        await deleteBackup(world.repository, { volume: world.volumeId, backup: gone.id, signal: never });
    }
    if (random(4) === 0) await collectAll(world.repository, never);
    for (const one of taken) {
      const restored = await world.restore(one.id);
      expect(restored.isSameAs(one.frozen), `seed ${seed}, step ${step}`).toBe(true);
    }
  }
  for (const one of taken)
    await deleteBackup(world.repository, { volume: world.volumeId, backup: one.id, signal: never });
  expect([...world.files().keys()], `seed ${seed}`).toEqual(['format.json']);
}, 120_000);

test('an encrypted repository shows nothing of the data, and another key restores nothing', async () => {
  const right = wrappingKeyFrom(randomBytes(32));
  await using world = await BackupWorld.open({ wrappingKey: right });
  const volume = new FakeVolume(MIB);
  await volume.write(0, Buffer.alloc(256 * KIB, 'a secret that is easy to find. '));
  const taken = await world.take(volume);
  for (const key of world.files().keys()) expect(world.bytesOf(key).includes('secret')).toBe(false);
  await world.reopen({ wrappingKey: wrappingKeyFrom(randomBytes(32)) });
  await expect(world.restore(taken.id)).rejects.toMatchObject({
    code: 'wrong_state',
    message: expect.stringContaining('not wrapped by'),
  });
  await world.reopen({ wrappingKey: null });
  await expect(world.restore(taken.id)).rejects.toMatchObject({
    code: 'wrong_state',
    message: expect.stringContaining('no backup key'),
  });
  // Stored bytes are verified without any key.
  const order = {
    volume: world.volumeId,
    backup: taken.id,
    depth: 'stored' as const,
    signal: never,
    onProgress: () => {},
  };
  expect(await verifyBackup(world.repository, order)).toMatchObject({ outcome: 'good' });
});

test('a plain parent is not referred to by an encrypted backup, nor the other way round', async () => {
  await using world = await BackupWorld.open();
  const volume = someVolume();
  const plain = await world.take(volume);
  await world.reopen({ wrappingKey: wrappingKeyFrom(Buffer.alloc(32, 1)) });
  const encrypted = await world.take(volume, plain);
  expect(encrypted.manifest.packs.every(([, owner, , , , , key]) => owner === encrypted.id && key !== null)).toBe(true);
  await expectGood(world, encrypted);
  await expectGood(world, plain);
});
