/**
 * One piece of work that runs beside everything else, at most once at a time, and is remembered until the next: for what
 * belongs to the whole daemon and not to an object. It outlives no restart.
 */
import { Failure } from '../base/errors.ts';

export type BackgroundState<Result> =
  | { readonly state: 'never' | 'running' }
  | { readonly state: 'done'; readonly endedAtUs: number; readonly result: Result }
  | { readonly state: 'failed'; readonly endedAtUs: number; readonly reason: string };

export class Background<Result> {
  readonly #title: string;
  readonly #nowUs: () => number;
  #state: BackgroundState<Result> = { state: 'never' };
  #work: Promise<void> = Promise.resolve();

  /** `title` as in "A collection is under way". */
  constructor(title: string, nowUs: () => number) {
    this.#title = title;
    this.#nowUs = nowUs;
  }

  get state(): BackgroundState<Result> {
    return this.#state;
  }

  begin(run: () => Promise<Result>, told: { onDone(result: Result): void; onFailed(error: unknown): void }): void {
    if (this.#state.state === 'running')
      throw new Failure('conflict', { reason: `${this.#title} is under way: wait for its end.` });
    this.#state = { state: 'running' };
    this.#work = (async () => {
      try {
        const result = await run();
        this.#state = { state: 'done', endedAtUs: this.#nowUs(), result };
        told.onDone(result);
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        this.#state = { state: 'failed', endedAtUs: this.#nowUs(), reason };
        told.onFailed(error);
      }
    })();
  }

  /** Resolves when nothing is under way. */
  async idle(): Promise<void> {
    await this.#work;
  }
}
