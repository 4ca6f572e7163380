/**
 * Backups as control sees them, over the memory backend and a folder: statuses, which parent is taken, what is read, and
 * what is kept for the next one.
 */
import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { allBackups, findBackup } from '../../src/catalog/backups.ts';
import { findSnapshot } from '../../src/catalog/snapshots.ts';
import { findVolume } from '../../src/catalog/volumes.ts';
import { attachVolume } from '../../src/control/attach-actions.ts';
import { exportRecord, importRecord, rescan } from '../../src/control/backup-records.ts';
import {
  createBackup,
  deleteBackup,
  getBackup,
  resetBackup,
  restoreBackup,
  verifyBackup,
} from '../../src/control/backups.ts';
import { quotaUse } from '../../src/control/quotas.ts';
import { deleteSnapshot } from '../../src/control/snapshots.ts';
import { createVolume, deleteVolume, revertVolume } from '../../src/control/volumes.ts';
import { CALLER, NEW_BACKUP, NEW_VOLUME, World } from './world.ts';

const BLOCK = 65536;
const OTHER = { ...CALLER, projectId: 'p2', role: 'member', isAdmin: false } as const;

async function volumeWithData(world: World): Promise<string> {
  const id = await world.volume({ name: 'disk', sizeGib: 1 });
  for (const block of [0, 1, 7, 2000, 16383]) world.backend.write(id, block * BLOCK);
  return id;
}

const statusOf = async (world: World, id: string) => (await findBackup(world.control.catalog.reader, id))?.status;
const volumeStatus = async (world: World, id: string) => (await findVolume(world.control.catalog.reader, id))?.status;
const blocksOf = (world: World, id: string) => new Map([...world.backend.blocksOf(id)].sort(([a], [b]) => a - b));

async function restored(world: World, backupId: string): Promise<string> {
  const { volumeId } = await restoreBackup(world.control, CALLER, { id: backupId, volumeId: null, name: null });
  await world.control.tasks.idle();
  return volumeId;
}

test('a volume is backed up and restored to a new volume with the same data, and its statuses say so meanwhile', async () => {
  await using world = await World.open();
  const volume = await volumeWithData(world);
  const made = createBackup(world.control, CALLER, {
    ...NEW_BACKUP,
    volumeId: volume,
    metadata: new Map([['k', 'v']]),
  });
  const { row } = await made;
  expect(row.status).toBe('creating');
  expect(await volumeStatus(world, volume)).toBe('backing-up');
  await world.control.tasks.idle();
  expect(await volumeStatus(world, volume)).toBe('available');
  const backup = await getBackup(world.control, CALLER, row.id);
  expect(backup.row).toMatchObject({ status: 'available', failure: null, parent_id: null, size_gib: 1 });
  expect(backup.row.object_count).toBeGreaterThan(2);
  const before = blocksOf(world, volume);
  const answer = await restoreBackup(world.control, CALLER, { id: row.id, volumeId: null, name: null });
  expect(answer.volumeName).toBe(`restore_backup_${row.id}`);
  expect(await statusOf(world, row.id)).toBe('restoring');
  expect(await volumeStatus(world, answer.volumeId)).toBe('restoring-backup');
  await world.control.tasks.idle();
  expect(await statusOf(world, row.id)).toBe('available');
  expect(await volumeStatus(world, answer.volumeId)).toBe('available');
  expect(blocksOf(world, answer.volumeId)).toEqual(before);
  expect(world.backend.published().get(answer.volumeId)?.targetId).toBe(answer.volumeId);
});

test('an incremental backup reads what changed since the newest one only, and one snapshot is kept for the next', async () => {
  await using world = await World.open();
  const volume = await volumeWithData(world);
  const reads: string[] = [];
  await world.stop();
  await world.start({ aroundData: async (what) => void reads.push(what) });
  await expect(
    createBackup(world.control, CALLER, { ...NEW_BACKUP, volumeId: volume, isIncremental: true }),
  ).rejects.toMatchObject({ message: 'Invalid backup: No backups available to do an incremental backup.' });
  expect(await volumeStatus(world, volume)).toBe('available');
  await world.backup(volume);
  reads.length = 0;
  world.backend.write(volume, 3 * BLOCK);
  const second = await world.backup(volume, { isIncremental: true });
  expect(reads).toEqual(['read']);
  reads.length = 0;
  const third = await world.backup(volume, { isIncremental: true });
  expect(reads).toEqual([]);
  // The volume and the newest backup's snapshot.
  expect(world.backend.ids()).toHaveLength(2);
  expect((await findBackup(world.control.catalog.reader, third))?.parent_id).toBe(second);
  expect(blocksOf(world, await restored(world, third))).toEqual(blocksOf(world, volume));
  // Without it everything is read again, and the next one still holds what it should.
  await deleteBackup(world.control, CALLER, { id: third, force: false });
  await world.control.tasks.idle();
  reads.length = 0;
  world.backend.write(volume, 4 * BLOCK);
  const fourth = await world.backup(volume, { isIncremental: true });
  expect(reads.length).toBeGreaterThan(3);
  expect((await findBackup(world.control.catalog.reader, fourth))?.added_bytes).toBeLessThan(BLOCK);
  expect(blocksOf(world, await restored(world, fourth))).toEqual(blocksOf(world, volume));
});

test('a snapshot is backed up as it is, after the volume has changed, and turns available again', async () => {
  await using world = await World.open();
  const volume = await volumeWithData(world);
  const first = await world.backup(volume);
  const snapshot = await world.snapshot(volume);
  const then = blocksOf(world, snapshot);
  world.backend.write(volume, 0);
  const later = await world.backup(volume, { isIncremental: true });
  const { row } = await createBackup(world.control, CALLER, {
    ...NEW_BACKUP,
    volumeId: volume,
    snapshotId: snapshot,
    isIncremental: true,
  });
  expect((await findSnapshot(world.control.catalog.reader, snapshot))?.status).toBe('backing-up');
  await world.control.tasks.idle();
  expect((await findSnapshot(world.control.catalog.reader, snapshot))?.status).toBe('available');
  // The parent is the newest whose data are older than the snapshot.
  expect((await findBackup(world.control.catalog.reader, row.id))?.parent_id).toBe(first);
  expect((await findBackup(world.control.catalog.reader, later))?.parent_id).toBe(first);
  expect(blocksOf(world, await restored(world, row.id))).toEqual(then);
  await deleteSnapshot(world.control, CALLER, { id: snapshot, force: false });
  await world.control.tasks.idle();
  expect(blocksOf(world, await restored(world, row.id))).toEqual(then);
});

test('backups outlive their volume, and restore over another volume leaves nothing of what it held', async () => {
  await using world = await World.open();
  const volume = await volumeWithData(world);
  const before = blocksOf(world, volume);
  const backup = await world.backup(volume);
  await deleteVolume(world.control, CALLER, { id: volume, cascade: false, force: false });
  await world.control.tasks.idle();
  expect(world.backend.ids()).toEqual([]);
  const target = await world.volume({ sizeGib: 2 });
  for (const block of [0, 5, 6, 20000, 32767]) world.backend.write(target, block * BLOCK);
  await restoreBackup(world.control, CALLER, { id: backup, volumeId: target, name: null });
  expect(await volumeStatus(world, target)).toBe('restoring-backup');
  await world.control.tasks.idle();
  expect(blocksOf(world, target)).toEqual(before);
  const made = await createVolume(world.control, CALLER, {
    ...NEW_VOLUME,
    sizeGib: 3,
    source: { kind: 'backup', id: backup },
  });
  expect(made.row.status).toBe('creating');
  await world.control.tasks.idle();
  expect(await volumeStatus(world, made.row.id)).toBe('available');
  expect(blocksOf(world, made.row.id)).toEqual(before);
});

test('a volume is put back to a snapshot while a snapshot is kept for its backups', async () => {
  await using world = await World.open();
  const volume = await volumeWithData(world);
  const snapshot = await world.snapshot(volume);
  const before = blocksOf(world, volume);
  await world.backup(volume);
  world.backend.write(volume, 9 * BLOCK);
  await revertVolume(world.control, CALLER, { id: volume, snapshotId: snapshot });
  await world.control.tasks.idle();
  const next = await world.backup(volume, { isIncremental: true });
  expect(blocksOf(world, await restored(world, next))).toEqual(before);
});

describe('what is refused changes nothing', () => {
  test('of a volume in use without force, with clients, too small, or of another project', async () => {
    await using world = await World.open();
    const volume = await volumeWithData(world);
    const backup = await world.backup(volume);
    const { control } = world;
    const create = (wanted: object) => createBackup(control, CALLER, { ...NEW_BACKUP, volumeId: volume, ...wanted });
    const restore = (volumeId: string | null, caller: typeof CALLER | typeof OTHER = CALLER) =>
      restoreBackup(control, caller, { id: backup, volumeId, name: null });
    await attachVolume(control, CALLER, { id: volume, instanceId: null, hostName: 'h', device: '/dev/x', mode: null });
    await expect(create({})).rejects.toMatchObject({ code: 'wrong_state', message: expect.stringContaining('force') });
    await expect(restore(volume)).rejects.toMatchObject({ code: 'wrong_state' });
    const { row } = await create({ force: true });
    expect(await volumeStatus(world, volume)).toBe('backing-up');
    await control.tasks.idle();
    expect(await volumeStatus(world, volume)).toBe('in-use');
    expect(await statusOf(world, row.id)).toBe('available');
    const connected = await world.volume({ sizeGib: 1 });
    world.backend.connect(connected);
    await expect(restore(connected)).rejects.toMatchObject({ message: expect.stringContaining('connected') });
    await expect(restore(volume, OTHER)).rejects.toMatchObject({ code: 'not_found' });
    await expect(getBackup(control, OTHER, backup)).rejects.toMatchObject({ code: 'not_found' });
    const large = await world.volume({ sizeGib: 2 });
    const largeBackup = await world.backup(large);
    world.backend.disconnect(connected);
    await expect(
      restoreBackup(control, CALLER, { id: largeBackup, volumeId: connected, name: null }),
    ).rejects.toMatchObject({ message: expect.stringContaining('too small to restore backup of size 2') });
    expect(await statusOf(world, largeBackup)).toBe('available');
    await resetBackup(control, CALLER, { id: backup, status: 'error' });
    await expect(restore(null)).rejects.toMatchObject({ message: expect.stringContaining('current status is: error') });
    await expect(verifyBackup(control, CALLER, { id: backup, depth: 'full' })).rejects.toMatchObject({
      code: 'wrong_state',
    });
    await expect(exportRecord(control, CALLER, backup)).rejects.toMatchObject({ code: 'wrong_state' });
    expect((await allBackups(control.catalog.reader)).length).toBe(3);
  });

  test('more backups or gigabytes than the quota, each naming limit and use', async () => {
    await using world = await World.open({ quotaDefaults: { backups: 2, backup_gigabytes: 4 } });
    const small = await world.volume({ sizeGib: 1 });
    const large = await world.volume({ sizeGib: 4 });
    await world.backup(small);
    await expect(world.backup(large)).rejects.toMatchObject({
      code: 'over_quota',
      message: expect.stringContaining('Requested 4G, quota is 4G and 1G has been consumed.'),
    });
    expect(await volumeStatus(world, large)).toBe('available');
    const second = await world.backup(small);
    await expect(world.backup(small)).rejects.toMatchObject({
      code: 'over_quota',
      message: expect.stringContaining('Maximum number of backups allowed (2) exceeded'),
    });
    const use = await quotaUse(world.control, CALLER.projectId);
    expect(use.get('backups')).toEqual({ limit: 2, inUse: 2, reserved: 0 });
    expect(use.get('backup_gigabytes')).toEqual({ limit: 4, inUse: 2, reserved: 0 });
    await deleteBackup(world.control, CALLER, { id: second, force: false });
    await world.control.tasks.idle();
    await world.backup(small);
  });
});

test('the bucket alone brings the catalog back: by a record, or all by a rescan', async () => {
  await using world = await World.open();
  const volume = await volumeWithData(world);
  const first = await world.backup(volume, { name: 'one', metadata: new Map([['k', 'v']]) });
  const record = await exportRecord(world.control, CALLER, first);
  world.backend.write(volume, 8 * BLOCK);
  const second = await world.backup(volume, { isIncremental: true });
  const before = [await getBackup(world.control, CALLER, first), await getBackup(world.control, CALLER, second)];
  const data = blocksOf(world, volume);
  await expect(importRecord(world.control, CALLER, record)).rejects.toMatchObject({
    message: expect.stringContaining('already exists'),
  });
  await world.stop();
  rmSync(join(world.folder, 'catalog.db'));
  await world.start();
  expect(await allBackups(world.control.catalog.reader)).toEqual([]);
  const imported = await importRecord(world.control, CALLER, record);
  expect(await rescan(world.control)).toEqual({ imported: [second], known: 1, unreadable: [] });
  expect(await rescan(world.control)).toEqual({ imported: [], known: 2, unreadable: [] });
  expect(imported.metadata).toEqual(new Map([['k', 'v']]));
  for (const { row } of before) {
    const again = (await getBackup(world.control, CALLER, row.id)).row;
    const milliseconds = (time: number) => Math.floor(time / 1000);
    expect(again).toMatchObject({
      name: row.name,
      volume_id: row.volume_id,
      parent_id: row.parent_id,
      size_gib: row.size_gib,
      object_count: row.object_count,
      root: row.root,
      status: 'available',
    });
    expect(milliseconds(again.data_timestamp)).toBe(milliseconds(row.data_timestamp));
  }
  expect(blocksOf(world, await restored(world, second))).toEqual(data);
  for (const [url, why] of [
    ['!', "Can't parse"],
    [Buffer.from('{"backup":"../x"}').toString('base64'), "Can't parse"],
    [
      Buffer.from(JSON.stringify({ backup: volume, volume, repository: 'other' })).toString('base64'),
      'is of repository other',
    ],
  ] as const)
    await expect(importRecord(world.control, CALLER, { service: record.service, url })).rejects.toMatchObject({
      code: 'bad_request',
      message: expect.stringContaining(why),
    });
});

test('a damaged backup is found by verification, is not restored, and can still be deleted', async () => {
  await using world = await World.open();
  const volume = await volumeWithData(world);
  const backup = await world.backup(volume);
  await verifyBackup(world.control, CALLER, { id: backup, depth: 'full' });
  await world.control.tasks.idle();
  const report = async () => JSON.parse((await findBackup(world.control.catalog.reader, backup))?.verified ?? 'null');
  expect(await report()).toMatchObject({ depth: 'full', outcome: 'good', problems: [] });
  const pack = join(world.folder, 'backups', 'vol', volume, 'pack', backup, '00000000.pack');
  writeFileSync(pack, Buffer.alloc(1000, 1));
  await verifyBackup(world.control, CALLER, { id: backup, depth: 'manifest' });
  await world.control.tasks.idle();
  expect(await report()).toMatchObject({ depth: 'manifest', outcome: 'damaged' });
  const target = await restored(world, backup);
  expect(await volumeStatus(world, target)).toBe('error_restoring');
  expect((await findVolume(world.control.catalog.reader, target))?.failure).toContain('is damaged');
  expect(await statusOf(world, backup)).toBe('available');
  await deleteBackup(world.control, CALLER, { id: backup, force: false });
  await deleteVolume(world.control, CALLER, { id: target, cascade: false, force: false });
  await world.control.tasks.idle();
  expect(await statusOf(world, backup)).toBeUndefined();
  expect(readdirSync(join(world.folder, 'backups'))).toEqual(['.parts', 'format.json']);
});

test('a backup that fails says why, leaves the volume as it was and no snapshot behind', async () => {
  await using world = await World.open();
  const volume = await volumeWithData(world);
  writeFileSync(join(world.folder, 'backups'), 'in the way');
  const backup = await world.backup(volume);
  expect((await getBackup(world.control, CALLER, backup)).row).toMatchObject({
    status: 'error',
    failure: expect.stringContaining('The object store cannot be reached'),
  });
  expect(await volumeStatus(world, volume)).toBe('available');
  expect(world.backend.ids()).toEqual([volume]);
  rmSync(join(world.folder, 'backups'));
  await deleteBackup(world.control, CALLER, { id: backup, force: false });
  await world.control.tasks.idle();
  expect(await statusOf(world, backup)).toBeUndefined();
  const again = await world.backup(volume);
  expect(await statusOf(world, again)).toBe('available');
});
