import { describe, expect, test } from 'vitest';
import { Failure } from '../../src/base/errors.ts';
import { nbdUri } from '../../src/control/exports.ts';
import { deleteVolume, updateVolume } from '../../src/control/volumes.ts';
import { CALLER, World } from './world.ts';

function targets(world: World): Record<string, string> {
  return Object.fromEntries([...world.backend.published()].map(([name, { targetId }]) => [name, targetId]));
}

async function rename(world: World, id: string, name: string | null): Promise<void> {
  await updateVolume(world.control, CALLER, { id, update: { name } });
}

async function remove(world: World, id: string): Promise<void> {
  await deleteVolume(world.control, CALLER, { id, cascade: true, force: false });
  await world.control.tasks.idle();
}

describe('names of exports', () => {
  test('are the id and, while no other volume bears it, the name', async () => {
    await using world = await World.open();
    const one = await world.volume({ name: 'data' });
    expect(targets(world)).toEqual({ [one]: one, data: one });
    const two = await world.volume({ name: 'data' });
    expect(targets(world)).toEqual({ [one]: one, [two]: two });
    await remove(world, one);
    expect(targets(world)).toEqual({ [two]: two, data: two });
    await remove(world, two);
    expect(targets(world)).toEqual({});
  });

  test('follow a rename, also into and out of a shared name', async () => {
    await using world = await World.open();
    const one = await world.volume({ name: 'a' });
    const two = await world.volume({ name: 'b' });
    await rename(world, one, 'b');
    expect(targets(world)).toEqual({ [one]: one, [two]: two });
    await rename(world, two, 'a');
    expect(targets(world)).toEqual({ [one]: one, [two]: two, a: two, b: one });
    await rename(world, one, null);
    expect(targets(world)).toEqual({ [one]: one, [two]: two, a: two });
  });

  test('never shadow an id', async () => {
    await using world = await World.open();
    const one = await world.volume();
    const two = await world.volume({ name: one });
    await world.volume({ name: two.toUpperCase() });
    await world.volume({ name: two.replaceAll('-', '') });
    await world.volume({ name: '' });
    const published = targets(world);
    expect(Object.keys(published)).toHaveLength(5);
    for (const [name, target] of Object.entries(published)) expect(name).toBe(target);
  });

  test('of snapshots are their ids, read-only', async () => {
    await using world = await World.open();
    const volume = await world.volume();
    const snapshot = await world.snapshot(volume, { name: 'before' });
    expect(world.backend.published().get(snapshot)).toEqual({ targetId: snapshot, readOnly: true, isListed: true });
    expect(world.backend.published().has('before')).toBe(false);
  });

  test('are all there again after a restart', async () => {
    await using world = await World.open();
    const one = await world.volume({ name: 'a' });
    await world.volume({ name: 'twice' });
    await world.volume({ name: 'twice' });
    await world.snapshot(one);
    const before = targets(world);
    await world.crash();
    expect(targets(world)).toEqual({});
    await world.start();
    expect(targets(world)).toEqual(before);
  });

  test('of volumes whose disk failed are not published at a start', async () => {
    await using world = await World.open();
    const id = await world.volume({ name: 'bad' });
    world.backend.fail(id, 'errno 5');
    await world.crash();
    await world.start();
    expect(targets(world)).toEqual({});
  });

  test('that cannot be published make the creation fail, and leave nothing in the backend', async () => {
    await using world = await World.open({
      aroundBackend: (backend) =>
        new Proxy(backend, {
          get: (target, key) => {
            if (key === 'publish') return () => Promise.reject(new Failure('io_error', { reason: 'no' }));
            const value: unknown = Reflect.get(target, key, target);
            return typeof value === 'function' ? value.bind(target) : value;
          },
        }),
    });
    await world.volume({ name: 'a' });
    expect(world.backend.ids()).toEqual([]);
  });
});

test('URIs escape what has a meaning in them', () => {
  expect(nbdUri('unix:/run/my pool/nbd.sock', 'a/b?c')).toBe('nbd+unix:///a%2Fb%3Fc?socket=/run/my%20pool/nbd.sock');
  expect(nbdUri('127.0.0.1:10809', 'é')).toBe('nbd://127.0.0.1:10809/%C3%A9');
  expect(nbdUri('unix:/run/nbd.sock', 'a', 'nbds')).toBe('nbds+unix:///a?socket=/run/nbd.sock');
  expect(nbdUri('host:1', 'a', 'nbds')).toBe('nbds://host:1/a');
});
