/** What an operator may say about a pool, and what holds where he says nothing. Imports nothing: the configuration reads it too. */

export type PoolSettings = {
  /** Kept free on the filesystem for journal, checkpoints and the catalog: no extent is granted into it. */
  readonly reserveBytes: number;
  /** Volumes together may be so many times as large as the filesystem. */
  readonly maxOverSubscription: number;
  /** Of the filesystem, in percent: what new volumes do not count on. Those there are may fill it. */
  readonly reservedPercentage: number;
  /** How full, in percent, the pool is when somebody has to be told, and when it is urgent. */
  readonly lowPercentage: number;
  readonly criticalPercentage: number;
  /** Bytes that the scrub reads in a second; 0: as fast as the disk goes. */
  readonly scrubBytesPerSecond: number;
  /** From the end of one pass of the scrub to the start of the next; 0: none by itself. */
  readonly scrubIntervalMs: number;
  /** Extents filled up so that their bases become free; 0: never. */
  readonly fillBytesPerSecond: number;
};

export const DEFAULT_POOL_SETTINGS: PoolSettings = {
  reserveBytes: 256 * 2 ** 20,
  // Other services of this kind have the same default.
  maxOverSubscription: 20,
  reservedPercentage: 0,
  lowPercentage: 80,
  criticalPercentage: 95,
  scrubBytesPerSecond: 32 * 2 ** 20,
  scrubIntervalMs: 7 * 24 * 3600 * 1000,
  fillBytesPerSecond: 32 * 2 ** 20,
};
