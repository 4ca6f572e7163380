/** What every object store has to do. Each has a short test file of its own that runs this. */
import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ObjectStore } from '../../src/objects/objects.ts';

export type ObjectsUnderTest = {
  readonly objects: ObjectStore;
  /** The same objects as another process would see them. */
  again(): Promise<ObjectStore>;
  close(): Promise<void>;
};

const MIB = 1 << 20;
const REPLACE = { ifAbsent: false } as const;
const IF_ABSENT = { ifAbsent: true } as const;

export function objectsContract(name: string, open: () => Promise<ObjectsUnderTest>): void {
  describe(`objects: ${name}`, () => {
    let under: ObjectsUnderTest;
    let objects: ObjectStore;

    beforeAll(async () => {
      under = await open();
      objects = under.objects;
    });
    afterAll(() => under.close());

    const keysBelow = async (prefix: string): Promise<string[]> => {
      const keys: string[] = [];
      for await (const { key } of objects.list(prefix)) keys.push(key);
      return keys.sort();
    };

    it('gives back what was put, also to another process, and what replaced it', async () => {
      const body = randomBytes(3 * MIB + 7);
      expect(await objects.put('a/whole.pack', body, REPLACE)).toBe('stored');
      const other = await under.again();
      expect((await other.get('a/whole.pack', null))?.equals(body)).toBe(true);
      other.close();
      expect(await objects.put('a/whole.pack', Buffer.from('new'), REPLACE)).toBe('stored');
      expect((await objects.get('a/whole.pack', null))?.toString()).toBe('new');
    });

    it('stores and gives an empty object', async () => {
      await objects.put('a/empty.json', Buffer.alloc(0), REPLACE);
      expect((await objects.get('a/empty.json', null))?.length).toBe(0);
    });

    it('gives ranges, and less only at the end', async () => {
      const body = randomBytes(1000);
      await objects.put('b/ranges.pack', body, REPLACE);
      const get = async (range: Parameters<ObjectStore['get']>[1]) =>
        (await objects.get('b/ranges.pack', range))?.toString('hex');
      expect(await get({ offset: 0, length: 1 })).toBe(body.toString('hex', 0, 1));
      expect(await get({ offset: 10, length: 500 })).toBe(body.toString('hex', 10, 510));
      expect(await get({ offset: 990, length: 50 })).toBe(body.toString('hex', 990));
      expect(await get({ offset: 1000, length: 50 })).toBe('');
      expect(await get({ offset: 5, length: 0 })).toBe('');
      expect(await get({ last: 17 })).toBe(body.toString('hex', 983));
      expect(await get({ last: 5000 })).toBe(body.toString('hex'));
    });

    it('says of what is not there that it is not there', async () => {
      expect(await objects.get('c/nothing.pack', null)).toBeNull();
      expect(await objects.get('c/nothing.pack', { last: 10 })).toBeNull();
      expect(await keysBelow('c/')).toEqual([]);
      expect(await objects.folders('c/')).toEqual([]);
      await objects.delete(['c/nothing.pack', 'c/d/neither.pack']);
    });

    it('lets exactly one of many put an object that must not be there yet, and keeps its bytes', async () => {
      const bodies = Array.from({ length: 16 }, (_, index) => Buffer.from(`writer ${index}`));
      const outcomes = await Promise.all(bodies.map((body) => objects.put('d/once.json', body, IF_ABSENT)));
      expect(outcomes.filter((outcome) => outcome === 'stored')).toHaveLength(1);
      const winner = bodies[outcomes.indexOf('stored')];
      expect((await objects.get('d/once.json', null))?.toString()).toBe(winner?.toString());
      expect(await objects.put('d/once.json', Buffer.from('late'), IF_ABSENT)).toBe('exists');
      await objects.delete(['d/once.json']);
      expect(await objects.put('d/once.json', Buffer.from('again'), IF_ABSENT)).toBe('stored');
    });

    it('lists more than a page of objects with their sizes, and the folders above them', async () => {
      const keys = Array.from(
        { length: 1100 },
        (_, index) => `e/vol/${index % 3}/x${String(index).padStart(5, '0')}.idx`,
      );
      const queue = [...keys];
      const put = async () => {
        for (let key = queue.pop(); key !== undefined; key = queue.pop())
          await objects.put(key, Buffer.from('12345'), REPLACE);
      };
      await Promise.all(Array.from({ length: 8 }, put));
      expect(await keysBelow('e/')).toEqual([...keys].sort());
      expect(await objects.folders('e/vol/')).toEqual(['0', '1', '2']);
      expect(await objects.folders('e/')).toEqual(['vol']);
      for await (const info of objects.list('e/vol/1/')) {
        expect(info.sizeBytes).toBe(5);
        expect(Math.abs(Date.now() - info.modifiedMs)).toBeLessThan(3600_000);
      }
      await objects.delete(keys);
      expect(await keysBelow('e/')).toEqual([]);
      expect(await objects.folders('e/vol/')).toEqual([]);
    });

    it('deletes only what was named', async () => {
      await objects.put('f/1.pack', Buffer.from('1'), REPLACE);
      await objects.put('f/2.pack', Buffer.from('2'), REPLACE);
      await objects.delete(['f/1.pack']);
      expect(await keysBelow('f/')).toEqual(['f/2.pack']);
    });

    it.each(['../out', 'a//b', '/a', 'a/', '.hidden', 'a/..', 'a/b\0', 'x'.repeat(600), ''])(
      'refuses the key %j and touches nothing',
      async (key) => {
        const refused = { code: 'bad_request' };
        await expect(objects.put(key, Buffer.from('x'), REPLACE)).rejects.toMatchObject(refused);
        await expect(objects.get(key, null)).rejects.toMatchObject(refused);
        await expect(objects.delete([key])).rejects.toMatchObject(refused);
      },
    );
  });
}
