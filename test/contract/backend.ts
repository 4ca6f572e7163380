/**
 * What every backend must do, whoever implements it. Only `write` is not part of the interface: how a client's write of
 * one 64 KiB block reaches the volume is the implementation's own way.
 */
import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { ByteRange, VolumeBackend } from '../../src/backend/backend.ts';
import { Failure } from '../../src/base/errors.ts';

export type BackendUnderTest = {
  readonly backend: VolumeBackend;
  /** Writes the 64 KiB at this offset, so that they are mapped. */
  write(id: string, offset: number): Promise<void>;
  /** A client connects through an export; the returned function ends the connection. */
  connect(name: string): Promise<() => Promise<void>>;
  close(): Promise<void>;
};

const MIB = 2 ** 20;
const BLOCK = 65536;

export function backendContract(name: string, open: () => Promise<BackendUnderTest>): void {
  describe(`backend ${name}`, () => {
    let under: BackendUnderTest;
    let backend: VolumeBackend;

    beforeEach(async () => {
      under = await open();
      backend = under.backend;
    });
    afterEach(async () => {
      await under.close();
    });

    const create = async (sizeBytes = 64 * MIB, sourceId: string | null = null): Promise<string> => {
      const id = randomUUID();
      await backend.createVolume({ id, sizeBytes, sourceId });
      return id;
    };
    const snapshot = async (volumeId: string): Promise<string> => {
      const id = randomUUID();
      await backend.createSnapshot({ id, volumeId });
      return id;
    };
    const usage = async (id: string) => (await backend.usage([id]))[0];
    const code = async (work: Promise<unknown>): Promise<string> => {
      const error = await work.then(
        () => null,
        (reason: unknown) => reason,
      );
      return error instanceof Failure ? error.code : String(error);
    };
    const data = (ranges: readonly ByteRange[]) => ranges.filter(({ kind }) => kind === 'data');

    test('a new volume is empty and has its size', async () => {
      const id = await create(64 * MIB);
      expect(await usage(id)).toEqual({
        id,
        kind: 'volume',
        sizeBytes: 64 * MIB,
        mappedBytes: 0,
        connections: 0,
        throttledSeconds: 0,
        failed: null,
      });
      expect(await backend.map(id)).toEqual([{ offset: 0, length: 64 * MIB, kind: 'hole' }]);
    });

    test('creating the same volume or snapshot again changes nothing', async () => {
      const id = await create();
      await under.write(id, 0);
      await backend.createVolume({ id, sizeBytes: 64 * MIB, sourceId: null });
      const snapshotId = await snapshot(id);
      await under.write(id, BLOCK);
      await backend.createSnapshot({ id: snapshotId, volumeId: id });
      expect(data(await backend.map(id))).toEqual([{ offset: 0, length: 2 * BLOCK, kind: 'data' }]);
      expect(data(await backend.map(snapshotId))).toEqual([{ offset: 0, length: BLOCK, kind: 'data' }]);
    });

    test('what was written is mapped, between holes', async () => {
      const id = await create(64 * MIB);
      await under.write(id, 2 * BLOCK);
      expect(await backend.map(id)).toEqual([
        { offset: 0, length: 2 * BLOCK, kind: 'hole' },
        { offset: 2 * BLOCK, length: BLOCK, kind: 'data' },
        { offset: 3 * BLOCK, length: 64 * MIB - 3 * BLOCK, kind: 'hole' },
      ]);
      expect((await usage(id))?.mappedBytes).toBe(BLOCK);
    });

    test('what only one has is told from what several share, and is what its deletion frees', async () => {
      const id = await create();
      await under.write(id, 0);
      const snapshotId = await snapshot(id);
      await under.write(id, BLOCK);
      // What was written is in the map from here on.
      await backend.map(id);
      const space = async (...ids: string[]) => new Map((await backend.space(ids)).map((one) => [one.id, one]));
      const found = await space(id, snapshotId, randomUUID());
      expect([...found.values()]).toEqual([
        { id, kind: 'volume', mappedBytes: 2 * BLOCK, sharedBytes: BLOCK, exclusiveBytes: BLOCK },
        { id: snapshotId, kind: 'snapshot', mappedBytes: BLOCK, sharedBytes: BLOCK, exclusiveBytes: 0 },
      ]);
      expect([...(await backend.space(null))].sort((a, b) => b.mappedBytes - a.mappedBytes)).toEqual([
        ...found.values(),
      ]);
      await backend.delete(snapshotId);
      await vi.waitFor(async () => expect((await space(id)).get(id)?.exclusiveBytes).toBe(2 * BLOCK));
    });

    test('a copy of a volume or snapshot may be larger, and not smaller', async () => {
      const id = await create(64 * MIB);
      await under.write(id, 0);
      const snapshotId = await snapshot(id);
      for (const sourceId of [id, snapshotId]) {
        const copy = await create(128 * MIB, sourceId);
        expect((await usage(copy))?.sizeBytes).toBe(128 * MIB);
        expect(data(await backend.map(copy))).toEqual([{ offset: 0, length: BLOCK, kind: 'data' }]);
        const tooSmall = { id: randomUUID(), sizeBytes: 32 * MIB, sourceId };
        expect(await code(backend.createVolume(tooSmall))).toBe('bad_request');
      }
    });

    test('copies and sources do not see each other’s later writes, and shared extents count once', async () => {
      const id = await create();
      await under.write(id, 0);
      const copy = await create(64 * MIB, id);
      expect((await backend.stats()).mappedBytes).toBe(BLOCK);
      await under.write(copy, BLOCK);
      await under.write(id, 2 * BLOCK);
      expect(data(await backend.map(id)).map(({ offset }) => offset)).toEqual([0, 2 * BLOCK]);
      expect(data(await backend.map(copy))).toEqual([{ offset: 0, length: 2 * BLOCK, kind: 'data' }]);
    });

    test('a snapshot outlives nothing it should not: sources can be deleted in any order', async () => {
      const id = await create();
      await under.write(id, 0);
      const snapshotId = await snapshot(id);
      const copy = await create(64 * MIB, snapshotId);
      await backend.delete(snapshotId);
      await backend.delete(id);
      expect(data(await backend.map(copy))).toEqual([{ offset: 0, length: BLOCK, kind: 'data' }]);
      await backend.delete(copy);
      const stats = await backend.stats();
      expect([stats.volumes, stats.snapshots]).toEqual([0, 0]);
    });

    test('deleting twice, or what never was, is no error', async () => {
      const id = await create();
      await backend.delete(id);
      await backend.delete(id);
      await backend.delete(randomUUID());
      expect(await backend.usage([id])).toEqual([]);
    });

    test('volumes grow, and do not shrink; the same size again is fine', async () => {
      const id = await create(64 * MIB);
      await backend.resizeVolume({ id, sizeBytes: 128 * MIB });
      await backend.resizeVolume({ id, sizeBytes: 128 * MIB });
      expect((await usage(id))?.sizeBytes).toBe(128 * MIB);
      expect(await code(backend.resizeVolume({ id, sizeBytes: 64 * MIB }))).toBe('bad_request');
      const [last] = (await backend.map(id)).slice(-1);
      expect(last && last.offset + last.length).toBe(128 * MIB);
    });

    test('a revert brings back what the snapshot holds, and twice is as once', async () => {
      const id = await create();
      await under.write(id, 0);
      const snapshotId = await snapshot(id);
      await under.write(id, 4 * BLOCK);
      await backend.revertVolume({ id, snapshotId });
      await backend.revertVolume({ id, snapshotId });
      expect(data(await backend.map(id))).toEqual([{ offset: 0, length: BLOCK, kind: 'data' }]);
      expect(data(await backend.map(snapshotId))).toEqual([{ offset: 0, length: BLOCK, kind: 'data' }]);
    });

    test('a diff names what changed, and from nothing what is mapped', async () => {
      const id = await create();
      await under.write(id, 0);
      await under.write(id, BLOCK);
      const before = await snapshot(id);
      await under.write(id, BLOCK);
      await under.write(id, 8 * BLOCK);
      const after = await snapshot(id);
      expect(await backend.diff({ fromId: before, toId: after })).toEqual([
        { offset: BLOCK, length: BLOCK, kind: 'data' },
        { offset: 8 * BLOCK, length: BLOCK, kind: 'data' },
      ]);
      expect(await backend.diff({ fromId: null, toId: before })).toEqual([
        { offset: 0, length: 2 * BLOCK, kind: 'data' },
      ]);
      expect(await backend.diff({ fromId: after, toId: after })).toEqual([]);
    });

    test('unknown ids are not found, and sources that are gone neither', async () => {
      const unknown = randomUUID();
      expect(await code(backend.map(unknown))).toBe('not_found');
      expect(await code(backend.resizeVolume({ id: unknown, sizeBytes: MIB }))).toBe('not_found');
      expect(await code(backend.createSnapshot({ id: randomUUID(), volumeId: unknown }))).toBe('not_found');
      expect(await code(backend.createVolume({ id: randomUUID(), sizeBytes: MIB, sourceId: unknown }))).toBe(
        'not_found',
      );
      expect(await backend.usage([unknown])).toEqual([]);
    });

    test('clients reach a volume through each of its names, and none that was unpublished', async () => {
      const id = await create();
      const target = { targetId: id, readOnly: false, description: 'a volume', isListed: true };
      await backend.publish({ name: id, ...target });
      await backend.publish({ name: 'data', ...target });
      await backend.publish({ name: 'data', ...target });
      const disconnect = await under.connect('data');
      expect((await usage(id))?.connections).toBe(1);
      await disconnect();
      await backend.unpublish('data');
      await backend.unpublish('data');
      await expect(under.connect('data')).rejects.toThrow();
      await (await under.connect(id))();
    });

    test('a volume with clients is not deleted; unpublishing its names ends their connections', async () => {
      const id = await create();
      await backend.publish({ name: id, targetId: id, readOnly: false, description: '', isListed: true });
      await under.connect(id);
      expect(await code(backend.delete(id))).toBe('wrong_state');
      await backend.unpublish(id);
      await backend.delete(id);
      expect(await backend.usage([id])).toEqual([]);
    });

    test('snapshots of several volumes are made together, once, or not at all', async () => {
      const [one, two] = [await create(), await create()];
      await under.write(one, 0);
      await under.write(two, BLOCK);
      const wanted = [one, two, one].map((volumeId) => ({ id: randomUUID(), volumeId }));
      const ids = wanted.map(({ id }) => id);
      await backend.createSnapshots([]);
      await backend.createSnapshots(wanted);
      await under.write(one, 2 * BLOCK);
      await under.write(two, 3 * BLOCK);
      await backend.createSnapshots(wanted);
      const offsets = await Promise.all(ids.map(async (id) => data(await backend.map(id)).map(({ offset }) => offset)));
      expect(offsets).toEqual([[0], [BLOCK], [0]]);
      expect((await backend.usage(ids)).map(({ kind }) => kind)).toEqual(['snapshot', 'snapshot', 'snapshot']);

      const fresh = () => ({ id: randomUUID(), volumeId: one });
      const twice = fresh();
      for (const [bad, failure] of [
        [[fresh(), { id: randomUUID(), volumeId: randomUUID() }], 'not_found'],
        [[twice, twice], 'bad_request'],
        [[fresh(), { id: two, volumeId: one }], 'conflict'],
        // It would be of another instant than the others.
        [[fresh(), wanted[0] ?? fresh()], 'conflict'],
      ] as const) {
        expect(await code(backend.createSnapshots(bad))).toBe(failure);
      }
      expect((await backend.stats()).snapshots).toBe(3);
    });

    test('limits are set, changed and taken away; what makes no sense is refused and changes nothing', async () => {
      const id = await create();
      await backend.setLimits({ id, limits: { totalIopsSec: 100, totalIopsSecMax: 200, totalIopsSecMaxLength: 5 } });
      await backend.setLimits({ id, limits: { readBytesSec: 1e6, writeBytesSec: 0, writeIopsSec: null } });
      for (const limits of [
        { totalIopsSec: -1 },
        { readIopsSec: Number.NaN },
        { writeIopsSec: Number.POSITIVE_INFINITY },
        { totalBytesSecMax: 5 },
        { totalBytesSec: 10, totalBytesSecMax: 9 },
        { totalBytesSec: 10, totalBytesSecMax: 20, totalBytesSecMaxLength: 0.5 },
        { totalIops: 5 } as object,
        { totalIopsSec: '5' } as object,
      ]) {
        expect(await code(backend.setLimits({ id, limits })), JSON.stringify(limits)).toBe('bad_request');
      }
      await backend.setLimits({ id, limits: null });
      expect(await code(backend.setLimits({ id: randomUUID(), limits: null }))).toBe('not_found');
    });

    test('the usage of everything lists volumes and snapshots', async () => {
      const id = await create();
      const snapshotId = await snapshot(id);
      const all = await backend.usage(null);
      const kinds = new Map(all.map((one) => [one.id, one.kind]));
      expect([kinds.get(id), kinds.get(snapshotId), all.length]).toEqual(['volume', 'snapshot', 2]);
    });

    test('a volume that is being filled is published, shared with nothing, and ordinary again at the end', async () => {
      const id = await create();
      const ranges = [{ offset: 0, length: 64 * MIB }];
      expect(await code(backend.publishFill({ name: 'door', targetId: id }))).toBe('wrong_state');
      await backend.beginFill({ id, ranges });
      await backend.beginFill({ id, ranges });
      await backend.publish({ name: id, targetId: id, readOnly: false, description: '', isListed: true });
      await backend.publishFill({ name: 'door', targetId: id });
      await backend.unpublish('door');
      expect(await code(snapshot(id))).toBe('wrong_state');
      expect(await code(backend.createSnapshots([{ id: randomUUID(), volumeId: id }]))).toBe('wrong_state');
      expect(await code(create(64 * MIB, id))).toBe('wrong_state');
      await backend.resizeVolume({ id, sizeBytes: 96 * MIB });
      await backend.narrowFill({ id, ranges: [{ offset: MIB, length: BLOCK }] });
      await backend.failFill({ id, offset: 0 });
      await backend.endFill(id);
      await backend.endFill(id);
      expect(await code(snapshot(id))).toBe('null');
      await backend.narrowFill({ id, ranges });
      await backend.failFill({ id: randomUUID(), offset: 0 });
    });

    test('a fill begins before its volume is published, and is forgotten when the volume is deleted', async () => {
      const id = await create();
      const ranges = [{ offset: 0, length: MIB }];
      await backend.publish({ name: id, targetId: id, readOnly: false, description: '', isListed: true });
      expect(await code(backend.beginFill({ id, ranges }))).toBe('conflict');
      await backend.unpublish(id);
      await backend.beginFill({ id, ranges });
      await backend.delete(id);
      await backend.createVolume({ id, sizeBytes: 64 * MIB, sourceId: null });
      expect(await code(snapshot(id))).toBe('null');
      expect(await code(backend.beginFill({ id: randomUUID(), ranges }))).toBe('not_found');
    });
  });
}
