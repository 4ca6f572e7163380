/**
 * Instant restores as control sees them, over the memory backend and a folder: served before a pack is fetched, filled meanwhile,
 * through crashes, outages and damage; and what may not be done until the end.
 */
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { Failure } from '../../src/base/errors.ts';
import { findBackup } from '../../src/catalog/backups.ts';
import { allFills } from '../../src/catalog/fills.ts';
import { findVolume } from '../../src/catalog/volumes.ts';
import { createBackup, deleteBackup, restoreBackup } from '../../src/control/backups.ts';
import { restoreInstantly } from '../../src/control/instant-restore.ts';
import { createSnapshot } from '../../src/control/snapshots.ts';
import { usage } from '../../src/control/status.ts';
import { createVolume, deleteVolume, extendVolume } from '../../src/control/volumes.ts';
import type { ObjectStore } from '../../src/objects/objects.ts';
import { CALLER, NEW_BACKUP, NEW_SNAPSHOT, NEW_VOLUME, World } from './world.ts';

const BLOCK = 65536;
const BLOCKS = [0, 1, 7, 2000, 16383] as const;
const PAUSE = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A store whose packs can be held back, and which can be away. */
class Far {
  packs = 0;
  isAway = false;
  #held: (() => void)[] | null = [];

  readonly around = (objects: ObjectStore): ObjectStore => ({
    place: objects.place,
    put: (...args) => objects.put(...args),
    list: (...args) => objects.list(...args),
    folders: (...args) => objects.folders(...args),
    delete: (...args) => objects.delete(...args),
    close: () => objects.close(),
    get: async (key, range) => {
      if (this.isAway) throw new Failure('objects_unavailable', { reason: 'it is away' });
      if (key.endsWith('.pack')) {
        this.packs += 1;
        if (this.#held !== null) await new Promise<void>((resolve) => this.#held?.push(resolve));
        if (this.isAway) throw new Failure('objects_unavailable', { reason: 'it is away' });
      }
      return objects.get(key, range);
    },
  });

  hold(): void {
    this.#held ??= [];
  }

  release(): void {
    const held = this.#held ?? [];
    this.#held = null;
    for (const go of held) go();
  }
}

type Begun = { readonly world: World; readonly far: Far; readonly source: string; readonly backup: string };

async function backedUp(): Promise<Begun> {
  const world = await World.open();
  const source = await world.volume({ name: 'disk', sizeGib: 1 });
  for (const block of BLOCKS) world.backend.write(source, block * BLOCK);
  const backup = await world.backup(source);
  const far = new Far();
  await world.stop();
  world.backend.restart();
  await world.start({ aroundObjects: far.around, pause: PAUSE });
  return { world, far, source, backup };
}

async function instant({ world, backup }: Begun): Promise<string> {
  const { volumeId } = await restoreInstantly(world.control, CALLER, { id: backup, name: 'fast' });
  await world.control.tasks.idle();
  return volumeId;
}

const statusOf = async ({ world }: Begun, id: string) => (await findVolume(world.control.catalog.reader, id))?.status;
const blocksOf = ({ world }: Begun, id: string) => new Map([...world.backend.blocksOf(id)].sort(([a], [b]) => a - b));
const fillingOf = async ({ world }: Begun, id: string) =>
  (await usage(world.control, CALLER, { kind: 'volume', id })).filling;
const filled = (begun: Begun) => expect.poll(() => allFills(begun.world.control.catalog.reader)).toEqual([]);

test('a volume is available and published before any pack is fetched, and has everything when it is filled', async () => {
  const begun = await backedUp();
  await using world = begun.world;
  const id = await instant(begun);
  expect(await statusOf(begun, id)).toBe('available');
  expect((await findBackup(world.control.catalog.reader, begun.backup))?.status).toBe('available');
  expect(world.backend.published().get(id)?.targetId).toBe(id);
  expect(world.backend.published().get('fast')?.targetId).toBe(id);
  expect(blocksOf(begun, id).size).toBe(0);
  await expect.poll(() => begun.far.packs).toBeGreaterThan(0);
  expect(await fillingOf(begun, id)).toMatchObject({ backupId: begun.backup, doneBytes: 0, failure: null });
  begun.far.release();
  await filled(begun);
  await expect.poll(() => world.backend.fillingOf(id)).toBe(null);
  expect(blocksOf(begun, id)).toEqual(blocksOf(begun, begun.source));
  expect(await fillingOf(begun, id)).toBe(null);
  await world.snapshot(id);
});

test('what would take what is still to come for zeros is refused until the end, and growing and deleting are not', async () => {
  const begun = await backedUp();
  await using world = begun.world;
  const { control } = world;
  const id = await instant(begun);
  const wrong = { code: 'wrong_state', message: expect.stringContaining('still being filled') };
  await expect(createSnapshot(control, CALLER, { ...NEW_SNAPSHOT, volumeId: id })).rejects.toMatchObject(wrong);
  await expect(createBackup(control, CALLER, { ...NEW_BACKUP, volumeId: id })).rejects.toMatchObject(wrong);
  const clone = createVolume(control, CALLER, { ...NEW_VOLUME, source: { kind: 'volume', id } });
  await expect(clone).rejects.toMatchObject(wrong);
  const over = restoreBackup(control, CALLER, { id: begun.backup, volumeId: id, name: null });
  await expect(over).rejects.toMatchObject(wrong);
  await expect(deleteBackup(control, CALLER, { id: begun.backup, force: true })).rejects.toMatchObject(wrong);
  await extendVolume(control, CALLER, { id, sizeGib: 2, alsoInUse: false });
  await control.tasks.idle();
  // The store has not answered yet.
  await deleteVolume(control, CALLER, { id, cascade: false, force: false });
  await control.tasks.idle();
  expect(await statusOf(begun, id)).toBe(undefined);
  expect(await allFills(control.catalog.reader)).toEqual([]);
  await deleteBackup(control, CALLER, { id: begun.backup, force: false });
  await control.tasks.idle();
  expect(await findBackup(control.catalog.reader, begun.backup)).toBe(undefined);
});

test('what clients wrote before and after a crash stays, and the rest comes', async () => {
  const begun = await backedUp();
  await using world = begun.world;
  const id = await instant(begun);
  world.backend.write(id, 7 * BLOCK);
  const written = world.backend.blocksOf(id).get(7);
  await world.crash();
  const far = new Far();
  await world.start({ aroundObjects: far.around, pause: PAUSE });
  expect(await statusOf(begun, id)).toBe('available');
  expect(world.backend.published().get(id)?.targetId).toBe(id);
  world.backend.write(id, 0);
  const later = world.backend.blocksOf(id).get(0);
  far.release();
  await filled(begun);
  const expected = blocksOf(begun, begun.source);
  expected.set(7, written ?? 0).set(0, later ?? 0);
  expect(blocksOf(begun, id)).toEqual(expected);
});

test('while the store is away the volume is served, also after a start; who reads gets an error; then all comes', async () => {
  const begun = await backedUp();
  await using world = begun.world;
  const id = await instant(begun);
  await world.crash();
  const far = new Far();
  far.isAway = true;
  far.release();
  await world.start({ aroundObjects: far.around, pause: PAUSE });
  expect(world.backend.published().get(id)?.targetId).toBe(id);
  world.backend.want(id, 7 * BLOCK);
  await expect.poll(() => world.backend.fillingOf(id)?.failed).toEqual([7 * BLOCK]);
  await expect.poll(() => fillingOf(begun, id)).toMatchObject({ failure: expect.stringContaining('it is away') });
  world.backend.write(id, 3 * BLOCK);
  far.isAway = false;
  await filled(begun);
  const written = world.backend.blocksOf(id).get(3) ?? 0;
  expect(blocksOf(begun, id)).toEqual(
    new Map([...blocksOf(begun, begun.source), [3, written] as const].sort(([a], [b]) => a - b)),
  );
});

test('who reads waits as long as it was set, and gets what comes within that', async () => {
  const begun = await backedUp();
  await using world = begun.world;
  const id = await instant(begun);
  await world.crash();
  const far = new Far();
  far.isAway = true;
  far.release();
  await world.start({ aroundObjects: far.around, pause: PAUSE, fillWaitMs: 600_000 });
  world.backend.want(id, 7 * BLOCK);
  await expect.poll(() => fillingOf(begun, id)).toMatchObject({ failure: expect.stringContaining('it is away') });
  expect(world.backend.fillingOf(id)?.failed).toEqual([]);
  far.isAway = false;
  await expect.poll(() => world.backend.blocksOf(id).has(7)).toBe(true);
  await filled(begun);
});

test('a damaged chunk never arrives: who reads it gets an error, the volume says why, everything else is there', async () => {
  const begun = await backedUp();
  await using world = begun.world;
  const folder = join(world.folder, 'backups');
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  const pack = join(folder, names.find((name) => name.endsWith('.pack')) ?? '');
  const bytes = readFileSync(pack);
  // In the first chunk.
  bytes[40] = (bytes[40] ?? 0) ^ 1;
  writeFileSync(pack, bytes);
  begun.far.release();
  const id = await instant(begun);
  await expect.poll(() => blocksOf(begun, id).size).toBe(BLOCKS.length - 1);
  await expect.poll(() => fillingOf(begun, id)).toMatchObject({ failure: expect.stringContaining('chunk 0') });
  world.backend.want(id, 0);
  await expect.poll(() => world.backend.fillingOf(id)?.failed).toEqual([0]);
  expect(blocksOf(begun, id).has(0)).toBe(false);
  expect(await allFills(world.control.catalog.reader)).toHaveLength(1);
});

test('a backup without its manifest is not served at all', async () => {
  const begun = await backedUp();
  await using world = begun.world;
  const folder = join(world.folder, 'backups');
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  rmSync(join(folder, names.find((name) => name.endsWith(`${begun.backup}.json`)) ?? ''));
  const id = await instant(begun);
  expect(await findVolume(world.control.catalog.reader, id)).toMatchObject({
    status: 'error',
    failure: expect.stringContaining('no manifest'),
  });
  expect(await allFills(world.control.catalog.reader)).toEqual([]);
  expect(world.backend.published().has(id)).toBe(false);
  await deleteVolume(world.control, CALLER, { id, cascade: false, force: false });
  await world.control.tasks.idle();
  expect(await statusOf(begun, id)).toBe(undefined);
});
