/**
 * How much of the pool each volume and snapshot has for itself, asked for one or for all. Figures are kept until something
 * changes that may concern them, long walks give way to other work, and a look at all of them is not repeated so often that it
 * would cost the engine's thread a noticeable part of its time. How one object is walked is exclusive.ts's business.
 */

import type { Clock } from '../base/clock.ts';
import { Failure } from '../base/errors.ts';
import type { EngineRecord } from '../format/record.ts';
import { EXTENT_BYTES } from '../native/plane.ts';
import { type Exclusive, exclusivePart } from './exclusive.ts';
import { Families } from './families.ts';
import type { State, StoredObject } from './state.ts';
import type { VolumeSpace } from './volume-store.ts';

/** Walked in one turn: a few milliseconds when they have to be read. */
const PAGES_PER_TURN = 64;
/** A look at all that took a second is good for 20: never more than a twentieth of the time. */
const ALL_KEPT_TIMES = 20;
const TURN_MS_MAX = 2;

type Known = { readonly version: string; readonly found: Exclusive };

export class Figures {
  readonly #state: State;
  readonly #clock: Clock;
  readonly #families: Families;
  readonly #known = new Map<number, Known>();
  readonly #walking = new Map<number, Promise<Exclusive | null>>();
  #lastAll: { readonly answer: readonly VolumeSpace[]; readonly at: number; readonly tookMs: number } | null = null;
  #askingAll: Promise<readonly VolumeSpace[]> | null = null;

  constructor(parts: { state: State; clock: Clock }) {
    this.#state = parts.state;
    this.#clock = parts.clock;
    this.#families = new Families(parts.state);
  }

  /** Numbers of all that may share something with an object. */
  relativesOf(object: StoredObject): Iterable<number> {
    return this.#families.relativesOf(object);
  }

  /** Records that were just applied. */
  note(records: readonly EngineRecord[]): void {
    this.#families.note(records);
    for (const record of records) if (record.type === 'delete') this.#known.delete(record.number);
  }

  /** Of what is not there nothing is said. */
  async of(ids: readonly string[]): Promise<VolumeSpace[]> {
    const found: VolumeSpace[] = [];
    for (const id of ids) {
      const object = this.#state.byId.get(id);
      const space = object === undefined ? null : await this.#space(object);
      if (space !== null) found.push(space);
    }
    return found;
  }

  all(): Promise<readonly VolumeSpace[]> {
    const last = this.#lastAll;
    if (last !== null && this.#clock.now() - last.at < last.tookMs * ALL_KEPT_TIMES)
      return Promise.resolve(last.answer);
    this.#askingAll ??= this.#askAll().finally(() => {
      this.#askingAll = null;
    });
    return this.#askingAll;
  }

  async #askAll(): Promise<readonly VolumeSpace[]> {
    const startedAt = this.#clock.now();
    const answer: VolumeSpace[] = [];
    let turnAt = startedAt;
    for (const object of [...this.#state.objects.values()]) {
      if (!this.#state.isThere(object)) continue;
      const space = await this.#space(object);
      if (space !== null) answer.push(space);
      if (this.#clock.now() - turnAt < TURN_MS_MAX) continue;
      await this.#clock.pause();
      turnAt = this.#clock.now();
    }
    this.#lastAll = { answer, at: this.#clock.now(), tookMs: this.#clock.now() - startedAt };
    return answer;
  }

  async #space(object: StoredObject): Promise<VolumeSpace | null> {
    const about = { id: object.id, kind: object.kind };
    try {
      const found = await this.#exclusive(object);
      if (found === null) return null;
      const mappedBytes = object.mapped * EXTENT_BYTES;
      const sharedBytes = Math.max(0, mappedBytes - found.mapped * EXTENT_BYTES);
      return { ...about, mappedBytes, sharedBytes, exclusiveBytes: (found.mapped + found.bases) * EXTENT_BYTES };
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      // A page that cannot be read: `quarry check` says which.
      return { ...about, mappedBytes: object.mapped * EXTENT_BYTES, sharedBytes: null, exclusiveBytes: null };
    }
  }

  async #exclusive(object: StoredObject): Promise<Exclusive | null> {
    const alone = this.#families.extentsOfOnly(object);
    if (alone !== null && alone >= object.mapped) return { mapped: object.mapped, bases: alone - object.mapped };
    const known = this.#known.get(object.number);
    if (known?.version === this.#families.version(object)) return known.found;
    const running = this.#walking.get(object.number);
    if (running !== undefined) return running;
    const walk = this.#walk(object).finally(() => this.#walking.delete(object.number));
    this.#walking.set(object.number, walk);
    return walk;
  }

  /** Null: it was deleted meanwhile. A walk of several turns beside writes says of each part what it was when it passed. */
  async #walk(object: StoredObject): Promise<Exclusive | null> {
    const version = this.#families.version(object);
    let [mapped, bases] = [0, 0];
    for (let firstLeaf: number | null = 0; firstLeaf !== null; ) {
      if (!this.#state.isThere(object)) return null;
      const part = exclusivePart(this.#state, object, { firstLeaf, pagesMax: PAGES_PER_TURN });
      mapped += part.mapped;
      bases += part.bases;
      firstLeaf = part.nextLeaf;
      if (firstLeaf !== null) await this.#clock.pause();
    }
    const found = { mapped, bases };
    if (version === this.#families.version(object)) this.#known.set(object.number, { version, found });
    return found;
  }
}
