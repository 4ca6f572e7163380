/** A clock that moves only when a test says so. */

import type { Clock } from '../../src/base/clock.ts';

type Timer = { readonly periodMs: number; readonly action: () => void; nextMs: number };

export class SimClock implements Clock {
  #nowMs = 1_000_000;
  readonly #timers = new Set<Timer>();

  now(): number {
    return this.#nowMs;
  }

  every(periodMs: number, action: () => void): () => void {
    const timer = { periodMs, action, nextMs: this.#nowMs + periodMs };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  pause(): Promise<void> {
    return Promise.resolve();
  }

  /** Time passes; what is due runs, in order. */
  advance(ms: number): void {
    const until = this.#nowMs + ms;
    for (;;) {
      const due = [...this.#timers].filter(({ nextMs }) => nextMs <= until).sort((a, b) => a.nextMs - b.nextMs)[0];
      if (due === undefined) break;
      this.#nowMs = due.nextMs;
      due.nextMs += due.periodMs;
      due.action();
    }
    this.#nowMs = until;
  }
}
