/** The `[pool]` table of the configuration: how much may be promised, what is kept back, and when it is time to warn. */
import { Failure } from '../base/errors.ts';
import { DEFAULT_POOL_SETTINGS, type PoolSettings } from '../engine/settings.ts';

type Plain = Readonly<Record<string, unknown>>;
type Bound = { readonly fallback: number; readonly min: number; readonly max: number; readonly isWhole: boolean };

const DAY_MS = 24 * 3600 * 1000;
const STANDARD = DEFAULT_POOL_SETTINGS;
/** The reserve has to hold the journal's halves and a checkpoint beside the last one. */
const RESERVE = { fallback: STANDARD.reserveBytes, min: 64 * 2 ** 20, max: 2 ** 50, isWhole: true };
const BOUNDS = {
  max_over_subscription_ratio: { fallback: STANDARD.maxOverSubscription, min: 1, max: 1_000_000, isWhole: false },
  reserved_percentage: { fallback: STANDARD.reservedPercentage, min: 0, max: 100, isWhole: true },
  reserve_bytes: RESERVE,
  fill_bytes_per_second: { fallback: STANDARD.fillBytesPerSecond, min: 0, max: 2 ** 40, isWhole: true },
  low_percentage: { fallback: STANDARD.lowPercentage, min: 1, max: 100, isWhole: false },
  critical_percentage: { fallback: STANDARD.criticalPercentage, min: 1, max: 100, isWhole: false },
  scrub_bytes_per_second: { fallback: STANDARD.scrubBytesPerSecond, min: 0, max: 2 ** 40, isWhole: true },
  scrub_interval_days: { fallback: STANDARD.scrubIntervalMs / DAY_MS, min: 0, max: 3650, isWhole: false },
} as const satisfies Readonly<Record<string, Bound>>;
type Key = keyof typeof BOUNDS;

export function poolOf(table: Plain): PoolSettings {
  for (const key of Object.keys(table))
    if (!Object.hasOwn(BOUNDS, key))
      throw refuse(`unknown key 'pool.${key}'. Known: ${Object.keys(BOUNDS).join(', ')}.`);
  const value = (key: Key): number => {
    const { fallback, min, max, isWhole }: Bound = BOUNDS[key];
    const found = table[key] ?? fallback;
    if (typeof found === 'number' && found >= min && found <= max && (!isWhole || Number.isInteger(found)))
      return found;
    throw refuse(
      `pool.${key} is ${JSON.stringify(found)}, but must be a ${isWhole ? 'whole ' : ''}number from ${min} to ${max}.`,
    );
  };
  const [lowPercentage, criticalPercentage] = [value('low_percentage'), value('critical_percentage')];
  if (lowPercentage > criticalPercentage)
    throw refuse(
      `pool.low_percentage is ${lowPercentage}, but must not be above pool.critical_percentage (${criticalPercentage}).`,
    );
  return {
    maxOverSubscription: value('max_over_subscription_ratio'),
    reservedPercentage: value('reserved_percentage'),
    reserveBytes: value('reserve_bytes'),
    fillBytesPerSecond: value('fill_bytes_per_second'),
    lowPercentage,
    criticalPercentage,
    scrubBytesPerSecond: value('scrub_bytes_per_second'),
    scrubIntervalMs: value('scrub_interval_days') * DAY_MS,
  };
}

function refuse(reason: string): Failure {
  return new Failure('bad_request', { reason });
}
