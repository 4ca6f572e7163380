/**
 * Answers the plane: faults with leaves, wants with grants, captures with commits. Keeps the order that makes snapshots
 * right: what a freeze captured is applied, then the record made for that instant, in one turn.
 */

import { Failure } from '../base/errors.ts';
import { leafPayload } from '../format/page.ts';
import type { EngineRecord } from '../format/record.ts';
import {
  ENTRY_OWN,
  LEAF_BASES_OFFSET,
  LEAF_BYTES,
  LEAF_ENTRIES,
  type Plane,
  type PlaneEvent,
} from '../native/plane.ts';
import type { EngineEvent } from './engine.ts';
import type { Exports, Opened } from './exports.ts';
import type { Space } from './space.ts';
import type { State } from './state.ts';

const EIO = 5;

/** A capture that the engine asked for. */
type Wanted = {
  readonly opened: Opened;
  /** Records of the instant, made when the last part has been applied. */
  readonly records: () => EngineRecord[];
  readonly isFreeze: boolean;
  resolve(): void;
  reject(error: Error): void;
};

export class PlaneServant {
  readonly #plane: Plane;
  readonly #state: State;
  readonly #space: Space;
  readonly #exports: Exports;
  readonly #append: (records: EngineRecord[]) => Promise<void>;
  readonly #onEvent: (event: EngineEvent) => void;
  readonly #onFatal: (error: Error) => void;
  readonly #wanted = new Map<number, Wanted>();
  #lastToken = 0;
  /** For leaves on their way to the plane, which copies them at once. */
  readonly #scratch = new Uint8Array(LEAF_BYTES);
  readonly #empty = new Uint8Array(LEAF_BASES_OFFSET);

  constructor(parts: {
    plane: Plane;
    state: State;
    space: Space;
    exports: Exports;
    append: (records: EngineRecord[]) => Promise<void>;
    onEvent: (event: EngineEvent) => void;
    onFatal: (error: Error) => void;
  }) {
    this.#plane = parts.plane;
    this.#state = parts.state;
    this.#space = parts.space;
    this.#exports = parts.exports;
    this.#append = parts.append;
    this.#onEvent = parts.onEvent;
    this.#onFatal = parts.onFatal;
  }

  serve(): void {
    for (const event of this.#plane.drain()) {
      try {
        this.#serveOne(event);
      } catch (error) {
        this.#onFatal(error instanceof Error ? error : new Error(String(error)));
      }
    }
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
      case 'captured':
        return this.#serveCapture(opened, event);
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
      if (page === null) return this.#plane.loadLeaf(opened.handle, leafIndex, this.#empty);
      const scratch = this.#scratch;
      scratch.set(leafPayload(page));
      const hasBases = page.bases.some((base) => base !== 0);
      if (isExclusive && opened.freezing === 0 && opened.object.kind === 'volume') this.#markOwn(page.words, scratch);
      this.#plane.loadLeaf(opened.handle, leafIndex, hasBases ? scratch : scratch.subarray(0, LEAF_BASES_OFFSET));
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      // A damaged page: whoever needs it gets EIO, everybody else goes on.
      this.#plane.failLeaf(opened.handle, leafIndex);
      this.#onEvent({ kind: 'volume-failed', id: opened.object.id, reason: error.message });
    }
  }

  #markOwn(words: Uint32Array, target: Uint8Array): void {
    for (let position = 0; position < LEAF_ENTRIES; position += 1) {
      const extent = words[position * 2] ?? 0;
      if (extent !== 0 && this.#state.extentReferences(extent) === 1) target[position * 8 + 6] = ENTRY_OWN;
    }
  }

  #serveCapture(opened: Opened | undefined, event: PlaneEvent & { kind: 'captured' }): void {
    const { token, last } = event;
    const wanted = this.#wanted.get(token);
    if (opened === undefined) {
      // Its object is gone; nobody can be waiting for these bytes.
      if (last) this.#plane.committed(token, EIO);
      return;
    }
    const { number } = opened.object;
    const records: EngineRecord[] =
      event.changes.length > 0 ? [{ type: 'changes', number, changes: event.changes }] : [];
    if (!last) {
      // The last part's durability includes this one's.
      this.#append(records).catch((error: Error) => this.#giveUp(opened, error));
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
    const durable = records.length > 0 ? this.#append(records) : Promise.resolve();
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

  #want(opened: Opened, isFreeze: boolean, records: () => EngineRecord[]): Promise<void> {
    this.#lastToken = (this.#lastToken + 1) & 0x7fffffff;
    const token = this.#lastToken;
    return new Promise((resolve, reject) => {
      this.#wanted.set(token, { opened, records, isFreeze, resolve, reject });
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
