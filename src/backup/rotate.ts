/**
 * Changes the operator's key: wraps every data key under the present one and then removes what the keys before it had
 * wrapped. No chunk is read or written. A data key is removed under an old key only after its object under the present one
 * was read back and holds the same, so a crash anywhere leaves each data key readable by a key that is configured, and
 * doing it again does the rest.
 */
import { Failure } from '../base/errors.ts';
import { type DataKey, loadDataKey, storeDataKey, type WrappingKey } from './encryption.ts';
import { dataKeyKey, keyPrefix, parseKey, VOLUMES } from './keys.ts';
import type { Repository } from './repository.ts';

export type Rotated = {
  /** Data keys that the present key wraps now and did not before. */
  readonly wrapped: number;
  /** Those it had wrapped already. */
  readonly kept: number;
  /** Objects under older keys that are gone. */
  readonly removed: number;
  /** Keys of objects that no configured key opens: the older keys are not to be thrown away for their sake. */
  readonly foreign: readonly string[];
};

export async function rotateKeys(repository: Repository, signal: AbortSignal): Promise<Rotated> {
  const { objects, wrappingKey } = repository;
  if (wrappingKey === null)
    throw new Failure('wrong_state', { reason: 'No backup key is configured: give the new one as backup_key_file.' });
  const sum = { wrapped: 0, kept: 0, removed: 0, foreign: [] as string[] };
  for (const volume of await objects.folders(VOLUMES)) {
    for (const [keyId, wrappers] of await wrappersOf(repository, volume)) {
      if (signal.aborted) throw new Failure('shutting_down');
      const outcome = await rotateOne(repository, wrappingKey, { volume, keyId, wrappers });
      if (outcome === 'foreign') sum.foreign.push(...wrappers.map((wrapper) => dataKeyKey(volume, keyId, wrapper)));
      if (outcome === 'foreign' || outcome === 'gone') continue;
      sum[outcome] += 1;
      // Where somebody names the present key among those before it, its objects are still the only ones.
      const old = (wrappingKey.previous ?? []).filter(({ id }) => id !== wrappingKey.id && wrappers.includes(id));
      await objects.delete(old.map(({ id }) => dataKeyKey(volume, keyId, id)));
      sum.removed += old.length;
    }
  }
  return sum;
}

/** For each data key the ids of the keys that it is wrapped by. */
async function wrappersOf({ objects }: Repository, volume: string): Promise<ReadonlyMap<string, string[]>> {
  const found = new Map<string, string[]>();
  for await (const { key } of objects.list(keyPrefix(volume))) {
    const parsed = parseKey(volume, key);
    if (parsed.kind !== 'key') continue;
    found.set(parsed.keyId, [...(found.get(parsed.keyId) ?? []), parsed.wrapperId]);
  }
  return found;
}

async function rotateOne(
  { objects }: Repository,
  wrapping: WrappingKey,
  { volume, keyId, wrappers }: { volume: string; keyId: string; wrappers: readonly string[] },
): Promise<'wrapped' | 'kept' | 'foreign' | 'gone'> {
  const present = { id: wrapping.id, key: wrapping.key };
  const load = async (by: WrappingKey): Promise<DataKey | null> => {
    try {
      return await loadDataKey(objects, by, { volume, keyId });
    } catch (error) {
      // Not there, or damaged; what the store does not say now stops the rotation.
      if (error instanceof Failure && (error.code === 'wrong_state' || error.code === 'corrupt')) return null;
      throw error;
    }
  };
  if (wrappers.includes(present.id) && (await load(present)) !== null) return 'kept';
  const key = await load(wrapping);
  if (key === null) {
    const isLeft = await Promise.all(wrappers.map((by) => objects.get(dataKeyKey(volume, keyId, by), null)));
    return isLeft.some((body) => body !== null) ? 'foreign' : 'gone';
  }
  await storeDataKey(objects, present, { volume, key });
  const again = await load(present);
  if (again === null || !isSame(key, again))
    throw new Failure('corrupt', {
      path: `${objects.place}/${dataKeyKey(volume, keyId, present.id)}`,
      reason: 'it was not stored as it was written; the older keys are still needed',
    });
  return 'wrapped';
}

function isSame(a: DataKey, b: DataKey): boolean {
  return Buffer.compare(a.dataKey, b.dataKey) === 0 && Buffer.compare(a.hashKey, b.hashKey) === 0;
}
