/**
 * Order and bounds for work that overlaps: results in the order of their sources while several are under way, and
 * uploads that go on beside it, a few at a time. It knows promises, not what they are for.
 */

/** Yields `work` of each item in order, at most `depth` under way. The source is read ahead as far. */
export async function* inOrder<Item, Result>(
  source: AsyncIterable<Item>,
  depth: number,
  work: (item: Item) => Promise<Result>,
): AsyncGenerator<Result> {
  const items = source[Symbol.asyncIterator]();
  const underWay: Promise<Result>[] = [];
  let isDone = false;
  try {
    for (;;) {
      while (!isDone && underWay.length < depth) {
        const next = await items.next();
        if (next.done) isDone = true;
        else {
          const result = work(next.value);
          // A failure is thrown where it is awaited; until then nobody else may find it unhandled.
          result.catch(() => {});
          underWay.push(result);
        }
      }
      const first = underWay.shift();
      if (first === undefined) return;
      yield await first;
    }
  } finally {
    await Promise.allSettled(underWay);
    await items.return?.();
  }
}

/** Work that nobody waits for one by one. A failure surfaces at the next `add` or at `settled`. */
export class Background {
  readonly #atOnceMax: number;
  readonly #underWay = new Set<Promise<void>>();
  #failure: { readonly error: unknown } | null = null;

  constructor(options: { atOnceMax: number }) {
    this.#atOnceMax = options.atOnceMax;
  }

  /** Returns when the work has begun. */
  async add(work: () => Promise<void>): Promise<void> {
    while (this.#underWay.size >= this.#atOnceMax) await Promise.race(this.#underWay);
    this.#throwFailure();
    const job: Promise<void> = work()
      .catch((error: unknown) => {
        this.#failure ??= { error };
      })
      .finally(() => this.#underWay.delete(job));
    this.#underWay.add(job);
  }

  /** Ends with the first failure, after everything under way has ended. */
  async settled(): Promise<void> {
    await this.idle();
    this.#throwFailure();
  }

  async idle(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.all(this.#underWay);
  }

  #throwFailure(): void {
    if (this.#failure !== null) throw this.#failure.error;
  }
}
