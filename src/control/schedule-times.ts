/**
 * When a schedule is due, in UTC: a function of its words and a moment. There is no summer time in it, so each day has
 * each time once. It knows neither clocks nor what is done at these times.
 */
export const FREQUENCIES = ['hourly', 'daily', 'weekly', 'monthly'] as const;
export type Frequency = (typeof FREQUENCIES)[number];

export type When = {
  readonly every: Frequency;
  readonly minute: number;
  /** Not looked at where it is hourly. */
  readonly hour: number;
  /** 1 is Monday; of weekly ones. */
  readonly weekday: number;
  /** 1 to 31, of monthly ones; a month that is shorter has it on its last day. */
  readonly monthDay: number;
};

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

/** The first time later than `afterUs`; both in microseconds since 1970. */
export function nextTimeUs(when: When, afterUs: number): number {
  const afterMs = Math.floor(afterUs / 1000);
  return 1000 * nextMs(when, afterMs);
}

function nextMs(when: When, afterMs: number): number {
  switch (when.every) {
    case 'hourly':
      return firstAfter(afterMs, Math.floor(afterMs / HOUR_MS) * HOUR_MS + when.minute * MINUTE_MS, HOUR_MS);
    case 'daily':
      return firstAfter(afterMs, startOfDay(afterMs) + timeOfDay(when), DAY_MS);
    case 'weekly': {
      const today = startOfDay(afterMs);
      // getUTCDay: 0 is Sunday, which is 7 here.
      const days = when.weekday - (new Date(today).getUTCDay() || 7);
      const thisWeek = today + days * DAY_MS + timeOfDay(when);
      return firstAfter(afterMs, thisWeek, 7 * DAY_MS);
    }
    case 'monthly': {
      const date = new Date(afterMs);
      const inMonth = (month: number): number => {
        const lastDay = new Date(Date.UTC(date.getUTCFullYear(), month + 1, 0)).getUTCDate();
        return Date.UTC(date.getUTCFullYear(), month, Math.min(when.monthDay, lastDay)) + timeOfDay(when);
      };
      const thisMonth = inMonth(date.getUTCMonth());
      return thisMonth > afterMs ? thisMonth : inMonth(date.getUTCMonth() + 1);
    }
  }
}

/** `candidateMs` is the one of its period, so the next is at most one period away. */
function firstAfter(afterMs: number, candidateMs: number, periodMs: number): number {
  return candidateMs > afterMs ? candidateMs : candidateMs + periodMs;
}

const startOfDay = (ms: number): number => Math.floor(ms / DAY_MS) * DAY_MS;
const timeOfDay = ({ hour, minute }: When): number => hour * HOUR_MS + minute * MINUTE_MS;
