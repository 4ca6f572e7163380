/**
 * Every kind of object of a repository is damaged, at many places: verification finds it, and a restore either writes
 * what was backed up or fails; it never says done with other bytes.
 */
import { rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { wrappingKeyFrom } from '../../src/backup/encryption.ts';
import { Repository } from '../../src/backup/repository.ts';
import { type Depth, type VerifyReport, verifyBackup } from '../../src/backup/verify.ts';
import { Failure } from '../../src/base/errors.ts';
import { FolderObjects } from '../../src/objects/folder.ts';
import type { ObjectStore } from '../../src/objects/objects.ts';
import { BackupWorld, FakeVolume, type Taken } from './world.ts';

const KIB = 1024;
const MIB = 1 << 20;
const KINDS = ['pack', 'idx', 'manifest', 'key'] as const;
const wrappingKey = wrappingKeyFrom(Buffer.alloc(32, 3));
/** Places per object: at the beginning, the end and between. */
const PLACES = 12;

async function twoBackups(world: BackupWorld): Promise<Taken> {
  const volume = new FakeVolume(128 * MIB);
  volume.fill(0, 512 * KIB);
  volume.fill(70 * MIB, 256 * KIB);
  const first = await world.take(volume, null, { packBytes: 256 * KIB });
  volume.fill(64 * KIB, 128 * KIB);
  return world.take(volume, first, { packBytes: 256 * KIB });
}

/** What the second backup needs of this kind. */
async function keysOf(world: BackupWorld, taken: Taken, kind: string): Promise<string[]> {
  const { packs, indexes } = taken.manifest;
  const seq = (sequence: number) => String(sequence).padStart(8, '0');
  const all = [...world.files().keys()];
  if (kind === 'pack') return packs.map(([, owner, at]) => `vol/${world.volumeId}/pack/${owner}/${seq(at)}.pack`);
  if (kind === 'idx') return indexes.map(([, owner, at]) => `vol/${world.volumeId}/idx/${owner}/${seq(at)}.idx`);
  if (kind === 'manifest') return all.filter((key) => key.endsWith(`manifest/${taken.id}.json`));
  return all.filter((key) => packs.some(([, , , , , , keyId]) => keyId !== null && key.includes(keyId)));
}

/** An index object of an earlier backup may hold leaves that this one has replaced: nobody reads those. */
function isNeeded(taken: Taken, key: string, at: number): boolean {
  const { indexes, leaves } = taken.manifest;
  const index = indexes.find(([, owner, sequence]) =>
    key.endsWith(`idx/${owner}/${String(sequence).padStart(8, '0')}.idx`),
  );
  if (index === undefined) return true;
  return leaves.some(([, number, offset, bytes]) => number === index[0] && at >= offset && at < offset + bytes);
}

const verify = (world: BackupWorld, taken: Taken, depth: Depth): Promise<VerifyReport> =>
  verifyBackup(world.repository, {
    volume: world.volumeId,
    backup: taken.id,
    depth,
    signal: new AbortController().signal,
    onProgress: () => {},
  });

/** Damaged, or what it needs could not be used at all. */
async function expectFound(world: BackupWorld, taken: Taken, where: string): Promise<void> {
  const report = await verify(world, taken, 'full').catch((error: unknown) => {
    expect(error, where).toBeInstanceOf(Failure);
    return null;
  });
  if (report !== null) expect(report.outcome, where).toBe('damaged');
}

async function expectNoWrongBytes(world: BackupWorld, taken: Taken, where: string): Promise<void> {
  const target = new FakeVolume(128 * MIB);
  let isDone = false;
  try {
    await world.restore(taken.id, target);
    isDone = true;
  } catch (error) {
    if (!(error instanceof Failure)) expect((error as Error).message, where).toContain('no manifest');
  }
  if (isDone) expect(target.isSameAs(taken.frozen), where).toBe(true);
}

describe.each(KINDS)('%s', (kind) => {
  test('a flipped bit anywhere is found and never restored', async () => {
    await using world = await BackupWorld.open({ wrappingKey });
    const taken = await twoBackups(world);
    const keys = await keysOf(world, taken, kind);
    expect(keys.length).toBeGreaterThan(0);
    for (const key of keys) {
      const good = world.bytesOf(key);
      for (let place = 0; place <= PLACES; place += 1) {
        const at = Math.min(good.length - 1, Math.floor((good.length * place) / PLACES));
        const bad = Buffer.from(good);
        bad[at] = (bad[at] ?? 0) ^ (1 << (place % 8));
        writeFileSync(join(world.folder, key), bad);
        const where = `${key} byte ${at} of ${good.length}`;
        if (isNeeded(taken, key, at)) await expectFound(world, taken, where);
        if (kind === 'pack') expect((await verify(world, taken, 'stored')).outcome, where).toBe('damaged');
        await expectNoWrongBytes(world, taken, where);
      }
      writeFileSync(join(world.folder, key), good);
    }
    expect((await verify(world, taken, 'full')).outcome).toBe('good');
  });

  test('a truncated, emptied, exchanged or lost one is found and never restored', async () => {
    await using world = await BackupWorld.open({ wrappingKey });
    const taken = await twoBackups(world);
    const keys = await keysOf(world, taken, kind);
    for (const [index, key] of keys.entries()) {
      const path = join(world.folder, key);
      const good = world.bytesOf(key);
      const other = keys[(index + 1) % keys.length] ?? key;
      const damages: [string, () => void][] = [
        ['one byte short', () => truncateSync(path, good.length - 1)],
        ['half', () => truncateSync(path, good.length >> 1)],
        ['empty', () => truncateSync(path, 0)],
        ['one byte long', () => writeFileSync(path, Buffer.concat([good, Buffer.alloc(1)]))],
        ['lost', () => rmSync(path)],
        ...(other === key
          ? []
          : ([['another', () => writeFileSync(path, world.bytesOf(other))]] as [string, () => void][])),
      ];
      for (const [what, damage] of damages) {
        damage();
        await expectFound(world, taken, `${key} ${what}`);
        await expectNoWrongBytes(world, taken, `${key} ${what}`);
        if (kind !== 'key')
          expect((await verify(world, taken, 'manifest')).outcome, `${key} ${what}`).not.toBe(
            what === 'another' ? 'unknown' : 'good',
          );
        writeFileSync(path, good);
      }
    }
    expect((await verify(world, taken, 'full')).outcome).toBe('good');
  });
});

test('what cannot be read is unknown, not damaged', async () => {
  const failing = (objects: ObjectStore): ObjectStore =>
    new Proxy(objects, {
      get(target, name) {
        if (name !== 'get') return Reflect.get(target, name).bind?.(target) ?? Reflect.get(target, name);
        return async (key: string, range: Parameters<ObjectStore['get']>[1]) => {
          if (key.endsWith('.pack')) throw new Failure('objects_unavailable', { reason: 'as the test wants' });
          return target.get(key, range);
        };
      },
    });
  await using world = await BackupWorld.open({ wrappingKey });
  const taken = await twoBackups(world);
  await world.reopen({ wrappingKey, around: failing });
  expect(await verify(world, taken, 'manifest')).toMatchObject({ outcome: 'good' });
  const stored = await verify(world, taken, 'stored');
  expect(stored).toMatchObject({ outcome: 'unknown', problemCount: taken.manifest.packs.length });
  expect((await verify(world, taken, 'full')).outcome).toBe('unknown');
});

test('a damaged or newer repository is not opened and not written to', async () => {
  await using world = await BackupWorld.open();
  const path = join(world.folder, 'format.json');
  const good = world.bytesOf('format.json');
  const open = async () =>
    Repository.open({
      objects: await FolderObjects.open(world.folder, Date.now()),
      pool: world.pool,
      wrappingKey: null,
      now: Date.now,
    });
  writeFileSync(path, Buffer.from(good.toString().replace('"format":1', '"format":2')));
  await expect(open()).rejects.toMatchObject({ code: 'corrupt' });
  writeFileSync(path, '');
  await expect(open()).rejects.toMatchObject({ code: 'corrupt' });
  writeFileSync(path, good);
  expect((await open()).id).toBe(world.repository.id);
});
