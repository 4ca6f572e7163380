/**
 * Loads the Rust addon and speaks `Plane` to the engine. Decodes event records (layout: native/addon/src/abi.rs) and
 * turns operations that end later into promises; decides nothing. Imported by the engine's worker only.
 */

import { createRequire } from 'node:module';
import { Failure } from '../base/errors.ts';
import type { NativePlane } from './binding.d.ts';
import type {
  ConnectionLimits,
  ExportMode,
  Plane,
  PlaneEvent,
  PlaneStats,
  SpeedLimits,
  TlsOptions,
  VolumeHandle,
  VolumeStats,
} from './plane.ts';
import { CHANGE_WORDS, NO_VOLUME_STATS } from './plane.ts';

type Binding = {
  readonly NativePlane: new (limits: ConnectionLimits, wake: () => void) => NativePlane;
  notifyServiceManager(socket: string, state: string): void;
};

const KIND = {
  fault: 1,
  wantGrant: 2,
  captured: 3,
  released: 4,
  failed: 5,
  done: 6,
  question: 7,
  summed: 8,
  bytesWanted: 9,
} as const;
const EIO = 5;
const ENOSPC = 28;
const CLOSE_GRACE_MS = 5000;

export function loadBinding(): Binding {
  return createRequire(import.meta.url)('../../native/quarry.node') as Binding;
}

/** `onEvents` is called whenever `drain` has something to give. */
export function createPlane(limits: ConnectionLimits, onEvents: () => void): Plane {
  return new AddonPlane(limits, onEvents);
}

class AddonPlane implements Plane {
  readonly #native: NativePlane;
  readonly #onEvents: () => void;
  /** Operations that end with a `done` record, by id. */
  readonly #running = new Map<number, (errno: number) => void>();
  readonly #summing = new Map<number, (sums: Uint32Array) => void>();
  #lastId = 0;
  #waiting: PlaneEvent[] = [];

  constructor(limits: ConnectionLimits, onEvents: () => void) {
    this.#onEvents = onEvents;
    this.#native = new (loadBinding().NativePlane)(limits, () => this.#wake());
  }

  /** Ends operations here; whatever else there is waits for the engine to drain it. */
  #wake(): void {
    const records = this.#native.drain();
    const words = new Uint32Array(records.buffer, records.byteOffset, records.byteLength / 4);
    for (let at = 0; at < words.length; ) {
      const end = at + 2 + (words[at + 1] ?? 0);
      this.#record(words[at] ?? 0, words.subarray(at + 2, end));
      at = end;
    }
    if (this.#waiting.length > 0) this.#onEvents();
  }

  #record(kind: number, words: Uint32Array): void {
    const [first = 0, second = 0, third = 0] = words;
    switch (kind) {
      case KIND.fault:
        this.#waiting.push({ kind: 'fault', handle: first, leafIndex: second });
        return;
      case KIND.wantGrant:
        this.#waiting.push({ kind: 'want-grant', handle: first, wanted: second });
        return;
      case KIND.captured: {
        const changes = words.subarray(3, 3 + Math.floor((words.length - 3) / CHANGE_WORDS) * CHANGE_WORDS);
        const frozen = (third & 1) !== 0;
        this.#waiting.push({
          kind: 'captured',
          handle: first,
          token: second,
          frozen,
          last: (third & 2) !== 0,
          changes,
        });
        return;
      }
      case KIND.released:
        this.#waiting.push({ kind: 'released', handle: first, runs: words.subarray(1) });
        return;
      case KIND.failed:
        this.#waiting.push({ kind: 'failed', handle: first, fileNumber: second, errno: third });
        return;
      case KIND.question:
        this.#waiting.push({ kind: 'question', id: first, handle: second, snapshotId: uuidOf(words.subarray(2)) });
        return;
      case KIND.summed:
        this.#summing.get(first)?.(words.subarray(1));
        this.#summing.delete(first);
        return;
      case KIND.bytesWanted:
        this.#waiting.push({ kind: 'bytes-wanted', handle: first, index: second });
        return;
      case KIND.done: {
        const resolve = this.#running.get(first);
        this.#running.delete(first);
        resolve?.(second);
        return;
      }
      default:
        throw new Error(`the addon sent a record of unknown kind ${kind}: addon and program are of different builds`);
    }
  }

  #nextId(): number {
    this.#lastId = (this.#lastId + 1) >>> 0;
    return this.#lastId;
  }

  #start(begin: (id: number) => void): Promise<number> {
    const id = this.#nextId();
    return new Promise((resolve) => {
      this.#running.set(id, resolve);
      begin(id);
    });
  }

  async listen(address: string): Promise<string> {
    return this.#native.listen(address);
  }

  async listenInternally(path: string): Promise<void> {
    this.#native.listenInternally(path);
  }

  setTls(options: TlsOptions): void {
    try {
      this.#native.setTls(options);
    } catch (error) {
      throw new Failure('bad_request', { reason: `TLS for NBD: ${(error as Error).message}` });
    }
  }

  registerFile(fileNumber: number, path: string): void {
    this.#native.registerFile(fileNumber, path);
  }

  forgetFile(fileNumber: number): void {
    this.#native.forgetFile(fileNumber);
  }

  openVolume(options: { handle: VolumeHandle; sizeBytes: number; readOnly: boolean }): void {
    this.#native.openVolume(options.handle, options.sizeBytes, options.readOnly);
  }

  async closeVolume(handle: VolumeHandle): Promise<void> {
    await this.#start((id) => this.#native.closeVolume(handle, id));
  }

  resizeVolume(handle: VolumeHandle, sizeBytes: number): void {
    this.#native.resizeVolume(handle, sizeBytes);
  }

  setLimits(handle: VolumeHandle, limits: SpeedLimits): void {
    this.#native.setLimits(handle, limits);
  }

  publish({ name, handle, ...mode }: { name: string; handle: VolumeHandle } & ExportMode): void {
    this.#native.publish(name, handle, mode);
  }

  publishFill({ name, handle }: { name: string; handle: VolumeHandle }): void {
    this.#native.publishFill(name, handle);
  }

  beginFill(handle: VolumeHandle, runs: Uint32Array): void {
    this.#native.beginFill(handle, [...runs]);
  }

  narrowFill(handle: VolumeHandle, runs: Uint32Array): void {
    this.#native.narrowFill(handle, [...runs]);
  }

  failFill(handle: VolumeHandle, index: number): void {
    this.#native.failFill(handle, index);
  }

  endFill(handle: VolumeHandle): void {
    this.#native.endFill(handle);
  }

  async unpublish(name: string): Promise<void> {
    await this.#start((id) => this.#native.unpublish(name, id));
  }

  loadLeaf(handle: VolumeHandle, leafIndex: number, page: Uint8Array): void {
    this.#native.loadLeaf(handle, leafIndex, page);
  }

  loadHoles(handle: VolumeHandle, firstLeaf: number, count: number): void {
    this.#native.loadHoles(handle, firstLeaf, count);
  }

  failLeaf(handle: VolumeHandle, leafIndex: number): void {
    this.#native.failLeaf(handle, leafIndex);
  }

  dropLeaves(handle: VolumeHandle): void {
    this.#native.dropLeaves(handle);
  }

  fill(handle: VolumeHandle, indices: readonly number[]): boolean {
    return this.#native.fill(handle, [...indices]);
  }

  grant(handle: VolumeHandle, firstAddress: number, count: number): void {
    if (this.#native.grant(handle, firstAddress, count)) return;
    // The volume went away while the grant was on its way: the extents come back as any unused ones do.
    this.#waiting.push({ kind: 'released', handle, runs: Uint32Array.of(firstAddress, count) });
    this.#onEvents();
  }

  returnGrants(handle: VolumeHandle): void {
    this.#native.returnGrants(handle);
  }

  refuse(handle: VolumeHandle, _errno: number): void {
    this.#native.refuse(handle);
  }

  flush(handle: VolumeHandle, token: number): void {
    if (!this.#native.flush(handle, token)) this.#answerForGone(handle);
  }

  freeze(handle: VolumeHandle, token: number): void {
    if (!this.#native.freeze(handle, token)) this.#answerForGone(handle);
  }

  freezeTogether(members: readonly { readonly handle: VolumeHandle; readonly token: number }[]): void {
    const unknown = this.#native.freezeTogether(members.flatMap(({ handle, token }) => [handle, token]));
    for (const { handle, token } of members) if (unknown.includes(token)) this.#answerForGone(handle);
  }

  #answerForGone(handle: VolumeHandle): void {
    this.#waiting.push({ kind: 'failed', handle, fileNumber: 0, errno: EIO });
    this.#onEvents();
  }

  committed(token: number, errno: number): void {
    this.#native.committed(token, errno);
  }

  answer(id: number, words: BigUint64Array | null): void {
    this.#native.answer(id, words === null ? null : new Uint8Array(words.buffer, words.byteOffset, words.byteLength));
  }

  advanceEpoch(): number {
    return this.#native.advanceEpoch();
  }

  quiescedEpoch(): number {
    return this.#native.quiescedEpoch();
  }

  async allocateRun(fileNumber: number, firstSlot: number, count: number): Promise<boolean> {
    const errno = await this.#start((id) => this.#native.allocateRun(fileNumber, firstSlot, count, id));
    if (errno !== 0 && errno !== ENOSPC)
      throw new Error(`fallocate of extent file ${fileNumber} failed with errno ${errno}`);
    return errno === 0;
  }

  async punchRun(fileNumber: number, firstSlot: number, count: number): Promise<void> {
    const errno = await this.#start((id) => this.#native.punchRun(fileNumber, firstSlot, count, id));
    if (errno !== 0) throw new Error(`punching a hole in extent file ${fileNumber} failed with errno ${errno}`);
  }

  async sumRun(fileNumber: number, firstSlot: number, count: number): Promise<Uint32Array> {
    const sums = new Uint32Array(count);
    const found = await new Promise<Uint32Array>((resolve) => {
      const id = this.#nextId();
      this.#summing.set(id, resolve);
      this.#native.sumRun(fileNumber, firstSlot, count, id);
    });
    sums.set(found.subarray(0, count));
    return sums;
  }

  setDamaged(addresses: readonly number[], isDamaged: boolean): void {
    this.#native.setDamaged([...addresses], isDamaged);
  }

  drain(): PlaneEvent[] {
    const events = this.#waiting;
    this.#waiting = [];
    return events;
  }

  stats(): PlaneStats {
    return this.#native.stats();
  }

  volumeStats(handle: VolumeHandle): VolumeStats {
    return this.#native.volumeStats(handle) ?? NO_VOLUME_STATS;
  }

  async close(): Promise<void> {
    await this.#native.close(CLOSE_GRACE_MS);
  }
}

/** Null of no words. */
function uuidOf(words: Uint32Array): string | null {
  if (words.length === 0) return null;
  const digits = [...words].map((word) => word.toString(16).padStart(8, '0')).join('');
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}
