/**
 * A server that takes no notice of `If-None-Match`, as Garage 2.5: it stores and says 200. Played by a proxy before a real
 * one. That is found out when the repository is made, and from then on what exists is looked for instead.
 */
import { expect, test } from 'vitest';
import { ABANDONED_MS, collectAll, deleteBackup } from '../../src/backup/collect.ts';
import { createBackup } from '../../src/backup/create.ts';
import type { ObjectStore } from '../../src/objects/objects.ts';
import { S3Objects } from '../../src/objects/s3.ts';
import { type Asked, FaultProxy } from '../support/fault-proxy.ts';
import { describeWith } from '../support/peers.ts';
import { type S3Server, startS3 } from '../support/s3.ts';
import { BackupWorld, FakeVolume } from './world.ts';

const MIB = 1 << 20;
const never = new AbortController().signal;

type Garage = AsyncDisposable & { readonly open: () => ObjectStore; readonly ignored: () => number };

async function startGarage(server: S3Server): Promise<Garage> {
  const proxy = await FaultProxy.start(server.endpoint);
  const direct = new S3Objects({ ...server.options, prefix: '' });
  const start = `/${server.options.bucket}/`;
  let ignored = 0;
  const answer = async ({ path, body }: Asked) => {
    ignored += 1;
    await direct.put(decodeURIComponent(path.slice(start.length).replace(/\?.*/, '')), body, { ifAbsent: false });
    return { status: 200, headers: ['etag', '"0123456789abcdef0123456789abcdef"'], body: Buffer.alloc(0) };
  };
  proxy.break({ fault: { kind: 'instead', answer }, method: 'PUT', header: 'if-none-match' });
  return {
    open: () => new S3Objects({ ...server.options, endpoint: proxy.endpoint, checksums: 'required-only' }),
    ignored: () => ignored,
    async [Symbol.asyncDispose]() {
      direct.close();
      await proxy[Symbol.asyncDispose]();
    },
  };
}

describeWith(['versitygw'], 'a server that ignores conditions', () => {
  test('is found out, and backs up, restores, deletes and collects', async () => {
    await using server = await startS3('versitygw');
    await using garage = await startGarage(server);
    await using world = await BackupWorld.open({ around: garage.open });
    expect(world.repository.isConditional).toBe(false);
    expect(garage.ignored()).toBeGreaterThan(1);
    const volume = new FakeVolume(16 * MIB);
    volume.fill(0, 2 * MIB);
    const first = await world.take(volume);
    volume.fill(MIB, MIB);
    const second = await world.take(volume, first);
    expect(second.manifest.packs.some(([, owner]) => owner === first.id)).toBe(true);
    await deleteBackup(world.repository, { volume: world.volumeId, backup: first.id, signal: never });
    await collectAll(world.repository, never);
    expect((await world.restore(second.id)).isSameAs(second.frozen)).toBe(true);
    // Another daemon reads what was found out, and tries nothing.
    const before = garage.ignored();
    await world.reopen({ around: garage.open });
    expect([world.repository.isConditional, garage.ignored()]).toEqual([false, before]);
  }, 60_000);

  test('a manifest is not replaced by a tombstone, nor the other way round', async () => {
    await using server = await startS3('versitygw');
    await using garage = await startGarage(server);
    await using world = await BackupWorld.open({ around: garage.open });
    const volume = new FakeVolume(16 * MIB);
    volume.fill(0, MIB);
    const frozen = volume.freeze();
    const order = world.order(frozen, null);
    // The collector gives up a writer that has stored its packs and then slept for a day.
    const late = createBackup(world.repository, {
      ...order,
      source: {
        read: async (offset, target) => {
          await frozen.read(offset, target);
          if (offset !== 0) return;
          await world.repository.objects.put(`vol/${world.volumeId}/pack/${order.backup}/00000007.pack`, target, {
            ifAbsent: false,
          });
          world.aheadMs += 2 * ABANDONED_MS;
          await collectAll(world.repository, never);
        },
      },
    });
    await expect(late).rejects.toMatchObject({ code: 'conflict' });
    expect(await world.repository.manifest(world.volumeId, order.backup)).toBeNull();
    const kept = await world.take(volume);
    world.aheadMs += 2 * ABANDONED_MS;
    await collectAll(world.repository, never);
    expect((await world.restore(kept.id)).isSameAs(kept.frozen)).toBe(true);
  }, 60_000);
});
