/**
 * Schedules of backups, below /quarry: no other Block Storage service has them. Shapes in, one call into control, a view
 * out.
 */
import type { FastifyInstance } from 'fastify';
import type { BackupScheduleRow } from '../../catalog/schema.ts';
import {
  allSchedules,
  changeSchedule,
  createSchedule,
  deleteSchedule,
  getSchedule,
  retentionOf,
  whenOf,
} from '../../control/backup-schedules.ts';
import type { Retention } from '../../control/retention.ts';
import type { Frequency, When } from '../../control/schedule-times.ts';
import { param } from '../asked.ts';
import { badRequest } from '../faults.ts';
import { one, type Query } from '../query.ts';
import { CreateSchedule, UpdateSchedule } from '../schemas/backup-schedules.ts';
import { booleanOf, checked, idOf } from '../schemas.ts';
import type { RouteContext } from '../server.ts';
import { type Json, timeOf } from '../views.ts';

const PATH = '/quarry/backup-schedules';
const KEEP_NOTHING_SAID: Retention = { last: 0, hourly: 0, daily: 0, weekly: 0, monthly: 0 };

export function backupScheduleRoutes(app: FastifyInstance, { control }: RouteContext): void {
  const [reads, changes] = ['quarry:backup_schedules:get', 'quarry:backup_schedules:change'] as const;
  app.get(PATH, { config: { rule: reads, query: ['name', 'all_tenants'] } }, async (request) => {
    const query = request.query as Query;
    const allProjects = booleanOf(one(query, 'all_tenants') ?? 'false') === true;
    const rows = await allSchedules(control, request.asked.caller, { allProjects, name: one(query, 'name') ?? null });
    return { schedules: rows.map(scheduleView) };
  });
  app.get(`${PATH}/:id`, { config: { rule: reads } }, async (request) => {
    return { schedule: scheduleView(await getSchedule(control, request.asked.caller, param(request, 'id'))) };
  });
  app.post(PATH, { config: { rule: changes, body: CreateSchedule, status: 201 } }, async (request, reply) => {
    const { schedule: body } = checked(request, CreateSchedule, request.body);
    const row = await createSchedule(control, request.asked.caller, {
      name: body.name,
      volumeId: body.volume_id === undefined ? null : idOf(body.volume_id),
      type: body.volume_type ?? null,
      when: { minute: 0, hour: 0, weekday: 1, monthDay: 1, every: body.when.every, ...timesOf(body.when) },
      fullEvery: body.full_every ?? 0,
      retention: { ...KEEP_NOTHING_SAID, ...body.keep },
      isEnabled: body.enabled === undefined || booleanOf(body.enabled) === true,
    });
    return reply.code(201).send({ schedule: scheduleView(row) });
  });
  app.put(`${PATH}/:id`, { config: { rule: changes, body: UpdateSchedule } }, async (request) => {
    const { schedule: body } = checked(request, UpdateSchedule, request.body);
    const id = param(request, 'id');
    const { caller } = request.asked;
    const every = body.when?.every ?? (await getSchedule(control, caller, id)).frequency;
    const update = {
      ...(body.name !== undefined && { name: body.name }),
      ...(body.when !== undefined && { when: { every, ...timesOf({ ...body.when, every }) } }),
      ...(body.full_every !== undefined && { fullEvery: body.full_every }),
      ...(body.keep !== undefined && { retention: body.keep }),
      ...(body.enabled !== undefined && { isEnabled: booleanOf(body.enabled) === true }),
    };
    return { schedule: scheduleView(await changeSchedule(control, caller, { id, update })) };
  });
  app.delete(`${PATH}/:id`, { config: { rule: changes, status: 204 } }, async (request, reply) => {
    await deleteSchedule(control, request.asked.caller, param(request, 'id'));
    return reply.code(204).send();
  });
}

type Times = {
  readonly every: Frequency;
  readonly minute?: number;
  readonly hour?: number;
  readonly weekday?: number;
  readonly day?: number;
};

/** A word that the frequency does not look at is somebody's mistake. */
function timesOf({ every, minute, hour, weekday, day }: Times): Partial<When> {
  const refuse = (word: string): never => {
    throw badRequest(`Invalid input received: '${word}' has no meaning in a schedule that is ${every}.`);
  };
  if (hour !== undefined && every === 'hourly') refuse('hour');
  if (weekday !== undefined && every !== 'weekly') refuse('weekday');
  if (day !== undefined && every !== 'monthly') refuse('day');
  return {
    ...(minute !== undefined && { minute }),
    ...(hour !== undefined && { hour }),
    ...(weekday !== undefined && { weekday }),
    ...(day !== undefined && { monthDay: day }),
  };
}

function scheduleView(row: BackupScheduleRow): Json {
  const when = whenOf(row);
  return {
    id: row.id,
    name: row.name,
    project_id: row.project_id,
    user_id: row.user_id,
    volume_id: row.volume_id,
    volume_type_id: row.type_id,
    enabled: row.is_enabled === 1,
    when: {
      every: when.every,
      minute: when.minute,
      ...(when.every !== 'hourly' && { hour: when.hour }),
      ...(when.every === 'weekly' && { weekday: when.weekday }),
      ...(when.every === 'monthly' && { day: when.monthDay }),
    },
    full_every: row.full_every,
    keep: retentionOf(row),
    next_at: row.is_enabled === 1 ? timeOf(row.next_at) : null,
    last_at: timeOf(row.last_at),
    last_failure: row.last_failure,
    created_at: timeOf(row.created_at),
    updated_at: timeOf(row.updated_at),
  };
}
