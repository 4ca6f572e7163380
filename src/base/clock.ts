/** Time, as an argument: nobody else calls Date.now or setTimeout, so that tests decide when time passes. */

export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Calls `action` every `periodMs` until the returned function is called. Does not keep the process alive. */
  every(periodMs: number, action: () => void): () => void;
  /** Lets other work of this thread run, then goes on. */
  pause(): Promise<void>;
}

export const realClock: Clock = {
  now: () => Date.now(),
  every(periodMs, action) {
    const timer = setInterval(action, periodMs);
    timer.unref();
    return () => clearInterval(timer);
  },
  pause: () => new Promise((resolve) => setImmediate(resolve)),
};
