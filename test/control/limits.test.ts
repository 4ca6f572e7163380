import { describe, expect, test } from 'vitest';
import type { MemoryBackend } from '../../src/backend/memory.ts';
import { Failure } from '../../src/base/errors.ts';
import { findVolume } from '../../src/catalog/volumes.ts';
import { complaintAbout, frontEndOf, limitsOf } from '../../src/control/limit-rules.ts';
import { qosOf } from '../../src/control/limits.ts';
import {
  associateQosSpec,
  createQosSpec,
  deleteQosKeys,
  deleteQosSpec,
  disassociateAll,
  disassociateQosSpec,
  updateQosSpec,
} from '../../src/control/qos-specs.ts';
import { createType } from '../../src/control/types.ts';
import { extendVolume } from '../../src/control/volumes.ts';
import { CALLER, World } from './world.ts';

const limits = (specs: Record<string, string>, sizeGib = 1) => limitsOf({ consumer: 'back-end', specs }, sizeGib);

describe('the limits of a volume', () => {
  test('are what the keys say, by kind and direction', () => {
    expect(limits({ total_iops_sec: '100', read_bytes_sec: '2000', write_iops_sec: '3' })).toEqual({
      totalIopsSec: 100,
      readBytesSec: 2000,
      writeIopsSec: 3,
    });
    expect(limits({ boats: '7' })).toBeNull();
    expect(limits({ total_iops_sec: '0' })).toBeNull();
    expect(limitsOf(null, 1)).toBeNull();
  });

  test('have bursts, which last a second when nothing is said', () => {
    expect(limits({ total_iops_sec: '100', total_iops_sec_max: '500' })).toEqual({
      totalIopsSec: 100,
      totalIopsSecMax: 500,
      totalIopsSecMaxLength: 1,
    });
    expect(limits({ write_bytes_sec: '1', write_bytes_sec_max: '9', write_bytes_sec_max_length: '60' })).toEqual({
      writeBytesSec: 1,
      writeBytesSecMax: 9,
      writeBytesSecMaxLength: 60,
    });
    expect(limits({ total_iops_sec: '100', total_iops_sec_max: '50' })).toEqual({ totalIopsSec: 50 });
    expect(limits({ total_iops_sec_max: '50' })).toBeNull();
  });

  test('grow with the size where they are per GiB, and the least of them applies', () => {
    const perGib = { total_iops_sec_per_gb: '10' };
    expect(limits(perGib, 7)).toEqual({ totalIopsSec: 70 });
    expect(limits({ ...perGib, total_iops_sec_per_gb_min: '200' }, 7)).toEqual({ totalIopsSec: 200 });
    expect(limits({ ...perGib, total_iops_sec_per_gb_min: '200' }, 30)).toEqual({ totalIopsSec: 300 });
    expect(limits({ ...perGib, total_iops_sec: '50' }, 7)).toEqual({ totalIopsSec: 50 });
    expect(limits({ ...perGib, total_iops_sec_max: '60' }, 7)).toEqual({ totalIopsSec: 60 });
    expect(limits({ ...perGib, total_iops_sec_max: '600' }, 7)).toEqual({ totalIopsSec: 70 });
    expect(limits({ read_bytes_sec_per_gb: '999999999999999' }, 65536)).toEqual({
      readBytesSec: 999_999_999_999_999,
    });
  });

  test('are the data plane’s for back-end and both, the host’s for front-end and both', () => {
    const specs = { total_iops_sec: '9', read_iops_sec_per_gb: '2', read_iops_sec_per_gb_min: '1', other: 'kept' };
    const told = { total_iops_sec: '9', read_iops_sec: '6', other: 'kept' };
    const enforced = { totalIopsSec: 9, readIopsSec: 6 };
    for (const [consumer, here, there] of [
      ['back-end', enforced, null],
      ['both', enforced, told],
      ['front-end', null, told],
    ] as const) {
      expect(limitsOf({ consumer, specs }, 3)).toEqual(here);
      expect(frontEndOf({ consumer, specs }, 3)).toEqual(there);
    }
  });

  test('are whole numbers; what is no limit of ours may be anything', () => {
    expect(complaintAbout('total_iops_sec', '100')).toBeNull();
    expect(complaintAbout('vendor:colour', 'red')).toBeNull();
    for (const value of ['-1', '1.5', 'many', '', '1e3', '1000000000000000'])
      expect(complaintAbout('read_bytes_sec_max', value)).toContain(`read_bytes_sec_max is '${value}'`);
  });
});

type Scene = { readonly typeId: string; readonly specId: string; readonly volume: string };

async function scene(world: World, specs: Record<string, string> = { total_iops_sec_per_gb: '10' }): Promise<Scene> {
  const { control } = world;
  const isPublic = true;
  const type = await createType(control, CALLER, { name: 'slow', description: null, isPublic, extraSpecs: {} });
  const { row } = await createQosSpec(control, CALLER, { name: 'slow', consumer: 'back-end', specs });
  await associateQosSpec(control, CALLER, { id: row.id, typeId: type.id });
  const volume = await world.volume({ type: 'slow', sizeGib: 2 });
  return { typeId: type.id, specId: row.id, volume };
}

describe('the backend is told', () => {
  test('before a new volume can be reached', async () => {
    let order: string[] = [];
    await using world = await World.open({
      aroundBackend: (backend) =>
        recording(backend, (call) => {
          order = [...order, call];
        }),
    });
    const { volume } = await scene(world);
    expect(world.backend.limitsOf(volume)).toEqual({ totalIopsSec: 20 });
    expect(order).toEqual(['setLimits', 'publish']);
  });

  test('at once when specs, keys and associations change, for all volumes of the type', async () => {
    await using world = await World.open();
    const { control, backend } = world;
    const { typeId, specId, volume } = await scene(world);
    const other = await world.volume({ type: 'slow', sizeGib: 3 });
    const untouched = await world.volume();
    const seen = async () => {
      await control.limits.idle();
      return [volume, other, untouched].map((id) => backend.limitsOf(id));
    };
    const update = (consumer: string | null, specs: Record<string, string>) =>
      updateQosSpec(control, CALLER, { id: specId, changes: { consumer, specs } });
    await update(null, { read_bytes_sec: '5' });
    expect(await seen()).toEqual([{ totalIopsSec: 20, readBytesSec: 5 }, { totalIopsSec: 30, readBytesSec: 5 }, null]);
    await deleteQosKeys(control, CALLER, { id: specId, keys: ['read_bytes_sec'] });
    expect(await seen()).toEqual([{ totalIopsSec: 20 }, { totalIopsSec: 30 }, null]);
    await update('front-end', {});
    expect(await seen()).toEqual([null, null, null]);
    await update('both', {});
    expect(await seen()).toEqual([{ totalIopsSec: 20 }, { totalIopsSec: 30 }, null]);
    await disassociateQosSpec(control, CALLER, { id: specId, typeId });
    expect(await seen()).toEqual([null, null, null]);
    await associateQosSpec(control, CALLER, { id: specId, typeId });
    expect(await seen()).toEqual([{ totalIopsSec: 20 }, { totalIopsSec: 30 }, null]);
    await disassociateAll(control, CALLER, specId);
    expect(await seen()).toEqual([null, null, null]);
    await associateQosSpec(control, CALLER, { id: specId, typeId });
    await expect(deleteQosSpec(control, CALLER, { id: specId, force: false })).rejects.toMatchObject({
      code: 'wrong_state',
    });
    expect(await seen()).toEqual([{ totalIopsSec: 20 }, { totalIopsSec: 30 }, null]);
    await deleteQosSpec(control, CALLER, { id: specId, force: true });
    expect(await seen()).toEqual([null, null, null]);
  });

  test('when a volume has grown', async () => {
    await using world = await World.open();
    const { volume } = await scene(world);
    await extendVolume(world.control, CALLER, { id: volume, sizeGib: 5, alsoInUse: false });
    await world.control.tasks.idle();
    await world.control.limits.idle();
    expect(world.backend.limitsOf(volume)).toEqual({ totalIopsSec: 50 });
  });

  test('again at every start, before anything is published', async () => {
    await using world = await World.open();
    const { volume } = await scene(world);
    await world.crash();
    expect(world.backend.limitsOf(volume)).toBeNull();
    let order: string[] = [];
    await world.start({
      aroundBackend: (backend) =>
        recording(backend, (call) => {
          order = [...order, call];
        }),
    });
    expect(world.backend.limitsOf(volume)).toEqual({ totalIopsSec: 20 });
    expect(order).toEqual(['setLimits', 'publish']);
  });

  test('until it listens: a failure is tried again and keeps nobody else waiting', async () => {
    let failures = 0;
    let broken: string | null = null;
    await using world = await World.open({
      aroundBackend: (backend) =>
        recording(backend, (call, id) => {
          if (call !== 'setLimits' || id !== broken || failures === 0) return;
          failures -= 1;
          throw new Failure('io_error', { reason: 'as the test wants' });
        }),
    });
    const { specId, volume } = await scene(world);
    const other = await world.volume({ type: 'slow', sizeGib: 3 });
    broken = volume;
    failures = 4;
    const changes = { consumer: null, specs: { total_iops_sec_per_gb: '7' } };
    await updateQosSpec(world.control, CALLER, { id: specId, changes });
    await world.control.limits.idle();
    expect([failures, world.backend.limitsOf(volume), world.backend.limitsOf(other)]).toEqual([
      0,
      { totalIopsSec: 14 },
      { totalIopsSec: 21 },
    ]);
    // One that works again is tried again the next time too.
    failures = 2;
    await updateQosSpec(world.control, CALLER, {
      id: specId,
      changes: { consumer: null, specs: { total_iops_sec_per_gb: '8' } },
    });
    await world.control.limits.idle();
    expect(world.backend.limitsOf(volume)).toEqual({ totalIopsSec: 16 });
  });

  test('nothing twice, and nothing about volumes without limits', async () => {
    let told = 0;
    await using world = await World.open({
      aroundBackend: (backend) =>
        recording(backend, (call) => {
          if (call === 'setLimits') told += 1;
        }),
    });
    await world.volume();
    expect(told).toBe(0);
    const { specId, volume } = await scene(world);
    const same = { consumer: 'back-end', specs: { other: 'key' } };
    await updateQosSpec(world.control, CALLER, { id: specId, changes: same });
    await world.control.limits.apply(volume);
    await world.control.limits.idle();
    expect(told).toBe(1);
  });
});

test('qosOf answers what a host is told and what is enforced here', async () => {
  await using world = await World.open();
  const { volume, specId } = await scene(world, { write_iops_sec: '8', note: 'kept' });
  await updateQosSpec(world.control, CALLER, { id: specId, changes: { consumer: 'both', specs: {} } });
  const row = await findVolume(world.control.catalog.reader, volume);
  if (row === undefined) throw new Error('no row');
  expect(await qosOf(world.control, row)).toEqual({
    frontEnd: { write_iops_sec: '8', note: 'kept' },
    limits: { writeIopsSec: 8 },
  });
});

/** The memory backend, with a word before each call that sets limits or publishes. */
function recording(backend: MemoryBackend, say: (call: 'setLimits' | 'publish', id: string) => void) {
  return Object.assign(Object.create(backend) as MemoryBackend, bound(backend), {
    setLimits: async (options: Parameters<MemoryBackend['setLimits']>[0]) => {
      say('setLimits', options.id);
      return backend.setLimits(options);
    },
    publish: async (options: Parameters<MemoryBackend['publish']>[0]) => {
      say('publish', options.targetId);
      return backend.publish(options);
    },
  });
}

/** Private fields want the real receiver. */
function bound(backend: MemoryBackend): Record<string, unknown> {
  const methods = Object.getOwnPropertyNames(Object.getPrototypeOf(backend)).filter((name) => name !== 'constructor');
  const from = backend as unknown as Record<string, (...args: unknown[]) => unknown>;
  return Object.fromEntries(methods.map((name) => [name, (...args: unknown[]) => from[name]?.call(backend, ...args)]));
}
