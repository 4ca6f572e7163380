/**
 * Each kind of task is interrupted at each of its steps, and the daemon started again on the same catalog and backend:
 * everything ends in an end state, nothing is left over in the backend, and quotas are what the rows say.
 */

import { describe, expect, test } from 'vitest';
import { verifyBackup } from '../../src/backup/verify.ts';
import { allBackups } from '../../src/catalog/backups.ts';
import { groupSnapshotsInStatus, groupsInStatus } from '../../src/catalog/groups.ts';
import type { BackupRow, GroupRow, GroupSnapshotRow } from '../../src/catalog/schema.ts';
import { unfinishedTasks } from '../../src/catalog/tasks.ts';
import { listTypes } from '../../src/catalog/types.ts';
import { createBackup, deleteBackup, restoreBackup } from '../../src/control/backups.ts';
import { createGroupSnapshot, deleteGroupSnapshot } from '../../src/control/group-snapshots.ts';
import { createGroupFromSource } from '../../src/control/group-sources.ts';
import { createGroupType } from '../../src/control/group-types.ts';
import { createGroup, deleteGroup } from '../../src/control/groups.ts';
import { restoreInstantly } from '../../src/control/instant-restore.ts';
import { associateQosSpec, createQosSpec } from '../../src/control/qos-specs.ts';
import { quotaUse } from '../../src/control/quotas.ts';
import { retypeVolume } from '../../src/control/retype.ts';
import { createSnapshot, deleteSnapshot } from '../../src/control/snapshots.ts';
import { GROUP_STATUSES } from '../../src/control/states.ts';
import { defaultType } from '../../src/control/types.ts';
import { createVolume, deleteVolume, extendVolume, revertVolume } from '../../src/control/volumes.ts';
import { Interrupter } from './interrupt.ts';
import { allSnapshots, allVolumes } from './rows.ts';
import { addType } from './types.ts';
import { CALLER, NEW_BACKUP, NEW_SNAPSHOT, NEW_VOLUME, World } from './world.ts';

type Ids = {
  readonly volume: string;
  readonly snapshot: string;
  readonly group: string;
  readonly groupSnapshot: string;
  readonly backup: string;
};
type Outcome = {
  readonly volumes: Record<string, string>;
  readonly snapshots: Record<string, string>;
  /** And their snapshots. */
  readonly groups: Record<string, string>;
  readonly backups: Record<string, string>;
  readonly size: number;
  readonly typeName: string;
};

type Scenario = {
  /** What there is besides a volume with a snapshot. */
  readonly prepare?: (world: World, volume: string) => Promise<Partial<Ids>>;
  readonly act: (world: World, ids: Ids) => Promise<unknown>;
  /** True when the outcome is the one of the work done. */
  readonly isDone: (outcome: Outcome, ids: Ids) => boolean;
};

const SCENARIOS: Readonly<Record<string, Scenario>> = {
  'create-volume': {
    act: ({ control }) => createVolume(control, CALLER, { ...NEW_VOLUME, name: 'new' }),
    isDone: ({ volumes }) => Object.values(volumes).filter((status) => status === 'available').length === 2,
  },
  'create-volume as a copy': {
    act: ({ control }, ids) =>
      createVolume(control, CALLER, { ...NEW_VOLUME, sizeGib: 2, source: { kind: 'snapshot', id: ids.snapshot } }),
    isDone: ({ volumes }) => Object.values(volumes).filter((status) => status === 'available').length === 2,
  },
  'delete-volume with its snapshot': {
    act: ({ control }, ids) => deleteVolume(control, CALLER, { id: ids.volume, cascade: true, force: false }),
    isDone: ({ volumes, snapshots }) => Object.keys({ ...volumes, ...snapshots }).length === 0,
  },
  'extend-volume': {
    act: ({ control }, ids) => extendVolume(control, CALLER, { id: ids.volume, sizeGib: 5, alsoInUse: false }),
    isDone: ({ volumes, size }, ids) => volumes[ids.volume] === 'available' && size === 5,
  },
  'revert-volume': {
    act: ({ control }, ids) => revertVolume(control, CALLER, { id: ids.volume, snapshotId: ids.snapshot }),
    isDone: ({ volumes, snapshots }, ids) =>
      volumes[ids.volume] === 'available' && snapshots[ids.snapshot] === 'available',
  },
  'retype-volume': {
    act: ({ control }, ids) => retypeVolume(control, CALLER, { id: ids.volume, type: 'gold' }),
    isDone: ({ volumes, typeName }, ids) => volumes[ids.volume] === 'available' && typeName === 'gold',
  },
  'create-snapshot': {
    act: ({ control }, ids) => createSnapshot(control, CALLER, { ...NEW_SNAPSHOT, volumeId: ids.volume }),
    isDone: ({ snapshots }) => Object.values(snapshots).filter((status) => status === 'available').length === 2,
  },
  'delete-snapshot': {
    act: ({ control }, ids) => deleteSnapshot(control, CALLER, { id: ids.snapshot, force: false }),
    isDone: ({ snapshots }) => Object.keys(snapshots).length === 0,
  },
  'create-group from a group, at one instant': {
    prepare: (world) => groupOfTwo(world, { isConsistent: true }),
    act: ({ control }, ids) =>
      createGroupFromSource(control, CALLER, { ...UNNAMED, source: { kind: 'group', id: ids.group } }),
    isDone: ({ volumes, groups, snapshots }) =>
      available(volumes) === 5 && available(groups) === 2 && available(snapshots) === 1,
  },
  'create-group from a group snapshot': {
    prepare: (world) => groupWithSnapshot(world),
    act: ({ control }, ids) =>
      createGroupFromSource(control, CALLER, { ...UNNAMED, source: { kind: 'group-snapshot', id: ids.groupSnapshot } }),
    isDone: ({ volumes, groups }) => available(volumes) === 5 && available(groups) === 3,
  },
  'delete-group with its volumes': {
    prepare: (world) => groupOfTwo(world, { isConsistent: false }),
    act: ({ control }, ids) => deleteGroup(control, CALLER, { id: ids.group, withVolumes: true }),
    isDone: ({ volumes, groups }) => Object.keys(volumes).length === 1 && Object.keys(groups).length === 0,
  },
  'delete-group with a volume that has a backup': {
    prepare: async (world) => {
      const { group } = await groupOfTwo(world, { isConsistent: false });
      const one = (await allVolumes(world.control.catalog.reader)).find(({ name }) => name === 'one');
      await world.backup(one?.id ?? '');
      return { group };
    },
    act: ({ control }, ids) => deleteGroup(control, CALLER, { id: ids.group, withVolumes: true }),
    isDone: ({ volumes, groups, backups }) =>
      Object.keys(volumes).length === 1 && Object.keys(groups).length === 0 && available(backups) === 1,
  },
  'create-group-snapshot, one by one': {
    prepare: (world) => groupOfTwo(world, { isConsistent: false }),
    act: ({ control }, ids) => createGroupSnapshot(control, CALLER, { ...UNNAMED, groupId: ids.group }),
    isDone: ({ snapshots, groups }) => available(snapshots) === 3 && available(groups) === 2,
  },
  'create-group-snapshot, at one instant': {
    prepare: (world) => groupOfTwo(world, { isConsistent: true }),
    act: ({ control }, ids) => createGroupSnapshot(control, CALLER, { ...UNNAMED, groupId: ids.group }),
    isDone: ({ snapshots, groups }) => available(snapshots) === 3 && available(groups) === 2,
  },
  'delete-group-snapshot': {
    prepare: (world) => groupWithSnapshot(world),
    act: ({ control }, ids) => deleteGroupSnapshot(control, CALLER, ids.groupSnapshot),
    isDone: ({ snapshots, groups }) => Object.keys(snapshots).length === 1 && available(groups) === 1,
  },
  'create-backup': {
    prepare: backedUp,
    act: ({ control }, ids) => createBackup(control, CALLER, { ...NEW_BACKUP, volumeId: ids.volume }),
    isDone: ({ backups }) => available(backups) === 2,
  },
  'create-backup of what changed': {
    prepare: backedUp,
    act: ({ control }, ids) =>
      createBackup(control, CALLER, { ...NEW_BACKUP, volumeId: ids.volume, isIncremental: true }),
    isDone: ({ backups }) => available(backups) === 2,
  },
  'create-backup of a snapshot': {
    prepare: backedUp,
    act: ({ control }, ids) =>
      createBackup(control, CALLER, { ...NEW_BACKUP, volumeId: ids.volume, snapshotId: ids.snapshot }),
    isDone: ({ backups }) => available(backups) === 2,
  },
  'restore-backup': {
    prepare: backedUp,
    act: ({ control }, ids) => restoreBackup(control, CALLER, { id: ids.backup, volumeId: null, name: 'restored' }),
    isDone: ({ volumes }) => available(volumes) === 2,
  },
  'restore-backup into a volume': {
    prepare: backedUp,
    act: ({ control }, ids) => restoreBackup(control, CALLER, { id: ids.backup, volumeId: ids.volume, name: null }),
    isDone: ({ volumes, backups }, ids) => volumes[ids.volume] === 'available' && backups[ids.backup] === 'available',
  },
  'restore-instant': {
    prepare: backedUp,
    act: ({ control }, ids) => restoreInstantly(control, CALLER, { id: ids.backup, name: 'restored' }),
    isDone: ({ volumes }) => available(volumes) === 2,
  },
  'delete-backup': {
    prepare: backedUp,
    act: ({ control }, ids) => deleteBackup(control, CALLER, { id: ids.backup, force: false }),
    isDone: ({ backups }) => Object.keys(backups).length === 0,
  },
};

const UNNAMED = { name: null, description: null };

function available(statuses: Record<string, string>): number {
  return Object.values(statuses).filter((status) => status === 'available').length;
}

async function groupOfTwo(world: World, { isConsistent }: { isConsistent: boolean }): Promise<{ group: string }> {
  const { control } = world;
  const specs = { consistent_group_snapshot_enabled: isConsistent ? '<is> True' : '<is> False' };
  const type = await createGroupType(control, CALLER, { name: 't', description: null, isPublic: true, specs });
  const volumeTypes = ['__DEFAULT__'];
  const wanted = { ...UNNAMED, groupType: type.id, volumeTypes, availabilityZone: null };
  const { id } = await createGroup(control, CALLER, wanted);
  for (const name of ['one', 'two']) await world.volume({ name, type: '__DEFAULT__', groupId: id });
  return { group: id };
}

async function groupWithSnapshot(world: World): Promise<{ group: string; groupSnapshot: string }> {
  const { group } = await groupOfTwo(world, { isConsistent: false });
  const { id } = await createGroupSnapshot(world.control, CALLER, { ...UNNAMED, groupId: group });
  await world.control.tasks.idle();
  return { group, groupSnapshot: id };
}

/** What the volume holds has changed since. */
async function backedUp(world: World, volume: string): Promise<{ backup: string }> {
  const backup = await world.backup(volume);
  world.backend.write(volume, 65536);
  return { backup };
}

const STEPS_MAX = 60;

async function prepare(scenario: Scenario): Promise<{ world: World; ids: Ids }> {
  const world = await World.open();
  // Every volume has a limit that grows with its size.
  const { control } = world;
  const type = await defaultType(control.catalog.reader);
  const qos = { name: 'slow', consumer: 'both', specs: { total_iops_sec_per_gb: '100' } };
  const { row } = await createQosSpec(control, CALLER, qos);
  await associateQosSpec(control, CALLER, { id: row.id, typeId: type.id });
  await addType(control, 'gold');
  const volume = await world.volume({ name: 'first' });
  world.backend.write(volume, 0);
  const snapshot = await world.snapshot(volume);
  const more = await scenario.prepare?.(world, volume);
  await world.crash();
  return { world, ids: { volume, snapshot, group: '', groupSnapshot: '', backup: '', ...more } };
}

async function outcomeOf(world: World, ids: Ids): Promise<Outcome> {
  const { reader } = world.control.catalog;
  const volumes = await allVolumes(reader);
  const snapshots = await allSnapshots(reader);
  const types = await listTypes(reader);
  const backups = await allBackups(reader);
  return {
    backups: Object.fromEntries(backups.map((row) => [row.id, row.status])),
    volumes: Object.fromEntries(volumes.map((row) => [row.id, row.status])),
    snapshots: Object.fromEntries(snapshots.map((row) => [row.id, row.status])),
    groups: Object.fromEntries((await groupsAndSnapshots(world)).map((row) => [row.id, row.status])),
    size: volumes.find((row) => row.id === ids.volume)?.size_gib ?? 0,
    typeName: types.find((type) => type.id === volumes.find((row) => row.id === ids.volume)?.type_id)?.name ?? '',
  };
}

async function groupsAndSnapshots(world: World): Promise<(GroupRow | GroupSnapshotRow)[]> {
  const { reader } = world.control.catalog;
  const groups = await groupsInStatus(reader, GROUP_STATUSES);
  return [...groups, ...(await groupSnapshotsInStatus(reader, GROUP_STATUSES))];
}

async function expectConsistent(world: World, endStates: readonly string[]): Promise<void> {
  await world.control.limits.idle();
  const { control, backend } = world;
  const volumes = await allVolumes(control.catalog.reader);
  const snapshots = await allSnapshots(control.catalog.reader);
  const limited = await defaultType(control.catalog.reader);
  expect(await unfinishedTasks(control.catalog.reader, null)).toEqual([]);
  const rows = [...volumes, ...snapshots];
  for (const row of [...rows, ...(await groupsAndSnapshots(world))]) expect(endStates).toContain(row.status);
  const backups = await allBackups(control.catalog.reader);
  const bases = backups.flatMap((row) => row.base_id ?? []);
  for (const row of backups) expect(endStates).toContain(row.status);
  if (backups.length > 0) await expectWhole(world, backups);
  const known = new Set([...rows.map((row) => row.id), ...bases]);
  expect(backend.ids().filter((id) => !known.has(id))).toEqual([]);
  const healthy = rows.filter((row) => row.status === 'available');
  for (const { id } of healthy) {
    expect(backend.ids()).toContain(id);
    expect(backend.published().get(id)?.targetId).toBe(id);
  }
  for (const row of volumes.filter(({ status }) => status === 'available')) {
    expect((await backend.usage([row.id]))[0]?.sizeBytes).toBe(row.size_gib * 2 ** 30);
    // The other type has none; what a volume without limits was never told is no limit either.
    const isLimited = row.type_id === limited.id;
    expect(backend.limitsOf(row.id)).toEqual(isLimited ? { totalIopsSec: 100 * row.size_gib } : null);
    if (row.name !== null) expect(backend.published().get(row.name)?.targetId).toBe(row.id);
  }
  const use = await quotaUse(control, CALLER.projectId);
  const sizes = rows.reduce((sum, row) => sum + row.size_gib, 0);
  expect(use.get('volumes')).toEqual({ limit: -1, inUse: volumes.length, reserved: 0 });
  expect(use.get('snapshots')).toEqual({ limit: -1, inUse: snapshots.length, reserved: 0 });
  expect(use.get('gigabytes')).toEqual({ limit: -1, inUse: sizes, reserved: 0 });
}

describe.each(Object.entries(SCENARIOS))('%s', (_name, scenario) => {
  test('ends well after a crash at any step', async () => {
    const places: string[] = [];
    for (let at = 1; at < STEPS_MAX; at += 1) {
      const { world, ids } = await prepare(scenario);
      const interrupter = new Interrupter({ at, mode: 'crash' });
      await using _ = world;
      await world.start();
      const before = await outcomeOf(world, ids);
      await world.crash();
      await world.start({ ...interrupter, isStarted: false });
      // The start itself is interrupted too.
      const work = (async () => {
        await world.control.start();
        await scenario.act(world, ids);
        await world.control.tasks.idle();
        await world.control.limits.idle();
      })();
      await Promise.race([interrupter.reached, work]);
      if (!interrupter.isReached) {
        await work;
        expect(scenario.isDone(await outcomeOf(world, ids), ids)).toBe(true);
        await expectConsistent(world, ['available']);
        expect(places.length).toBeGreaterThan(5);
        return;
      }
      places.push(interrupter.where);
      await world.crash();
      await world.start();
      await world.control.tasks.idle();
      await expectConsistent(world, ['available']);
      const outcome = await outcomeOf(world, ids);
      const isUntouched = JSON.stringify(outcome) === JSON.stringify(before);
      expect(
        isUntouched || scenario.isDone(outcome, ids),
        `crash ${interrupter.where}: ${JSON.stringify(outcome)}`,
      ).toBe(true);
    }
    throw new Error(`more than ${STEPS_MAX} steps: ${places.join(', ')}`);
  });

  test('ends in an error that can be deleted after a failure of any call', async () => {
    for (let at = 1; at < STEPS_MAX; at += 1) {
      const { world, ids } = await prepare(scenario);
      await using _ = world;
      await world.start();
      await world.control.tasks.idle();
      await world.stop();
      const interrupter = new Interrupter({ at, mode: 'fail' });
      await world.start({ ...interrupter });
      if (interrupter.isReached) continue;
      await scenario.act(world, ids);
      await world.control.tasks.idle();
      if (!interrupter.isReached) return;
      await expectEndable(world);
    }
    throw new Error(`more than ${STEPS_MAX} steps`);
  });
});

/** Every backup that is available can be restored, and the newest one of each volume alone keeps a snapshot. */
async function expectWhole(world: World, backups: readonly BackupRow[]): Promise<void> {
  const repository = await world.control.backups.repository();
  const listed: string[] = [];
  for (const row of backups) {
    const order = { volume: row.volume_id, backup: row.id, depth: 'full' as const };
    const signal = new AbortController().signal;
    const report = await verifyBackup(repository, { ...order, signal, onProgress: () => {} });
    expect(report).toMatchObject({ outcome: 'good', problems: [] });
    listed.push(row.id);
  }
  for (const volume of new Set(backups.map((row) => row.volume_id)))
    expect(backups.filter((row) => row.volume_id === volume && row.base_id !== null).length).toBeLessThanOrEqual(1);
  for (const volume of await repository.objects.folders('vol/'))
    for await (const { key } of repository.objects.list(`vol/${volume}/`))
      expect(
        listed.some((id) => key.includes(id)),
        `${key} is nobody's`,
      ).toBe(true);
}

async function expectEndable(world: World): Promise<void> {
  const { control } = world;
  expect(await unfinishedTasks(control.catalog.reader, null)).toEqual([]);
  const { reader } = control.catalog;
  for (const row of await groupSnapshotsInStatus(reader, GROUP_STATUSES))
    await deleteGroupSnapshot(control, CALLER, row.id);
  await control.tasks.idle();
  for (const row of await groupsInStatus(reader, GROUP_STATUSES))
    await deleteGroup(control, CALLER, { id: row.id, withVolumes: true });
  await control.tasks.idle();
  expect(await groupsAndSnapshots(world)).toEqual([]);
  for (const row of await allVolumes(control.catalog.reader))
    await deleteVolume(control, CALLER, { id: row.id, cascade: true, force: true });
  for (const row of await allBackups(control.catalog.reader))
    await deleteBackup(control, CALLER, { id: row.id, force: true });
  await control.tasks.idle();
  expect(await allBackups(control.catalog.reader)).toEqual([]);
  expect(await allVolumes(control.catalog.reader)).toEqual([]);
  expect(world.backend.ids()).toEqual([]);
  expect(world.backend.published().size).toBe(0);
}
