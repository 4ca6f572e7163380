/**
 * Limits of speed as callers name them (`readBytesSecMax`), checked and brought into the plane's form. Knows nothing of who sets
 * them, nor how they are kept.
 */
import { Failure } from '../base/errors.ts';
import type { Rate, SpeedLimits } from './plane.ts';

const RATES = {
  totalIopsSec: 'totalOps',
  readIopsSec: 'readOps',
  writeIopsSec: 'writeOps',
  totalBytesSec: 'totalBytes',
  readBytesSec: 'readBytes',
  writeBytesSec: 'writeBytes',
} as const satisfies Record<string, keyof SpeedLimits>;

type RateName = keyof typeof RATES;
const NAMES = Object.keys(RATES) as RateName[];
const KNOWN = new Set(NAMES.flatMap((name) => [name, `${name}Max`, `${name}MaxLength`]));

/** An average of 0 is no limit. */
const NO_RATE: Rate = { average: 0, burst: 0, burstSeconds: 1 };

export const NO_LIMITS: SpeedLimits = {
  totalOps: NO_RATE,
  readOps: NO_RATE,
  writeOps: NO_RATE,
  totalBytes: NO_RATE,
  readBytes: NO_RATE,
  writeBytes: NO_RATE,
};

export type NamedLimits = Readonly<Record<string, number | null | undefined>>;

/** Fails with `bad_request`, and names the value, when they make no sense. 0, null and absent are all the same: none. */
export function speedLimitsOf(limits: NamedLimits | null): SpeedLimits {
  for (const name of Object.keys(limits ?? {})) {
    if (!KNOWN.has(name)) refuse(`There is no limit named ${name}; there are ${NAMES.join(', ')}.`);
  }
  const found: Record<keyof SpeedLimits, Rate> = { ...NO_LIMITS };
  for (const name of NAMES) found[RATES[name]] = rateOf(limits ?? {}, name);
  return found;
}

function rateOf(limits: NamedLimits, name: RateName): Rate {
  const average = limitOf(limits, name);
  const burst = limitOf(limits, `${name}Max`);
  const burstSeconds = limitOf(limits, `${name}MaxLength`);
  if (burst > 0 && average === 0) refuse(`${name}Max is ${burst}, but there is no ${name} that a burst could exceed.`);
  if (burst > 0 && burst < average)
    refuse(`${name}Max is ${burst}: a burst cannot be slower than the ${average} of ${name}.`);
  if (burstSeconds > 0 && burstSeconds < 1)
    refuse(`${name}MaxLength is ${burstSeconds}: a burst lasts at least 1 second.`);
  return { average, burst, burstSeconds: Math.max(1, burstSeconds) };
}

function limitOf(limits: NamedLimits, name: string): number {
  const value = limits[name] ?? 0;
  if (typeof value !== 'number' || !Number.isFinite(value) || value < 0 || value > Number.MAX_SAFE_INTEGER)
    refuse(`${name} is ${String(value)}: a limit is a number between 0 (none) and ${Number.MAX_SAFE_INTEGER}.`);
  return value;
}

function refuse(reason: string): never {
  throw new Failure('bad_request', { reason });
}
