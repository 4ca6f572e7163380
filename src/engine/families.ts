/**
 * Which objects may share pages and extents, and when something last changed among them. Objects come from one another only by
 * snapshots and copies, so what never came from one another shares nothing. Says too much after a start that finds traces of
 * objects long deleted, never too little.
 */

import type { EngineRecord } from '../format/record.ts';
import type { State, StoredObject } from './state.ts';

type Family = {
  /** Numbers of all that were ever in it, the deleted ones too: they may own extent files. */
  readonly owners: Set<number>;
  living: number;
  version: number;
};

export class Families {
  readonly #state: State;
  readonly #byNumber = new Map<number, Family>();
  /** Drops belong to objects that are gone: they concern everybody. */
  #drops = 0;

  constructor(state: State) {
    this.#state = state;
    const objects = [...state.objects.values()];
    const isKnown =
      objects.every(({ sourceNumber }) => sourceNumber === 0 || state.objects.has(sourceNumber)) &&
      [...state.files.values()].every(({ owner }) => state.objects.has(owner));
    // Sources have lower numbers.
    for (const { number, sourceNumber } of objects.sort((a, b) => a.number - b.number))
      this.#join(number, isKnown ? sourceNumber : (objects[0]?.number ?? 0));
    if (isKnown) return;
    const [first] = this.#byNumber.values();
    for (const { owner } of state.files.values()) first?.owners.add(owner);
  }

  #join(number: number, sourceNumber: number): void {
    const family = this.#byNumber.get(sourceNumber) ?? { owners: new Set(), living: 0, version: 0 };
    family.owners.add(number);
    family.living += 1;
    family.version += 1;
    this.#byNumber.set(number, family);
  }

  /** Records that were just applied. */
  note(records: readonly EngineRecord[]): void {
    for (const record of records) {
      if (record.type === 'create') this.#join(record.number, record.sourceNumber);
      else if (record.type === 'drop') this.#drops += 1;
      else if (record.type === 'changes' || record.type === 'revert' || record.type === 'delete') {
        const family = this.#byNumber.get(record.number);
        if (family === undefined) continue;
        family.version += 1;
        if (record.type !== 'delete') continue;
        family.living -= 1;
        this.#byNumber.delete(record.number);
      }
    }
  }

  /** All that may share something with the object, now or before: numbers, of which some are gone. */
  relativesOf({ number }: StoredObject): Iterable<number> {
    return this.#byNumber.get(number)?.owners ?? [];
  }

  /** Differs from an earlier one if anything happened that may concern what the object shares. */
  version({ number }: StoredObject): string {
    return `${this.#byNumber.get(number)?.version ?? 0}.${this.#drops}`;
  }

  /** All extents of the pool that an object has for itself because there is nobody to share with; null when there may be. */
  extentsOfOnly({ number }: StoredObject): number | null {
    const family = this.#byNumber.get(number);
    if (family === undefined || family.living > 1 || this.#state.drops.length > 0) return null;
    let used = 0;
    for (const file of this.#state.files.values()) if (family.owners.has(file.owner)) used += file.used;
    return used;
  }
}
