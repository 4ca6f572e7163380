/**
 * How much may be promised and how full the pool is: volumes are thin, so together they may be larger than the disk, up to a ratio;
 * and as it fills up, somebody is told before writers notice. Knows sizes and the filesystem's free space, not what is mapped.
 */

import { Failure } from '../base/errors.ts';
import type { Files } from '../base/files.ts';
import { EXTENT_BYTES } from '../native/plane.ts';
import type { PoolSettings } from './settings.ts';
import type { State } from './state.ts';
import type { PoolLevel, StoreEvent } from './volume-store.ts';

/** A level ends this much below where it begins, so that a pool at the edge is not talked about each second. */
const EASING_PERCENT = 1;
const GIB = 2 ** 30;

export class Provisioning {
  readonly #state: State;
  readonly #files: Files;
  readonly #settings: PoolSettings;
  readonly #comingBytes: () => number;
  readonly #onEvent: (event: StoreEvent) => void;
  #level: PoolLevel = 'ok';

  constructor(parts: {
    state: State;
    files: Files;
    settings: PoolSettings;
    /** Freed and on its way back to the filesystem. */
    comingBytes: () => number;
    onEvent: (event: StoreEvent) => void;
  }) {
    this.#state = parts.state;
    this.#files = parts.files;
    this.#settings = parts.settings;
    this.#comingBytes = parts.comingBytes;
    this.#onEvent = parts.onEvent;
  }

  /** What all volumes would take if they were full. */
  get provisionedBytes(): number {
    let sum = 0;
    for (const { kind, sizeBytes } of this.#state.objects.values()) if (kind === 'volume') sum += sizeBytes;
    return sum;
  }

  /** A new volume of that size, or one that grows by it, is refused as schedulers of the Block Storage API do it. */
  require(addedBytes: number): void {
    const { maxOverSubscription: max, reservedPercentage, reserveBytes } = this.#settings;
    if (max === Number.POSITIVE_INFINITY) return;
    const { totalBytes, freeBytes } = this.#files.space();
    const wantedBytes = this.provisionedBytes + addedBytes;
    if (wantedBytes > totalBytes * max) {
      const ratio = (wantedBytes / totalBytes).toFixed(2);
      throw new Failure('no_backend', {
        reason: `volumes of ${gib(wantedBytes)} GiB in all would be ${ratio} times the pool's ${gib(totalBytes)} GiB, and max_over_subscription_ratio is ${max}. Delete volumes or raise it.`,
      });
    }
    const keptBytes = reserveBytes + Math.floor((totalBytes * reservedPercentage) / 100);
    const usableBytes = Math.max(0, freeBytes + this.#comingBytes() - keptBytes);
    if (usableBytes * max >= addedBytes) return;
    throw new Failure('no_backend', {
      reason: `${gib(addedBytes)} GiB are wanted and ${gib(usableBytes)} GiB are free for new volumes, which may be ${max} times that (max_over_subscription_ratio). Delete or trim something.`,
    });
  }

  get level(): PoolLevel {
    const { lowPercentage, criticalPercentage, reserveBytes } = this.#settings;
    const { totalBytes, freeBytes } = this.#files.space();
    const roomBytes = freeBytes - reserveBytes;
    if (roomBytes < EXTENT_BYTES) return 'full';
    const used = 100 * (1 - roomBytes / Math.max(roomBytes, totalBytes - reserveBytes));
    const reaches = (level: PoolLevel, percent: number): boolean =>
      used >= percent - (LEVELS.indexOf(this.#level) >= LEVELS.indexOf(level) ? EASING_PERCENT : 0);
    if (reaches('critical', criticalPercentage)) return 'critical';
    return reaches('low', lowPercentage) ? 'low' : 'ok';
  }

  /** Called now and then: tells when the level is another one than the last time. */
  watch(): void {
    const { level } = this;
    if (level === this.#level) return;
    this.#level = level;
    this.#onEvent({ kind: 'pool-level', level, freeBytes: this.#files.space().freeBytes });
  }
}

const LEVELS: readonly PoolLevel[] = ['ok', 'low', 'critical', 'full'];

function gib(bytes: number): string {
  return (bytes / GIB).toFixed(2).replace(/\.?0+$/, '');
}
