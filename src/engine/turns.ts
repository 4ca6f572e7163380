/** Operations on the same object, one after the other in the order in which they were asked for. */
import { Failure } from '../base/errors.ts';

export class Turns {
  readonly #queues = new Map<string, Promise<unknown>>();
  #isClosed = false;

  /** Places in all queues are taken at once, so nobody waits in a circle. */
  async take<T>(ids: readonly string[], work: () => Promise<T>): Promise<T> {
    if (this.#isClosed) throw new Failure('shutting_down');
    // None of these rejects.
    const result = Promise.all(ids.map((id) => this.#queues.get(id))).then(work);
    const settled = result.catch(() => {});
    for (const id of ids) this.#queues.set(id, settled);
    try {
      return await result;
    } finally {
      for (const id of ids) if (this.#queues.get(id) === settled) this.#queues.delete(id);
    }
  }

  /** Nothing more is begun; resolves when what was has ended. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.allSettled(this.#queues.values());
  }
}
