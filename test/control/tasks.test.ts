import { describe, expect, test } from 'vitest';
import type { VolumeBackend } from '../../src/backend/backend.ts';
import type { MemoryBackend } from '../../src/backend/memory.ts';
import { unfinishedTasks, updateTask } from '../../src/catalog/tasks.ts';
import { findVolume } from '../../src/catalog/volumes.ts';
import { createSnapshot } from '../../src/control/snapshots.ts';
import { createVolume, deleteVolume } from '../../src/control/volumes.ts';
import { CALLER, NEW_SNAPSHOT, NEW_VOLUME, World } from './world.ts';

/** Holds calls back until they are let go, and keeps the order in which they began. */
class Gate {
  readonly began: string[] = [];
  #waiting: (() => void)[] = [];
  #arrivals: (() => void)[] = [];
  isOpen = false;

  readonly around = (backend: MemoryBackend): VolumeBackend & { nbdAddresses: readonly string[] } =>
    new Proxy(backend, {
      get: (target, key) => {
        const value: unknown = Reflect.get(target, key, target);
        if (typeof value !== 'function') return value;
        const method = value.bind(target) as (argument: unknown) => Promise<unknown>;
        if (!['createVolume', 'createSnapshot', 'delete'].includes(String(key))) return method;
        return async (argument: unknown) => {
          this.began.push(
            `${String(key)} ${typeof argument === 'string' ? argument : (argument as { id: string }).id}`,
          );
          for (const arrived of this.#arrivals.splice(0)) arrived();
          if (!this.isOpen) await new Promise<void>((resolve) => this.#waiting.push(resolve));
          return method(argument);
        };
      },
    });

  async waitFor(count: number): Promise<void> {
    while (this.began.length < count) await new Promise<void>((resolve) => this.#arrivals.push(resolve));
  }

  open(): void {
    this.isOpen = true;
    for (const go of this.#waiting.splice(0)) go();
  }
}

describe('tasks', () => {
  test('on one object go in the order of their acceptance, on different ones side by side', async () => {
    const gate = new Gate();
    await using world = await World.open({ aroundBackend: gate.around });
    gate.isOpen = true;
    const source = await world.volume();
    gate.isOpen = false;
    gate.began.length = 0;
    const { control } = world;
    const copy = { ...NEW_VOLUME, sizeGib: null, source: { kind: 'volume', id: source } } as const;
    const [one, two] = [await createVolume(control, CALLER, copy), await createVolume(control, CALLER, copy)];
    await gate.waitFor(2);
    // Asked for while two copies read the volume: it waits for them.
    await deleteVolume(control, CALLER, { id: source, cascade: false, force: false });
    const other = await createVolume(control, CALLER, NEW_VOLUME);
    await gate.waitFor(3);
    expect(gate.began).toEqual([one, two, other].map(({ row }) => `createVolume ${row.id}`));
    gate.open();
    await control.tasks.idle();
    expect(gate.began.at(-1)).toBe(`delete ${source}`);
    for (const { row } of [one, two, other])
      expect((await findVolume(control.catalog.reader, row.id))?.status).toBe('available');
  });

  test('are 32 at the same time and not more', async () => {
    const gate = new Gate();
    await using world = await World.open({ aroundBackend: gate.around });
    const { control } = world;
    await Promise.all(Array.from({ length: 40 }, () => createVolume(control, CALLER, NEW_VOLUME)));
    await gate.waitFor(32);
    await new Promise((resolve) => setImmediate(resolve));
    expect(gate.began).toHaveLength(32);
    gate.open();
    await control.tasks.idle();
    expect(gate.began).toHaveLength(40);
  });

  test('that were interrupted too often are given up, and their object ends in an error', async () => {
    const gate = new Gate();
    await using world = await World.open({ aroundBackend: gate.around });
    const { row } = await createVolume(world.control, CALLER, NEW_VOLUME);
    const [task] = await unfinishedTasks(world.control.catalog.reader, null);
    await world.control.catalog.write((writer) => updateTask(writer, task?.id ?? '', { attempts: 9 }));
    await world.crash();
    await world.start();
    await world.control.tasks.idle();
    const found = await findVolume(world.control.catalog.reader, row.id);
    expect(found).toMatchObject({ status: 'error', failure: expect.stringContaining('interrupted') });
  });

  test('end also when the catalog refuses their end for a while', async () => {
    let refusals = 0;
    await using world = await World.open({
      aroundCatalog: (catalog) => ({
        reader: catalog.reader,
        write: (change) => {
          if (refusals === 0) return catalog.write(change);
          refusals -= 1;
          return Promise.reject(new Error('database or disk is full'));
        },
        close: () => catalog.close(),
      }),
    });
    const { row } = await createVolume(world.control, CALLER, NEW_VOLUME);
    refusals = 7;
    await world.control.tasks.idle();
    expect(refusals).toBe(0);
    expect((await findVolume(world.control.catalog.reader, row.id))?.status).toBe('available');
  });

  test('under way when the daemon stops go on at the next start', async () => {
    const gate = new Gate();
    await using world = await World.open({ aroundBackend: gate.around });
    const volume = await createVolume(world.control, CALLER, NEW_VOLUME);
    await gate.waitFor(1);
    await world.crash();
    await world.start();
    await world.control.tasks.idle();
    const found = await findVolume(world.control.catalog.reader, volume.row.id);
    expect(found?.status).toBe('available');
  });

  test('a snapshot asked for while its volume is made is refused, and nothing is begun', async () => {
    const gate = new Gate();
    await using world = await World.open({ aroundBackend: gate.around });
    const { row } = await createVolume(world.control, CALLER, NEW_VOLUME);
    const wanted = { ...NEW_SNAPSHOT, volumeId: row.id };
    await expect(createSnapshot(world.control, CALLER, wanted)).rejects.toMatchObject({ code: 'wrong_state' });
    expect(await unfinishedTasks(world.control.catalog.reader, null)).toHaveLength(1);
    gate.open();
  });
});
