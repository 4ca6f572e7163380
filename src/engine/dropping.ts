/**
 * Deletion in the background: the drop list, a frame of the journal after the other. Each holds so much that it keeps the thread for
 * about a millisecond, and not less, since each waits for a sync. What a step does is the state's business.
 */

import type { Clock } from '../base/clock.ts';
import { Failure } from '../base/errors.ts';
import type { EngineRecord } from '../format/record.ts';
import type { State } from './state.ts';

/** Pages of which everything is counted down: about 1,000 counts each. 16 of them take about a millisecond. */
export const DROP_STEPS = 16;
/** Pages that others refer to, and that only lose a reference: tens of nanoseconds each. */
export const SHARED_STEPS_MAX = 8192;

/** A page that goes leaves up to 1,024 children on the list, most of which are shared where little is freed. */
export function dropSteps(state: State): number {
  const { drops, pages } = state;
  const taken = new Map<number, number>();
  let shared = 0;
  for (let at = drops.length - 1; at >= 0 && shared < SHARED_STEPS_MAX; at -= 1, shared += 1) {
    const id = drops[at] ?? 0;
    const before = taken.get(id) ?? 0;
    if (pages.references(id) - before <= 1) break;
    taken.set(id, before + 1);
  }
  return shared + DROP_STEPS;
}

export class Dropper {
  readonly #state: State;
  readonly #clock: Clock;
  readonly #append: (records: EngineRecord[]) => Promise<void>;
  #running: Promise<void> | null = null;
  #waiters: (() => void)[] = [];
  #isStopping = false;

  constructor(parts: { state: State; clock: Clock; append: (records: EngineRecord[]) => Promise<void> }) {
    this.#state = parts.state;
    this.#clock = parts.clock;
    this.#append = parts.append;
  }

  /** Until the list is empty but for what cannot be read; joins a run that is under way. Rejects when the pool fails. */
  run(): Promise<void> {
    if (this.#running === null && this.#state.drops.length === 0) return Promise.resolve();
    this.#running ??= this.#dropAll().finally(() => {
      this.#running = null;
      this.#wakeAll();
    });
    return this.#running;
  }

  get isRunning(): boolean {
    return this.#running !== null;
  }

  /** After the next frame of a run that is under way; null when there is none: nothing more comes back by itself. */
  next(): Promise<void> | null {
    if (this.#running === null) return null;
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  #wakeAll(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }

  stop(): void {
    this.#isStopping = true;
  }

  async ended(): Promise<void> {
    await this.#running;
  }

  /**
   * Each slice is a frame of its own, so that a crash goes on where it was and others come in between. A page that cannot be read is set
   * aside: what is below it stays taken until it can be, everything else is given back.
   */
  async #dropAll(): Promise<void> {
    let [isCareful, unreadable] = [false, 0];
    while (this.#state.drops.length > unreadable && !this.#isStopping) {
      // The ones set aside are at the far end: never more steps than there are others.
      const steps = isCareful ? 1 : Math.min(dropSteps(this.#state), this.#state.drops.length - unreadable);
      try {
        await this.#append([{ type: 'drop', steps }]);
        isCareful = false;
      } catch (error) {
        if (!(error instanceof Failure)) throw error;
        if (steps === 1) {
          await this.#append([{ type: 'drop', steps: 0 }]);
          unreadable += 1;
        }
        isCareful = steps > 1;
      }
      this.#wakeAll();
      await this.#clock.pause();
    }
  }
}
