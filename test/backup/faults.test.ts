/**
 * Bad days of an S3 server, by a proxy before a real one. Whatever breaks, at whichever step: a backup that was said to
 * be made can be restored, a restore that was said to be done has the right bytes, and what a deletion or a collection
 * leaves is whole. What breaks for a moment only is not noticed at all.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { ABANDONED_MS, collectAll, deleteBackup } from '../../src/backup/collect.ts';
import { createBackup } from '../../src/backup/create.ts';
import { wrappingKeyFrom } from '../../src/backup/encryption.ts';
import { Failure } from '../../src/base/errors.ts';
import { S3Objects } from '../../src/objects/s3.ts';
import { type Fault, FaultProxy, type Rule } from '../support/fault-proxy.ts';
import { describeWith } from '../support/peers.ts';
import { type S3Server, startS3 } from '../support/s3.ts';
import { BackupWorld, FakeVolume, type Taken } from './world.ts';

const KIB = 1024;
const MIB = 1 << 20;
const IDLE_MS = 300;
const never = new AbortController().signal;

/** A repository in a bucket: reached through the proxy, or past it. */
class FaultyWorld implements AsyncDisposable {
  readonly server: S3Server;
  readonly proxy: FaultProxy;
  readonly world: BackupWorld;
  readonly volume = new FakeVolume(64 * MIB);

  private constructor(parts: { server: S3Server; proxy: FaultProxy; world: BackupWorld }) {
    this.server = parts.server;
    this.proxy = parts.proxy;
    this.world = parts.world;
    this.volume.fill(0, MIB);
    this.volume.fill(40 * MIB, 512 * KIB);
  }

  static async open(): Promise<FaultyWorld> {
    const server = await startS3('versitygw');
    const proxy = await FaultProxy.start(server.endpoint);
    const world = await BackupWorld.open({ around: () => new S3Objects(server.options) });
    const opened = new FaultyWorld({ server, proxy, world });
    await opened.through();
    return opened;
  }

  async through(): Promise<void> {
    const { server, proxy } = this;
    const options = { ...server.options, endpoint: proxy.endpoint, idleTimeoutMs: IDLE_MS };
    await this.world.reopen({ around: () => new S3Objects(options) });
  }

  /** The day is over. */
  async past(): Promise<void> {
    this.proxy.break();
    await this.world.reopen({ around: () => new S3Objects(this.server.options) });
  }

  take(parent: Taken | null = null): Promise<Taken> {
    return this.world.take(this.volume, parent, { packBytes: 256 * KIB });
  }

  async expectWhole(...backups: readonly Taken[]): Promise<void> {
    for (const { id, frozen } of backups) expect((await this.world.restore(id)).isSameAs(frozen)).toBe(true);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.world[Symbol.asyncDispose]();
    await this.proxy[Symbol.asyncDispose]();
    await this.server[Symbol.asyncDispose]();
  }
}

type Outcome = { readonly done: true } | { readonly done: false; readonly error: unknown };

async function outcomeOf(work: Promise<unknown>): Promise<Outcome> {
  try {
    await work;
    return { done: true };
  } catch (error) {
    // Anything else is a bug of ours and no bad day.
    expect(error).toBeInstanceOf(Failure);
    expect(['objects_unavailable', 'corrupt']).toContain((error as Failure).code);
    return { done: false, error };
  }
}

const SLOW_DOWN: Fault = { kind: 'refuse', status: 503, code: 'SlowDown' };
const BROKEN: Fault = { kind: 'refuse', status: 500, code: 'InternalError' };
const BROKEN_AFTER: Fault = { kind: 'refuse-after', status: 500, code: 'InternalError' };

/** What a repetition mends. */
const PASSING: Readonly<Record<string, Rule>> = {
  '503 SlowDown': { fault: SLOW_DOWN },
  '500 before the effect': { fault: BROKEN },
  '500 after the effect': { fault: BROKEN_AFTER },
  'a reset before the effect': { fault: { kind: 'reset' } },
  'a reset after the effect': { fault: { kind: 'reset-after' } },
  'a request that is cut': { fault: { kind: 'cut' }, method: 'PUT' },
  'an answer that is cut': { fault: { kind: 'truncate' }, method: 'GET' },
  'an answer that stops coming': { fault: { kind: 'stall' }, method: 'GET' },
  'a slow answer': { fault: { kind: 'slow' }, method: 'GET' },
};
/** Bytes that are not what was sent. The listings of a store cannot be checked by anybody. */
const LYING: Readonly<Record<string, Rule>> = {
  'a flipped bit in an answer': { fault: { kind: 'flip' }, method: 'GET', path: /\.(pack|idx|json)/ },
  'a flipped bit in a request': { fault: { kind: 'flip-up' }, method: 'PUT' },
};

const moments = (rule: Rule): Rule[] => [0, 3].map((skip) => ({ ...rule, skip, times: 2 }));

describeWith(['versitygw'], 'an S3 server', () => {
  test.each(Object.entries(PASSING))(
    '%s for a moment is not noticed by any work',
    async (_, rule) => {
      await using day = await FaultyWorld.open();
      const { world, proxy, volume } = day;
      const first = await day.take();
      let before = first;
      let hits = 0;
      for (const moment of moments(rule)) {
        volume.fill(20 * MIB, 512 * KIB);
        proxy.break(moment);
        const next = await day.take(before);
        hits += proxy.hits;
        proxy.break(moment);
        await day.expectWhole(next);
        hits += proxy.hits;
        proxy.break(moment);
        if (before !== first)
          await deleteBackup(world.repository, { volume: world.volumeId, backup: before.id, signal: never });
        hits += proxy.hits;
        proxy.break(moment);
        expect(await collectAll(world.repository, never)).toMatchObject({ unfinished: 0 });
        hits += proxy.hits;
        before = next;
      }
      expect(hits).toBeGreaterThan(3);
      await day.past();
      await day.expectWhole(first, before);
    },
    180_000,
  );

  test.each(Object.entries({ ...PASSING, ...LYING }).filter(([, { fault }]) => fault.kind !== 'slow'))(
    '%s without an end: nothing is said to be done that is not',
    async (name, rule) => {
      await using day = await FaultyWorld.open();
      const { world, proxy, volume } = day;
      const first = await day.take();
      volume.fill(20 * MIB, 512 * KIB);
      const frozen = volume.freeze();
      const order = world.order(frozen, first, { packBytes: 256 * KIB });
      proxy.break({ ...rule, skip: 1 });
      const made = await outcomeOf(createBackup(world.repository, order));
      expect(proxy.hits, name).toBeGreaterThan(0);
      await day.past();
      if (made.done) expect((await world.restore(order.backup)).isSameAs(frozen)).toBe(true);
      // Again by the same order, as the task would: it goes on with what is there.
      const again = await createBackup(world.repository, order);
      const second: Taken = { ...again, id: order.backup, frozen, readFromVolume: 0 };
      await day.expectWhole(first, second);

      await day.through();
      proxy.break({ ...rule, skip: 1 });
      const target = new FakeVolume(64 * MIB);
      target.fill(10 * MIB, MIB);
      const restored = await outcomeOf(world.restore(second.id, target));
      if (restored.done) expect(target.isSameAs(frozen)).toBe(true);
      if (rule.method !== 'PUT') expect(restored.done).toBe(false);
      proxy.break({ ...rule, skip: 1 });
      await outcomeOf(deleteBackup(world.repository, { volume: world.volumeId, backup: first.id, signal: never }));
      world.aheadMs = 2 * ABANDONED_MS;
      await outcomeOf(collectAll(world.repository, never));
      await day.past();
      await day.expectWhole(second);
    },
    180_000,
  );

  test('the answer to the manifest is lost: the repetition finds its own and the backup is made', async () => {
    await using day = await FaultyWorld.open();
    const lost: Rule = { fault: { kind: 'reset-after' }, method: 'PUT', path: /\/manifest\//, times: 1 };
    day.proxy.break(lost);
    const made = await day.take();
    expect(day.proxy.hits).toBe(1);
    // All tries are lost: whoever asked is told of a failure, and asks again.
    const order = day.world.order(day.volume.freeze(), null, { packBytes: 256 * KIB });
    day.proxy.break({ fault: { kind: 'reset-after' }, method: 'PUT', path: /\/manifest\// });
    expect(await outcomeOf(createBackup(day.world.repository, order))).toMatchObject({ done: false });
    day.proxy.break();
    const { readBytes } = await createBackup(day.world.repository, order);
    expect(readBytes).toBe(0);
    expect((await day.world.restore(order.backup)).isSameAs(day.volume)).toBe(true);
    await day.expectWhole(made);
  });

  test('credentials that are revoked half way end the work with a reason; nothing is taken for missing', async () => {
    await using day = await FaultyWorld.open();
    const first = await day.take();
    day.volume.fill(20 * MIB, 512 * KIB);
    const revoked: Fault = { kind: 'refuse', status: 403, code: 'InvalidAccessKeyId' };
    for (const skip of [0, 2, 4]) {
      day.proxy.break({ fault: revoked, skip });
      const order = day.world.order(day.volume.freeze(), first, { packBytes: 256 * KIB });
      await expect(createBackup(day.world.repository, order)).rejects.toMatchObject({ code: 'objects_unavailable' });
      day.proxy.break({ fault: revoked, skip });
      await expect(day.world.restore(first.id)).rejects.toMatchObject({ code: 'objects_unavailable' });
      day.proxy.break({ fault: revoked, skip: Math.min(skip, 2) });
      day.world.aheadMs = 2 * ABANDONED_MS;
      await expect(collectAll(day.world.repository, never)).rejects.toMatchObject({ code: 'objects_unavailable' });
      day.world.aheadMs = 0;
      day.proxy.break();
      await day.expectWhole(first);
    }
  });

  test('a bucket that is gone is no empty repository', async () => {
    await using day = await FaultyWorld.open();
    const first = await day.take();
    await rm(join(day.server.folder, day.server.options.bucket), { recursive: true });
    const failure = { code: 'objects_unavailable' };
    await expect(day.take(first)).rejects.toMatchObject(failure);
    await expect(day.world.restore(first.id)).rejects.toMatchObject(failure);
    await expect(collectAll(day.world.repository, never)).rejects.toMatchObject(failure);
    await expect(day.past()).rejects.toMatchObject(failure);
  });

  test('with another key nothing is restored and nothing is taken for garbage', async () => {
    await using day = await FaultyWorld.open();
    const objects = () => new S3Objects(day.server.options);
    const right = wrappingKeyFrom(Buffer.alloc(32, 1));
    await day.world.reopen({ wrappingKey: right, around: objects });
    const first = await day.take();
    await day.world.reopen({ wrappingKey: wrappingKeyFrom(Buffer.alloc(32, 2)), around: objects });
    const target = new FakeVolume(64 * MIB);
    await expect(day.world.restore(first.id, target)).rejects.toBeInstanceOf(Failure);
    expect(target.blocks.size).toBe(0);
    day.world.aheadMs = 2 * ABANDONED_MS;
    await collectAll(day.world.repository, never);
    await day.world.reopen({ wrappingKey: right, around: objects });
    await day.expectWhole(first);
  });

  test('two daemons on one repository back up, delete and collect at once, and what each has is whole', async () => {
    await using day = await FaultyWorld.open();
    await using other = await BackupWorld.open({ around: () => new S3Objects(day.server.options) });
    expect(other.repository.id).toBe(day.world.repository.id);
    const theirs = new FakeVolume(64 * MIB);
    theirs.fill(0, MIB);
    let [mine, their] = [await day.take(), await other.take(theirs, null, { packBytes: 256 * KIB })];
    for (let round = 0; round < 3; round += 1) {
      day.volume.fill(round * MIB, 256 * KIB);
      theirs.fill(round * MIB, 256 * KIB);
      const [old, oldOther] = [mine, their];
      [mine, their] = await Promise.all([
        day.take(old),
        other.take(theirs, oldOther, { packBytes: 256 * KIB }),
        collectAll(other.repository, never),
        collectAll(day.world.repository, never),
      ]);
      await Promise.all([
        // Each deletes what is the other's.
        deleteBackup(other.repository, { volume: day.world.volumeId, backup: old.id, signal: never }),
        deleteBackup(day.world.repository, { volume: other.volumeId, backup: oldOther.id, signal: never }),
      ]);
    }
    await day.expectWhole(mine);
    expect((await other.restore(their.id)).isSameAs(their.frozen)).toBe(true);
  });
});
