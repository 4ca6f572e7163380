/**
 * Answers the plane: faults with leaves, wants with grants, captures with commits. Keeps the order that makes snapshots
 * right: what a freeze captured is applied, then the record made for that instant, in one turn.
 */

import type { Clock } from '../base/clock.ts';
import { Failure } from '../base/errors.ts';
import { leafPayload } from '../format/page.ts';
import type { EngineRecord } from '../format/record.ts';
import {
  CHANGE_WORDS,
  ENTRY_OWN,
  EXTENT_BYTES,
  LEAF_BASES_OFFSET,
  LEAF_BYTES,
  LEAF_ENTRIES,
  type Plane,
  type PlaneEvent,
} from '../native/plane.ts';
import { absentLeaves } from './absent-leaves.ts';
import type { Exports, Opened } from './exports.ts';
import { Instant, type Part } from './instant.ts';
import { Questions } from './questions.ts';
import type { Space } from './space.ts';
import type { State } from './state.ts';
import type { StoreEvent } from './volume-store.ts';

const EIO = 5;
/** Changes applied in one turn. After a snapshot each may copy a leaf, which takes up to 100 us (bench/engine): at worst 13 ms. */
const SLICE_WORDS = 128 * CHANGE_WORDS;

/** A capture that the engine asked for. */
type Wanted = {
  readonly opened: Opened;
  /** Records of the instant, made when the last part has been applied. */
  readonly records: () => EngineRecord[];
  readonly isFreeze: boolean;
  /** Of an instant of several volumes; then there are no records of its own. */
  readonly part: Part | null;
  resolve(): void;
  reject(error: Error): void;
};

export class PlaneServant {
  readonly #plane: Plane;
  readonly #state: State;
  readonly #space: Space;
  readonly #exports: Exports;
  readonly #clock: Clock;
  readonly #append: (records: EngineRecord[]) => Promise<void>;
  readonly #onEvent: (event: StoreEvent) => void;
  readonly #onFatal: (error: Error) => void;
  readonly #questions: Questions;
  readonly #wanted = new Map<number, Wanted>();
  #lastToken = 0;
  /** Not applied yet, oldest first. */
  readonly #captures: (PlaneEvent & { kind: 'captured' })[] = [];
  #isCommitting = false;
  /** For leaves on their way to the plane, which copies them at once. */
  readonly #scratch = new Uint8Array(LEAF_BYTES);

  constructor(parts: {
    plane: Plane;
    state: State;
    space: Space;
    exports: Exports;
    clock: Clock;
    append: (records: EngineRecord[]) => Promise<void>;
    onEvent: (event: StoreEvent) => void;
    onFatal: (error: Error) => void;
  }) {
    this.#plane = parts.plane;
    this.#state = parts.state;
    this.#space = parts.space;
    this.#exports = parts.exports;
    this.#clock = parts.clock;
    this.#append = parts.append;
    this.#onEvent = parts.onEvent;
    this.#onFatal = parts.onFatal;
    this.#questions = new Questions({ ...parts, commit: (opened) => this.commit(opened) });
  }

  serve(): void {
    for (const event of this.#plane.drain()) {
      // Captures can be long; whoever waits for a leaf or an extent must not wait for them.
      if (event.kind === 'captured') this.#captures.push(event);
      else this.#guarded(() => this.#serveOne(event));
    }
    if (this.#captures.length > 0 && !this.#isCommitting) void this.#serveCaptures();
  }

  #guarded(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#onFatal(error instanceof Error ? error : new Error(String(error)));
    }
  }

  /** One after the other, a slice per turn: the order among captures is what the journal keeps. */
  async #serveCaptures(): Promise<void> {
    this.#isCommitting = true;
    for (let event = this.#captures[0]; event !== undefined; event = this.#captures[0]) {
      const { changes } = event;
      const isWhole = changes.length <= SLICE_WORDS;
      const slice = isWhole ? event : { ...event, last: false, changes: changes.subarray(0, SLICE_WORDS) };
      if (isWhole) this.#captures.shift();
      else this.#captures[0] = { ...event, changes: changes.subarray(SLICE_WORDS) };
      this.#guarded(() => this.#serveCapture(this.#exports.get(event.handle), slice));
      if (this.#captures.length > 0) await this.#clock.pause();
    }
    this.#isCommitting = false;
  }

  #serveOne(event: PlaneEvent): void {
    const opened = this.#exports.get(event.handle);
    switch (event.kind) {
      case 'fault':
        if (opened !== undefined) this.#serveFault(opened, event.leafIndex);
        return;
      case 'want-grant':
        if (opened !== undefined) this.#space.supply(opened).catch(this.#onFatal);
        return;
      case 'question':
        return this.#questions.serve(opened, event);
      case 'captured':
        // Queued by `serve`.
        return;
      case 'bytes-wanted':
        if (opened === undefined) return;
        return this.#onEvent({ kind: 'bytes-wanted', id: opened.object.id, offset: event.index * EXTENT_BYTES });
      case 'released':
        return this.#space.released(event.runs);
      case 'failed':
        return this.#serveFailure(opened, event);
    }
  }

  /** Own entries: every page on the way and the extent itself have one reference, and no freeze is under way. */
  #serveFault(opened: Opened, leafIndex: number): void {
    try {
      const { page, isExclusive } = this.#state.leaf(opened.object, leafIndex);
      if (page === null) {
        const count = absentLeaves(this.#state, opened.object, leafIndex);
        return this.#plane.loadHoles(opened.handle, leafIndex, count);
      }
      const isWritable = isExclusive && opened.freezing === 0 && opened.object.kind === 'volume';
      const sealed = isWritable ? this.#sealedAlone(page.words) : [];
      if (sealed.length > 0) return this.#unseal(opened, leafIndex, sealed);
      const scratch = this.#scratch;
      scratch.set(leafPayload(page));
      const hasBases = page.bases.some((base) => base !== 0);
      if (isWritable) this.#markOwn(page.words, scratch);
      this.#plane.loadLeaf(opened.handle, leafIndex, hasBases ? scratch : scratch.subarray(0, LEAF_BASES_OFFSET));
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      // A damaged page: whoever needs it gets EIO, everybody else goes on.
      this.#plane.failLeaf(opened.handle, leafIndex);
      this.#onEvent({ kind: 'volume-failed', id: opened.object.id, reason: error.message });
    }
  }

  /** What would be written in place and has a sum. */
  #sealedAlone(words: Uint32Array): number[] {
    const sealed: number[] = [];
    for (let position = 0; position < LEAF_ENTRIES; position += 1) {
      const extent = words[position * 2] ?? 0;
      if (extent !== 0 && this.#state.sumOf(extent) !== 0 && this.#isAlone(extent)) sealed.push(extent);
    }
    return sealed;
  }

  /** The snapshots that kept them are gone. Their sums go before the first write: one that outlived it would call it damage. */
  #unseal(opened: Opened, leafIndex: number, addresses: readonly number[]): void {
    const pairs = Uint32Array.from(addresses.flatMap((address) => [address, 0]));
    this.#append([{ type: 'sums', pairs }]).then(
      // As things are then: another snapshot may keep them.
      () => this.#guarded(() => this.#exports.get(opened.handle) === opened && this.#serveFault(opened, leafIndex)),
      // The journal failed: the process is about to end.
      () => {},
    );
  }

  #markOwn(words: Uint32Array, target: Uint8Array): void {
    for (let position = 0; position < LEAF_ENTRIES; position += 1) {
      const extent = words[position * 2] ?? 0;
      if (extent !== 0 && this.#isAlone(extent)) target[position * 8 + 6] = ENTRY_OWN;
    }
  }

  /** An extent whose count cannot be read may have others: it can be read, and is not written in place. */
  #isAlone(extent: number): boolean {
    try {
      return this.#state.extentReferences(extent) === 1 && !this.#state.damaged.has(extent);
    } catch (error) {
      if (error instanceof Failure) return false;
      throw error;
    }
  }

  #serveCapture(opened: Opened | undefined, event: PlaneEvent & { kind: 'captured' }): void {
    const { token, last } = event;
    const wanted = this.#wanted.get(token);
    if (opened === undefined) {
      // Its object is gone; nobody can be waiting for these bytes.
      if (!last) return;
      this.#plane.committed(token, EIO);
      this.#wanted.delete(token);
      wanted?.reject(new Failure('io_error', { reason: 'the volume was closed' }));
      return;
    }
    const { number } = opened.object;
    const records: EngineRecord[] =
      event.changes.length > 0 ? [{ type: 'changes', number, changes: event.changes }] : [];
    if (!last) {
      // The last part's durability includes this one's. What keeps it from being applied must be known when the last part comes.
      if (opened.failure === null) this.#attempt(opened, records).catch((error: Error) => this.#giveUp(opened, error));
      return;
    }
    if (wanted !== undefined) {
      this.#wanted.delete(token);
      if (wanted.isFreeze) opened.freezing -= 1;
    }
    if (opened.failure !== null) {
      // A volume whose changes could not be taken once must not be told that later ones are all there is.
      this.#plane.committed(token, EIO);
      wanted?.reject(new Failure('io_error', { reason: opened.failure }));
      return;
    }
    if (wanted !== undefined) {
      try {
        records.push(...wanted.records());
      } catch (error) {
        wanted.reject(error instanceof Error ? error : new Error(String(error)));
      }
    }
    const durable = records.length > 0 ? this.#attempt(opened, records) : Promise.resolve();
    const answer = (): void => this.#answer(opened, token, durable, wanted);
    // What could not be applied has failed its volume already, and is no part of anything.
    if (!wanted?.part || opened.failure !== null) return answer();
    durable.catch(() => {});
    wanted.part.arrive(answer);
  }

  #answer(opened: Opened, token: number, durable: Promise<void>, wanted: Wanted | undefined): void {
    durable.then(
      () => {
        this.#plane.committed(token, 0);
        wanted?.resolve();
      },
      (error: Error) => {
        this.#giveUp(opened, error);
        this.#plane.committed(token, EIO);
        wanted?.reject(error);
      },
    );
  }

  /** Fails the volume at once when the records cannot be applied. */
  #attempt(opened: Opened, records: EngineRecord[]): Promise<void> {
    try {
      return this.#append(records);
    } catch (error) {
      const reason = error instanceof Error ? error : new Error(String(error));
      this.#giveUp(opened, reason);
      return Promise.reject(reason);
    }
  }

  /** Its changes could not be applied: what the plane has is ahead for good, so the volume refuses I/O (law 5). */
  #giveUp(opened: Opened, error: Error): void {
    if (opened.failure !== null) return;
    opened.failure = error.message;
    this.#onEvent({ kind: 'volume-failed', id: opened.object.id, reason: error.message });
  }

  #serveFailure(opened: Opened | undefined, event: PlaneEvent & { kind: 'failed' }): void {
    const reason = `syncing extent file ${event.fileNumber} failed with errno ${event.errno}`;
    // Also those of a handle that was closed before its capture could begin.
    for (const [token, wanted] of this.#wanted) {
      if (wanted.opened.handle !== event.handle) continue;
      this.#wanted.delete(token);
      if (wanted.isFreeze) wanted.opened.freezing -= 1;
      wanted.reject(new Failure('io_error', { reason }));
    }
    if (opened === undefined || opened.failure !== null) return;
    opened.failure = reason;
    this.#onEvent({ kind: 'volume-failed', id: opened.object.id, reason });
  }

  /** Resolves when everything written before is committed. */
  commit(opened: Opened): Promise<void> {
    return this.#want(opened, false, () => []);
  }

  /** Resolves when the records made at one instant of the volume's writes, and those writes, are durable. */
  freeze(opened: Opened, records: () => EngineRecord[]): Promise<void> {
    opened.freezing += 1;
    return this.#want(opened, true, records);
  }

  /**
   * The same at one instant of several volumes, each named once: the records are one append, so a crash leaves all of them or
   * none. Fails, and records nothing, when one of the volumes cannot be frozen.
   */
  freezeTogether(members: readonly Opened[], records: () => EngineRecord[]): Promise<void> {
    const instant = new Instant(members, () => this.#append(records()));
    const asked = members.map((opened) => {
      const token = this.#nextToken();
      const part = instant.part();
      this.#wanted.set(token, {
        opened,
        records: () => [],
        isFreeze: false,
        part,
        resolve() {},
        reject: part.fail,
      });
      return { handle: opened.handle, token };
    });
    this.#plane.freezeTogether(asked);
    return instant.done;
  }

  #nextToken(): number {
    this.#lastToken = (this.#lastToken + 1) & 0x7fffffff;
    return this.#lastToken;
  }

  #want(opened: Opened, isFreeze: boolean, records: () => EngineRecord[]): Promise<void> {
    const token = this.#nextToken();
    return new Promise((resolve, reject) => {
      this.#wanted.set(token, { opened, records, isFreeze, part: null, resolve, reject });
      if (isFreeze) this.#plane.freeze(opened.handle, token);
      else this.#plane.flush(opened.handle, token);
    });
  }

  /** By the timer: what was written and never flushed becomes durable, and the plane's lists stay short. */
  commitAll(): void {
    for (const opened of this.#exports.all()) {
      if (opened.object.kind !== 'volume' || opened.failure !== null) continue;
      // A failure has its own event.
      this.commit(opened).catch(() => {});
    }
  }
}
