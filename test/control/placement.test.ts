import { describe, expect, test } from 'vitest';
import { findVolume } from '../../src/catalog/volumes.ts';
import { matches } from '../../src/control/placement.ts';
import { disableService, enableService, freezeHost, thawHost } from '../../src/control/services.ts';
import { createEncryption } from '../../src/control/type-details.ts';
import { createType } from '../../src/control/types.ts';
import { deleteVolume, extendVolume } from '../../src/control/volumes.ts';
import { CALLER, World } from './world.ts';

const VOLUMES = { binary: 'cinder-volume', host: 'here@pool' };

async function type(world: World, name: string, extraSpecs: Record<string, string>): Promise<string> {
  return (await createType(world.control, CALLER, { name, description: null, isPublic: true, extraSpecs })).id;
}

async function end(world: World, id: string): Promise<{ status: string | undefined; failure: string | null }> {
  const row = await findVolume(world.control.catalog.reader, id);
  return { status: row?.status, failure: row?.failure ?? null };
}

describe('an extra spec', () => {
  test.each([
    ['Quarry', 'Quarry', true],
    ['Quarry', 'quarry', false],
    ['nbd', '<or> iscsi <or> nbd', true],
    ['nbd', '<or> iscsi <or> ceph', false],
    [true, '<is> True', true],
    [true, '<is> False', false],
    [false, '<is> False', true],
    [null, '<is> False', false],
    [7, '= 5', true],
    [7, '= 8', false],
    [7, '== 7', true],
    [7, '!= 7', false],
    ['20.0', '>= 20', true],
    [7, '<= 6.5', false],
    ['many', '>= 5', false],
    ['nbd', '>= 5', false],
    ['abc', 's== abc', true],
    ['abc', 's!= abc', false],
    ['abc', 's< abd', true],
    ['abc', 's>= abd', false],
    ['abc', '<in> b', true],
    ['abc', '<in>', false],
    ['>', '>', true],
    ['', '', true],
    ['x', 'constructor y', false],
  ])('of %j is met by %j: %j', (value, wanted, isMet) => {
    expect(matches(value, wanted)).toBe(isMet);
  });
});

describe('a volume', () => {
  test('is made when the pool has what its type asks for; what is scoped is not asked of the pool', async () => {
    await using world = await World.open();
    await type(world, 'fits', {
      vendor_name: 'Quarry',
      storage_protocol: 'nbd',
      multiattach: '<is> True',
      'capabilities:thin_provisioning_support': '<is> True',
      free_capacity_gb: '>= 1',
      'vendor:colour': 'red',
    });
    expect(await end(world, await world.volume({ type: 'fits' }))).toEqual({ status: 'available', failure: null });
  });

  test.each([
    ['vendor_name', 'Other'],
    ['capabilities:thick_provisioning_support', '<is> True'],
    ['no_such_thing', 'x'],
    ['constructor', 'x'],
  ])('ends in error where the pool does not offer %s %s, and says so', async (key, wanted) => {
    await using world = await World.open();
    await type(world, 'misfit', { [key]: wanted });
    const id = await world.volume({ type: 'misfit' });
    expect(await end(world, id)).toEqual({
      status: 'error',
      failure: `No valid backend was found: volume type misfit wants ${key} '${wanted}', which no backend offers.`,
    });
    expect(world.backend.ids()).toEqual([]);
    await deleteVolume(world.control, CALLER, { id, cascade: false, force: false });
    await world.control.tasks.idle();
    expect((await end(world, id)).status).toBeUndefined();
  });

  test('is not made unencrypted when its type asks for encryption', async () => {
    await using world = await World.open();
    const id = await type(world, 'secret', {});
    const encryption = { provider: 'luks', control_location: 'front-end', cipher: null, key_size: null };
    await createEncryption(world.control, CALLER, { id, encryption });
    const { status, failure } = await end(world, await world.volume({ type: 'secret' }));
    expect([status, failure]).toEqual(['error', expect.stringContaining('asks for encryption')]);
  });

  test('is refused outside the sizes and zones of its type, also when it grows', async () => {
    await using world = await World.open();
    await type(world, 'sized', { 'provisioning:min_vol_size': '2', 'provisioning:max_vol_size': '4' });
    await type(world, 'elsewhere', { 'RESKEY:availability_zones': 'north, south' });
    await type(world, 'here', { 'RESKEY:availability_zones': 'north, nova' });
    const refusal = { code: 'bad_request' };
    await expect(world.volume({ type: 'sized', sizeGib: 1 })).rejects.toMatchObject(refusal);
    await expect(world.volume({ type: 'sized', sizeGib: 5 })).rejects.toMatchObject(refusal);
    await expect(world.volume({ type: 'elsewhere' })).rejects.toMatchObject(refusal);
    await world.volume({ type: 'here' });
    const id = await world.volume({ type: 'sized', sizeGib: 2 });
    const grow = (sizeGib: number) => extendVolume(world.control, CALLER, { id, sizeGib, alsoInUse: false });
    await expect(grow(5)).rejects.toMatchObject(refusal);
    await grow(4);
    await world.control.tasks.idle();
    expect((await end(world, id)).status).toBe('available');
  });
});

describe('a volume service', () => {
  test('that is disabled takes no new volumes, across restarts, until it is enabled', async () => {
    await using world = await World.open();
    const existing = await world.volume({ sizeGib: 1 });
    await disableService(world.control, CALLER, { name: VOLUMES, reason: 'full' });
    await world.stop();
    await world.start();
    const refused = await world.volume();
    expect(await end(world, refused)).toEqual({
      status: 'error',
      failure: 'No valid backend was found: cinder-volume on here@pool is disabled (full).',
    });
    await extendVolume(world.control, CALLER, { id: existing, sizeGib: 2, alsoInUse: false });
    await world.control.tasks.idle();
    expect((await end(world, existing)).status).toBe('available');
    await enableService(world.control, CALLER, VOLUMES);
    expect((await end(world, await world.volume())).status).toBe('available');
  });

  test('that is frozen is disabled too, until it thaws', async () => {
    await using world = await World.open();
    await freezeHost(world.control, CALLER, VOLUMES.host);
    expect((await end(world, await world.volume())).status).toBe('error');
    await expect(freezeHost(world.control, CALLER, VOLUMES.host)).rejects.toMatchObject({ code: 'bad_request' });
    await thawHost(world.control, CALLER, VOLUMES.host);
    expect((await end(world, await world.volume())).status).toBe('available');
    await expect(thawHost(world.control, CALLER, VOLUMES.host)).rejects.toMatchObject({ code: 'bad_request' });
  });
});
