import { describe, expect, test } from 'vitest';
import type { VolumeRow } from '../../src/catalog/schema.ts';
import { statusOf } from '../../src/catalog/status.ts';
import { findVolume } from '../../src/catalog/volumes.ts';
import { createGroupSnapshot } from '../../src/control/group-snapshots.ts';
import { createGroupType } from '../../src/control/group-types.ts';
import { createGroup } from '../../src/control/groups.ts';
import {
  BACKUP,
  BACKUP_STATUSES,
  type BackupAction,
  begin,
  finish,
  GROUP,
  GROUP_SNAPSHOT,
  GROUP_STATUSES,
  type GroupAction,
  type GroupSnapshotAction,
  resetStatus,
  SNAPSHOT,
  SNAPSHOT_STATUSES,
  type SnapshotAction,
  type Transition,
  VOLUME,
  VOLUME_STATUSES,
  type VolumeAction,
} from '../../src/control/states.ts';
import { CALLER, World } from './world.ts';

type Tables = 'volumes' | 'snapshots' | 'groups' | 'group_snapshots' | 'backups';

async function made(world: World, table: Tables, volume: string): Promise<string> {
  if (table === 'volumes') return volume;
  if (table === 'snapshots') return world.snapshot(volume);
  if (table === 'backups') return world.backup(volume);
  const { control } = world;
  const unnamed = { name: null, description: null };
  const type = await createGroupType(control, CALLER, { ...unnamed, name: 't', isPublic: true, specs: {} });
  const wanted = { ...unnamed, groupType: type.id, volumeTypes: ['__DEFAULT__'], availabilityZone: null };
  const group = await createGroup(control, CALLER, wanted);
  if (table === 'groups') return group.id;
  const { id } = await createGroupSnapshot(control, CALLER, { ...unnamed, groupId: group.id });
  await control.tasks.idle();
  return id;
}

async function walk(table: Tables, actions: Readonly<Record<string, Transition<string>>>, statuses: readonly string[]) {
  await using world = await World.open();
  const volume = await world.volume();
  const { catalog } = world.control;
  const id = await made(world, table, volume);
  const find = () => statusOf(catalog.reader, table, id);
  for (const [name, { from, during, done, failed }] of Object.entries(actions)) {
    if (from.length === 0) continue;
    for (const status of statuses) {
      const step = {
        table,
        id,
        action: name as VolumeAction & SnapshotAction & GroupAction & GroupSnapshotAction & BackupAction,
        nowUs: world.control.nowUs(),
      };
      await catalog.write((writer) => resetStatus(writer, { table, id, status, nowUs: 1 }));
      const error = await catalog
        .write((writer) => begin(writer, step))
        .then(
          () => null,
          (reason: Error) => reason,
        );
      const isAllowed = from === 'any' || from.includes(status);
      expect(error === null, `${name} from ${status}`).toBe(isAllowed);
      if (!isAllowed) {
        expect(error?.message).toContain(`but current status is: ${status}`);
        expect((await find())?.status).toBe(status);
        continue;
      }
      // It has no attachment.
      const after = done === 'by-attachments' ? 'available' : done;
      expect((await find())?.status).toBe(during ?? after);
      if (during === null) continue;
      for (const outcome of ['done', 'failed'] as const) {
        const wanted = outcome === 'done' ? done : failed;
        if (wanted === null) continue;
        await catalog.write((writer) => resetStatus(writer, { table, id, status, nowUs: 1 }));
        await catalog.write((writer) => begin(writer, step));
        await catalog.write((writer) => finish(writer, { ...step, outcome }));
        const expected = wanted === 'previous' ? status : wanted;
        expect(await find(), `${name} ${outcome} from ${status}`).toMatchObject({
          status: expected,
          previous_status: null,
        });
      }
    }
  }
}

describe('every action in every status', () => {
  test('of a volume does what the table says', async () => {
    await walk('volumes', VOLUME, VOLUME_STATUSES);
  });
  test('of a snapshot does what the table says', async () => {
    await walk('snapshots', SNAPSHOT, SNAPSHOT_STATUSES);
  });
  test('of a group does what the table says', async () => {
    await walk('groups', GROUP, GROUP_STATUSES);
  });
  test('of a group snapshot does what the table says', async () => {
    await walk('group_snapshots', GROUP_SNAPSHOT, GROUP_STATUSES);
  });
  test('of a backup does what the table says', async () => {
    await walk('backups', BACKUP, BACKUP_STATUSES);
  });
});

test('a status that an administrator set while work went on stays', async () => {
  await using world = await World.open();
  const id = await world.volume();
  const { catalog } = world.control;
  const step = { table: 'volumes', id, action: 'extend', nowUs: 2 } as const;
  await catalog.write((writer) => begin(writer, step));
  await catalog.write((writer) => resetStatus(writer, { table: 'volumes', id, status: 'error', nowUs: 3 }));
  const row: VolumeRow | null = await catalog.write((writer) => finish(writer, { ...step, outcome: 'done' }));
  expect(row).toBeNull();
  expect((await findVolume(catalog.reader, id))?.status).toBe('error');
});

test('what was left in a passing status without a task is ended at the next start', async () => {
  await using world = await World.open();
  const ids = { creating: 'error', deleting: 'error_deleting', extending: 'error_extending', reverting: 'error' };
  const made: [string, string][] = [];
  for (const [status, wanted] of Object.entries(ids)) {
    const id = await world.volume();
    await world.control.catalog.write((writer) => resetStatus(writer, { table: 'volumes', id, status, nowUs: 1 }));
    made.push([id, wanted]);
  }
  await world.crash();
  await world.start();
  for (const [id, wanted] of made) expect((await findVolume(world.control.catalog.reader, id))?.status).toBe(wanted);
});
