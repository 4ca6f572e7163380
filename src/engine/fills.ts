/**
 * Volumes that are being filled while they are served: which they are, for as long as the process lives, and what the plane is
 * told of it. What is absent in them is still to come, so nothing that reads absent as zeros may happen to them: no snapshot, no
 * clone, no revert. Where the bytes come from is not known here.
 */

import { Failure } from '../base/errors.ts';
import { EXTENT_BYTES, type Plane } from '../native/plane.ts';
import type { Exports } from './exports.ts';
import type { StoredObject } from './state.ts';
import type { FillRange } from './volume-store.ts';

export class Fills {
  readonly #plane: Plane;
  readonly #exports: Exports;
  readonly #numbers = new Set<number>();

  constructor(plane: Plane, exports: Exports) {
    this.#plane = plane;
    this.#exports = exports;
  }

  begin(volume: StoredObject, ranges: readonly FillRange[]): void {
    if (this.#numbers.has(volume.number)) return;
    const runs = runsOf(ranges, volume.sizeBytes);
    const opened = this.#exports.open(volume);
    // Whoever reads it through one of them may have been told that absent is zeros.
    if (opened.names.size > 0) {
      const reason = `Volume ${volume.id} is published already; a fill begins before that.`;
      throw new Failure('conflict', { reason });
    }
    this.#plane.beginFill(opened.handle, runs);
    this.#numbers.add(volume.number);
  }

  narrow(volume: StoredObject | undefined, ranges: readonly FillRange[]): void {
    const handle = this.#handleOf(volume);
    if (volume !== undefined && handle !== null) this.#plane.narrowFill(handle, runsOf(ranges, volume.sizeBytes));
  }

  fail(volume: StoredObject | undefined, offset: number): void {
    const handle = this.#handleOf(volume);
    if (handle !== null) this.#plane.failFill(handle, Math.floor(offset / EXTENT_BYTES));
  }

  end(volume: StoredObject | undefined): void {
    const handle = this.#handleOf(volume);
    if (volume === undefined || handle === null) return;
    this.#plane.endFill(handle);
    this.#numbers.delete(volume.number);
  }

  publish(volume: StoredObject, name: string): void {
    if (!this.#numbers.has(volume.number))
      throw new Failure('wrong_state', { reason: `Invalid volume: volume ${volume.id} is not being filled.` });
    this.#exports.publishFill(this.#exports.open(volume), name);
  }

  /** Before what takes absent for zeros. */
  refuse({ number, id }: StoredObject): void {
    if (!this.#numbers.has(number)) return;
    const reason = `Invalid volume: volume ${id} is still being filled from a backup. Wait until that has ended.`;
    throw new Failure('wrong_state', { reason });
  }

  forget({ number }: StoredObject): void {
    this.#numbers.delete(number);
  }

  #handleOf(volume: StoredObject | undefined): number | null {
    if (volume === undefined || !this.#numbers.has(volume.number)) return null;
    return this.#exports.of(volume)?.handle ?? null;
  }
}

function runsOf(ranges: readonly FillRange[], sizeBytes: number): Uint32Array {
  return Uint32Array.from(
    ranges.flatMap(({ offset, length }) => {
      const end = offset + length;
      const isWhole = offset % EXTENT_BYTES === 0 && (end % EXTENT_BYTES === 0 || end === sizeBytes);
      if (!isWhole || offset < 0 || length <= 0 || end > sizeBytes)
        throw new Failure('bad_request', {
          reason: `A fill of ${length} bytes at ${offset} is not of whole extents inside of ${sizeBytes} bytes.`,
        });
      return [offset / EXTENT_BYTES, Math.ceil(length / EXTENT_BYTES)];
    }),
  );
}
