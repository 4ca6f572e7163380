/** What a request over holes is told: how far there is nothing, never further, and with little reading. */
import { expect, test } from 'vitest';
import { BLOCK, bytes, newDisk, openPool, quiet, uuid } from './pool.ts';

const LEAF_BYTES = 32 * 2 ** 20;
const TIB = 2 ** 40;
const ID = uuid(1);

test('a fault where nothing is mapped is answered up to the next leaf that is there, or the end', async () => {
  const disk = newDisk();
  const first = await openPool(disk);
  await first.engine.createVolume({ id: ID, sizeBytes: 64 * TIB, sourceId: null });
  const mapped = [3, 1023, 1024, 1025, 5000, 1024 * 1024 + 7, 2 ** 21 - 1];
  for (const leaf of mapped) await first.write(ID, leaf * LEAF_BYTES, bytes(BLOCK, 7));
  await first.flush(ID);
  await first.engine.close();

  const pool = await openPool(disk);
  const handle = await pool.handle(ID);
  const asked = [0, 2, 4, 1022, 1026, 4999, 5001, 1024 * 1024, 1024 * 1024 + 8, 2 ** 21 - 2];
  for (const leaf of asked) await pool.read(ID, leaf * LEAF_BYTES, BLOCK);
  const nextOf = (leaf: number) => mapped.find((other) => other > leaf) ?? 2 ** 21;
  expect(pool.plane.holesTold).toEqual(
    asked.map((firstLeaf) => ({ handle, firstLeaf, count: nextOf(firstLeaf) - firstLeaf })),
  );
  for (const leaf of mapped) expect(await pool.read(ID, leaf * LEAF_BYTES, BLOCK)).toEqual(bytes(BLOCK, 7));
  expect(pool.plane.holesTold).toHaveLength(asked.length);
  expect(pool.fatal).toEqual([]);
  await pool.engine.close();
});

test('an empty volume is one answer, whatever its size', async () => {
  const pool = await openPool(newDisk());
  for (const [number, sizeBytes, count] of [
    [1, BLOCK, 1],
    [2, LEAF_BYTES, 1],
    [3, LEAF_BYTES + BLOCK, 2],
    [4, 64 * TIB, 2 ** 21],
  ] as const) {
    await pool.engine.createVolume({ id: uuid(number), sizeBytes, sourceId: null });
    await pool.read(uuid(number), 0, BLOCK);
    expect(pool.plane.holesTold.splice(0)).toMatchObject([{ firstLeaf: 0, count }]);
  }
  await quiet();
  await pool.engine.close();
});
