/**
 * Retention and times of schedules as the pure functions they are: properties over random histories, the seed in the
 * message, and the calendar's corners by hand.
 */
import { describe, expect, test } from 'vitest';
import { type Aged, type Retention, surplus } from '../../src/control/retention.ts';
import { FREQUENCIES, nextTimeUs, type When } from '../../src/control/schedule-times.ts';
import { Random } from '../sim/random.ts';

const HOUR_US = 3600 * 1e6;
const DAY_US = 24 * HOUR_US;
const NOTHING: Retention = { last: 0, hourly: 0, daily: 0, weekly: 0, monthly: 0 };
const KINDS = ['last', 'hourly', 'daily', 'weekly', 'monthly'] as const;
const ROUNDS = 300;

const us = (iso: string): number => Date.parse(iso) * 1000;
const iso = (atUs: number): string => new Date(atUs / 1000).toISOString();

function history(random: Random): Aged[] {
  const spreadUs = random.pick([HOUR_US / 3, HOUR_US, DAY_US / 2, DAY_US, 9 * DAY_US, 40 * DAY_US]);
  let atUs = us('2024-01-01T00:00:00Z') + random.below(400) * DAY_US;
  return Array.from({ length: 1 + random.below(80) }, (_, index) => {
    atUs += 1 + Math.floor(random.next() * 2 * spreadUs);
    return { id: `b${index}`, atUs };
  });
}

const rules = (random: Random): Retention => ({
  last: random.below(5),
  hourly: random.below(10),
  daily: random.below(10),
  weekly: random.below(6),
  monthly: random.below(6),
});

const kept = (backups: readonly Aged[], retention: Retention): Aged[] => {
  const gone = new Set(surplus(backups, retention));
  return backups.filter(({ id }) => !gone.has(id));
};
const ids = (backups: readonly Aged[]): string[] => backups.map(({ id }) => id).sort();

function forAll(check: (about: { random: Random; backups: Aged[]; retention: Retention }) => void): void {
  for (let seed = 1; seed <= ROUNDS; seed += 1) {
    const random = new Random(seed);
    try {
      check({ random, backups: history(random), retention: rules(random) });
    } catch (error) {
      throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
    }
  }
}

describe('retention', () => {
  test('always keeps the newest, and everything where no rule says a number', () => {
    forAll(({ backups, retention }) => {
      expect(ids(kept(backups, retention))).toContain(backups.at(-1)?.id);
      expect(surplus(backups, NOTHING)).toEqual([]);
    });
    expect(surplus([], { ...NOTHING, last: 1 })).toEqual([]);
  });

  test('does not depend on the order in which backups are given', () => {
    forAll(({ random, backups, retention }) => {
      const mixed = [...backups].sort(() => random.next() - 0.5);
      expect(surplus(mixed, retention).sort()).toEqual(surplus(backups, retention).sort());
    });
  });

  test('deleting after each backup leaves what deleting once at the end leaves', () => {
    forAll(({ backups, retention }) => {
      let left: Aged[] = [];
      for (const backup of backups) left = kept([...left, backup], retention);
      expect(ids(left)).toEqual(ids(kept(backups, retention)));
    });
  });

  test('keeps what any of its rules would keep alone, and nothing else', () => {
    forAll(({ backups, retention }) => {
      const alone = KINDS.filter((kind) => retention[kind] > 0).map((kind) =>
        ids(kept(backups, { ...NOTHING, [kind]: retention[kind] })),
      );
      if (alone.length === 0) return;
      expect(ids(kept(backups, retention))).toEqual([...new Set(alone.flat())].sort());
    });
  });

  test('keeps as many as the rule says where there are so many stretches, one of each', () => {
    const stretchOf: Readonly<Record<string, (atUs: number) => string>> = {
      hourly: (atUs) => iso(atUs).slice(0, 13),
      daily: (atUs) => iso(atUs).slice(0, 10),
      monthly: (atUs) => iso(atUs).slice(0, 7),
      // The Monday on or before it.
      weekly: (atUs) => {
        const date = new Date(atUs / 1000);
        date.setUTCDate(date.getUTCDate() - ((date.getUTCDay() + 6) % 7));
        return date.toISOString().slice(0, 10);
      },
    };
    forAll(({ random, backups }) => {
      const kind = random.pick(['hourly', 'daily', 'weekly', 'monthly'] as const);
      const count = 1 + random.below(8);
      const newest = new Map<string, string>();
      for (const { id, atUs } of backups) newest.set(stretchOf[kind]?.(atUs) ?? '', id);
      const expected = [...newest.values()].slice(-count).sort();
      expect(ids(kept(backups, { ...NOTHING, [kind]: count }))).toEqual(expected);
    });
  });
});

const AT: When = { every: 'daily', minute: 30, hour: 2, weekday: 1, monthDay: 31 };
const next = (when: Partial<When>, after: string): string => iso(nextTimeUs({ ...AT, ...when }, us(after)));

describe('the time of a schedule', () => {
  test.each([
    [{ every: 'hourly' }, '2026-11-24T15:29:59.999Z', '2026-11-24T15:30:00.000Z'],
    [{ every: 'hourly' }, '2026-11-24T15:30:00Z', '2026-11-24T16:30:00.000Z'],
    [{ every: 'hourly' }, '2026-12-31T23:45:00Z', '2027-01-01T00:30:00.000Z'],
    [{ every: 'daily' }, '2026-11-24T02:29:00Z', '2026-11-24T02:30:00.000Z'],
    [{ every: 'daily' }, '2026-02-28T02:30:00Z', '2026-03-01T02:30:00.000Z'],
    // A Tuesday.
    [{ every: 'weekly' }, '2026-11-24T00:00:00Z', '2026-11-30T02:30:00.000Z'],
    [{ every: 'weekly', weekday: 2 }, '2026-11-24T00:00:00Z', '2026-11-24T02:30:00.000Z'],
    [{ every: 'weekly', weekday: 7 }, '2026-11-29T03:00:00Z', '2026-12-06T02:30:00.000Z'],
    [{ every: 'monthly' }, '2026-01-31T03:00:00Z', '2026-02-28T02:30:00.000Z'],
    [{ every: 'monthly' }, '2028-02-01T00:00:00Z', '2028-02-29T02:30:00.000Z'],
    [{ every: 'monthly' }, '2026-12-31T02:30:00Z', '2027-01-31T02:30:00.000Z'],
    [{ every: 'monthly', monthDay: 1 }, '2026-12-01T02:30:00Z', '2027-01-01T02:30:00.000Z'],
  ] as const)('%j after %s is %s', (when, after, expected) => {
    expect(next(when, after)).toBe(expected);
  });

  test('is later than asked, has none between, and comes once per period', () => {
    for (let seed = 1; seed <= ROUNDS; seed += 1) {
      const random = new Random(seed);
      const when: When = {
        every: random.pick(FREQUENCIES),
        minute: random.below(60),
        hour: random.below(24),
        weekday: 1 + random.below(7),
        monthDay: 1 + random.below(31),
      };
      const afterUs = us('2024-01-01T00:00:00Z') + Math.floor(random.next() * 1500 * DAY_US);
      const first = nextTimeUs(when, afterUs);
      expect(first, `seed ${seed}`).toBeGreaterThan(afterUs);
      const between = afterUs + Math.floor(random.next() * (first - afterUs));
      expect(nextTimeUs(when, between), `seed ${seed}`).toBe(first);
      const second = nextTimeUs(when, first);
      const days = { hourly: 1 / 24, daily: 1, weekly: 7, monthly: 31 }[when.every];
      expect(second - first, `seed ${seed}`).toBeLessThanOrEqual(days * DAY_US);
      expect(second - first, `seed ${seed}`).toBeGreaterThanOrEqual((when.every === 'monthly' ? 28 : days) * DAY_US);
    }
  });
});
