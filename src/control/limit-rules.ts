/**
 * What a spec of quality of service decides for one volume: what the data plane enforces, and what is left to the host
 * that uses the volume. Pure: it knows keys and sizes, no volume and no store.
 */
import type { LimitName, VolumeLimits } from '../backend/backend.ts';
import type { Specs } from './types.ts';

export const CONSUMERS = ['front-end', 'back-end', 'both'] as const;
/** Who enforces: the host that uses the volume, the data plane here, or each by itself. */
export type Consumer = (typeof CONSUMERS)[number];

export type QosRules = { readonly consumer: Consumer; readonly specs: Specs };

const RATES = [
  ['total_iops_sec', 'totalIopsSec'],
  ['read_iops_sec', 'readIopsSec'],
  ['write_iops_sec', 'writeIopsSec'],
  ['total_bytes_sec', 'totalBytesSec'],
  ['read_bytes_sec', 'readBytesSec'],
  ['write_bytes_sec', 'writeBytesSec'],
] as const satisfies readonly (readonly [string, LimitName])[];

const HONOURED = /^(total|read|write)_(iops|bytes)_sec(_max|_max_length|_per_gb|_per_gb_min)?$/;
/** Below 2^53, so that it is exact. */
const WHOLE_NUMBER = /^[0-9]{1,15}$/;
const RATE_MAX = 999_999_999_999_999;

/** Why a value cannot be: null when it can, or when the key is none of ours. */
export function complaintAbout(key: string, value: string): string | null {
  if (!HONOURED.test(key) || WHOLE_NUMBER.test(value)) return null;
  return `${key} is '${value}', but must be a whole number from 0 to ${RATE_MAX}; 0 is no limit`;
}

/** Null: nothing is limited here. */
export function limitsOf(rules: QosRules | null, sizeGib: number): VolumeLimits | null {
  if (rules === null || rules.consumer === 'front-end') return null;
  const specs = workedOut(rules.specs, sizeGib);
  const limits: Record<string, number> = {};
  for (const [key, name] of RATES) {
    const rate = positive(specs, key);
    if (rate === null) continue;
    const max = positive(specs, `${key}_max`);
    // A burst that is no faster than the rate is a lower rate: the least applies.
    limits[name] = Math.min(rate, max ?? rate);
    if (max === null || max <= rate) continue;
    limits[`${name}Max`] = max;
    limits[`${name}MaxLength`] = positive(specs, `${key}_max_length`) ?? 1;
  }
  return Object.keys(limits).length === 0 ? null : (limits as VolumeLimits);
}

/** What a host is told: all keys as they are, but those per GiB worked out, since hosts know no sizes. */
export function frontEndOf(rules: QosRules | null, sizeGib: number): Specs | null {
  return rules === null || rules.consumer === 'back-end' ? null : workedOut(rules.specs, sizeGib);
}

/**
 * With `X_per_gb` the rate X is that times the size, at least `X_per_gb_min`, at most X and `X_max` where they are
 * given; `X_max` is then no burst.
 */
function workedOut(specs: Specs, sizeGib: number): Specs {
  const found: Record<string, string> = { ...specs };
  for (const [key] of RATES) {
    const perGib = positive(specs, `${key}_per_gb`);
    delete found[`${key}_per_gb`];
    delete found[`${key}_per_gb_min`];
    if (perGib === null) continue;
    const scaled = Math.max(perGib * sizeGib, positive(specs, `${key}_per_gb_min`) ?? 0);
    const caps = [positive(specs, key), positive(specs, `${key}_max`), RATE_MAX];
    found[key] = String(Math.min(scaled, ...caps.filter((cap) => cap !== null)));
    delete found[`${key}_max`];
    delete found[`${key}_max_length`];
  }
  return found;
}

function positive(specs: Specs, key: string): number | null {
  const text = Object.hasOwn(specs, key) ? specs[key] : undefined;
  if (text === undefined || !WHOLE_NUMBER.test(text)) return null;
  const value = Number(text);
  return value === 0 ? null : value;
}
