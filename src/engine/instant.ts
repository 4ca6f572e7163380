/**
 * Several volumes frozen at one instant. What was captured of each is applied when it comes, and none of them goes on before all
 * have come and what is recorded of the instant is applied: so each still is what it was then. Knows nothing of what that is.
 */

import type { Opened } from './exports.ts';

/** One volume's part; only the first call counts. */
export type Part = {
  /** It is applied; `release` lets the volume go on. */
  arrive(release: () => void): void;
  /** It cannot take part: then nothing is recorded of any. */
  fail(error: Error): void;
};

export class Instant {
  /** Settles when what is recorded of the instant is durable, or cannot be. */
  readonly done: Promise<void>;
  readonly #members: readonly Opened[];
  readonly #record: () => Promise<void>;
  readonly #releases: (() => void)[] = [];
  #missing: number;
  #failure: Error | null = null;
  #settle!: (work: Promise<void>) => void;

  /** `record` applies, throws at once what keeps it from doing so, and resolves when it is durable. */
  constructor(members: readonly Opened[], record: () => Promise<void>) {
    this.#members = members;
    this.#record = record;
    this.#missing = members.length;
    this.done = new Promise((resolve) => {
      this.#settle = resolve;
    });
    // Until the end no leaf may be given with own entries.
    for (const opened of members) opened.freezing += 1;
  }

  part(): Part {
    let isCounted = false;
    const count = (note: () => void): void => {
      if (isCounted) return;
      isCounted = true;
      note();
      this.#count();
    };
    return {
      arrive: (release) => count(() => this.#releases.push(release)),
      fail: (error) =>
        count(() => {
          this.#failure ??= error;
        }),
    };
  }

  #count(): void {
    this.#missing -= 1;
    if (this.#missing > 0) return;
    this.#settle(this.#recorded());
    for (const opened of this.#members) opened.freezing -= 1;
    for (const release of this.#releases) release();
  }

  #recorded(): Promise<void> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    try {
      return this.#record();
    } catch (error) {
      return Promise.reject(error);
    }
  }
}
