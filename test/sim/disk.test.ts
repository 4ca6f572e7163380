/** The simulated disk is fair and unfair in the ways it says; what the model proves is worth no more than this. */

import { describe, expect, it } from 'vitest';
import { SimDisk } from './files.ts';

const CHUNK = 4096;
const KINDS = 40;

function disk(seed: number, totalBytes = 2 ** 30): SimDisk {
  return new SimDisk({ seed, totalBytes });
}

function content(of: SimDisk, path: string): Uint8Array {
  const file = of.open(path, 'read');
  const bytes = new Uint8Array(file.size());
  file.read(0, bytes);
  return bytes;
}

/** A durable file of eight chunks of ones, then written over with twos and not synced. */
async function overwritten(seed: number, path: string): Promise<SimDisk> {
  const made = disk(seed);
  const file = made.open(path, 'create');
  file.write(0, new Uint8Array(8 * CHUNK).fill(1));
  await file.sync();
  await made.syncFolder('.');
  file.write(0, new Uint8Array(8 * CHUNK).fill(2));
  return made;
}

describe('a crash of the simulated disk', () => {
  it('keeps what was synced', async () => {
    for (let seed = 0; seed < KINDS; seed += 1) {
      const before = disk(seed);
      const file = before.open('a', 'create');
      file.write(0, new Uint8Array(3 * CHUNK).fill(1));
      await file.sync();
      await before.syncFolder('.');
      expect(content(before.afterCrash(), 'a').every((byte) => byte === 1)).toBe(true);
    }
  });

  it('keeps or loses each 4 KiB that was not synced, and tears metadata between sectors only', async () => {
    const kinds = new Set<string>();
    for (let seed = 0; seed < KINDS; seed += 1) {
      const after = content((await overwritten(seed, 'meta')).afterCrash(), 'meta');
      for (let at = 0; at < after.length; at += CHUNK) {
        const sectors = Array.from({ length: 8 }, (_, sector) =>
          after.subarray(at + sector * 512, at + (sector + 1) * 512),
        );
        for (const sector of sectors) expect(new Set(sector).size).toBe(1);
        const values = new Set(sectors.map((sector) => sector[0]));
        kinds.add(values.size > 1 ? 'torn' : values.has(1) ? 'lost' : 'kept');
      }
    }
    expect([...kinds].sort()).toEqual(['kept', 'lost', 'torn']);
  });

  it('does not tear 4 KiB of an extent file', async () => {
    for (let seed = 0; seed < KINDS; seed += 1) {
      const after = content((await overwritten(seed, '1.dat')).afterCrash(), '1.dat');
      for (let at = 0; at < after.length; at += CHUNK) expect(new Set(after.subarray(at, at + CHUNK)).size).toBe(1);
    }
  });

  it('loses creations and removals of a folder that was not synced, or not', async () => {
    const [created, removed] = [new Set<boolean>(), new Set<boolean>()];
    for (let seed = 0; seed < KINDS; seed += 1) {
      const before = disk(seed);
      before.open('old', 'create').close();
      await before.syncFolder('.');
      before.remove('old');
      before.open('new', 'create').close();
      const after = before.afterCrash();
      created.add(after.exists('new'));
      removed.add(after.exists('old'));
    }
    expect([created.size, removed.size]).toEqual([2, 2]);
  });

  it('repeats itself with the same seed', async () => {
    const [one, other] = [await overwritten(7, 'meta'), await overwritten(7, 'meta')];
    expect(Buffer.compare(content(one.afterCrash(), 'meta'), content(other.afterCrash(), 'meta'))).toBe(0);
  });

  it('stops everything that this machine was doing', async () => {
    const before = await overwritten(1, 'a');
    before.operationsUntilPowerOff = 1;
    before.open('a', 'existing').write(0, Uint8Array.of(1));
    expect(() => before.open('a', 'existing').write(0, Uint8Array.of(1))).toThrow('power is off');
    expect(() => before.open('a', 'read')).toThrow('power is off');
  });
});

describe('a kill of the process', () => {
  it('leaves what was written, still not safe', async () => {
    const killed = (await overwritten(3, 'meta')).afterKill();
    expect(content(killed, 'meta').every((byte) => byte === 2)).toBe(true);
    expect(new Set(content(killed.afterCrash(), 'meta')).has(1)).toBe(true);
  });
});

describe('a failed sync', () => {
  it('has the cache show what the disk will never have, as on Linux', async () => {
    const before = await overwritten(3, '1.dat');
    before.fail('sync', /dat$/, 'EIO', 1);
    const file = before.open('1.dat', 'existing');
    await expect(file.sync()).rejects.toThrow('EIO');
    await file.sync();
    expect(content(before, '1.dat')[0]).toBe(2);
    expect(content(before.afterCrash(), '1.dat').every((byte) => byte === 1)).toBe(true);
  });
});

describe('a full disk', () => {
  it('refuses new space and still takes what it has', () => {
    const small = disk(1, 4 * CHUNK);
    const file = small.open('a', 'create');
    file.write(0, new Uint8Array(4 * CHUNK));
    expect(() => file.write(4 * CHUNK, Uint8Array.of(1))).toThrow('ENOSPC');
    file.write(0, new Uint8Array(4 * CHUNK).fill(1));
    file.truncate(2 * CHUNK);
    file.write(2 * CHUNK, new Uint8Array(2 * CHUNK));
  });
});
