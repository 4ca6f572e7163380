/** The shapes of bodies about schedules of backups. */
import { type TOptional, type TUnsafe, Type } from 'typebox';
import { FREQUENCIES, type Frequency } from '../../control/schedule-times.ts';
import { Boolish, closed, Id } from '../schemas.ts';

/** Its backups are named after it, with a volume and a time behind: all of it fits a name. */
const ScheduleName = Type.Unsafe<string>({
  type: 'string',
  minLength: 1,
  maxLength: 200,
  pattern: '^[^\\p{Cc}\\p{Cs}]*$',
});
const TypeName = Type.Unsafe<string>({ type: 'string', minLength: 1, maxLength: 255 });

const between = (minimum: number, maximum: number): TOptional<TUnsafe<number>> =>
  Type.Optional(Type.Unsafe<number>({ type: 'integer', minimum, maximum }));

const TIMES = {
  minute: between(0, 59),
  hour: between(0, 23),
  /** Monday is 1. */
  weekday: between(1, 7),
  day: between(1, 31),
};
const Every = Type.Unsafe<Frequency>({ enum: [...FREQUENCIES] });
const KEPT_MAX = 10_000;
const SETTINGS = {
  full_every: between(0, KEPT_MAX),
  keep: Type.Optional(
    closed({
      last: between(0, KEPT_MAX),
      hourly: between(0, KEPT_MAX),
      daily: between(0, KEPT_MAX),
      weekly: between(0, KEPT_MAX),
      monthly: between(0, KEPT_MAX),
    }),
  ),
  enabled: Type.Optional(Boolish),
};

export const CreateSchedule = closed({
  schedule: closed({
    name: ScheduleName,
    volume_id: Type.Optional(Id),
    volume_type: Type.Optional(TypeName),
    when: closed({ every: Every, ...TIMES }),
    ...SETTINGS,
  }),
});

export const UpdateSchedule = closed({
  schedule: Type.Object(
    {
      name: Type.Optional(ScheduleName),
      when: Type.Optional(closed({ every: Type.Optional(Every), ...TIMES })),
      ...SETTINGS,
    },
    { additionalProperties: false, minProperties: 1 },
  ),
});
