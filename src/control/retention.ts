/**
 * Which backups of one line are kept: a function of their times and the rules alone. It knows neither rows nor who made
 * them, and deletes nothing.
 */

/** So many of each kind; all 0 keeps everything. */
export type Retention = {
  readonly last: number;
  readonly hourly: number;
  readonly daily: number;
  readonly weekly: number;
  readonly monthly: number;
};

export type Aged = { readonly id: string; readonly atUs: number };

const HOUR_US = 3600 * 1e6;
const DAY_US = 24 * HOUR_US;
/** 1970 began on a Thursday: three days after a Monday. */
const MONDAY_OFFSET_DAYS = 3;

/** The stretch of time, in UTC, of which one backup is kept. */
const STRETCH = {
  hourly: (atUs: number) => Math.floor(atUs / HOUR_US),
  daily: (atUs: number) => Math.floor(atUs / DAY_US),
  weekly: (atUs: number) => Math.floor((Math.floor(atUs / DAY_US) + MONDAY_OFFSET_DAYS) / 7),
  monthly: (atUs: number) => {
    const date = new Date(atUs / 1000);
    return date.getUTCFullYear() * 12 + date.getUTCMonth();
  },
} as const;
const KINDS = ['hourly', 'daily', 'weekly', 'monthly'] as const;

export const keepsEverything = ({ last, ...rest }: Retention): boolean =>
  last === 0 && KINDS.every((kind) => rest[kind] === 0);

/**
 * The ids that no rule keeps. Of each stretch the newest one stays, for as many stretches that have one as the rule says:
 * a time without backups uses nothing up. The newest of all always stays. What is deleted once would be deleted again,
 * whatever newer ones come, so it does not matter how often this runs.
 */
export function surplus(backups: readonly Aged[], retention: Retention): string[] {
  if (keepsEverything(retention)) return [];
  const newestFirst = [...backups].sort((a, b) => b.atUs - a.atUs || (a.id < b.id ? -1 : 1));
  const kept = new Set(newestFirst.slice(0, Math.max(1, retention.last)).map(({ id }) => id));
  for (const kind of KINDS) {
    const seen = new Set<number>();
    for (const { id, atUs } of newestFirst) {
      const stretch = STRETCH[kind](atUs);
      if (seen.has(stretch)) continue;
      if (seen.size === retention[kind]) break;
      seen.add(stretch);
      kept.add(id);
    }
  }
  return newestFirst.filter(({ id }) => !kept.has(id)).map(({ id }) => id);
}
