/** `quarry backup schedule …`. */
import type { Command } from 'commander';
import { Failure } from '../../base/errors.ts';
import { type Context, withContext } from '../context.ts';
import { type Json, maybeText, member, members, number, object, text } from '../decode.ts';
import { find } from '../objects.ts';
import type { Row } from '../print.ts';

const PATH = '/quarry/backup-schedules';
const LIST_COLUMNS = ['id', 'name', 'of', 'when', 'keep', 'enabled', 'next'];
const WEEKDAYS = ['monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday', 'sunday'];
const KEPT = ['last', 'hourly', 'daily', 'weekly', 'monthly'] as const;

const two = (value: number): string => String(value).padStart(2, '0');

function whenText(when: Json): string {
  const every = text(when, 'every');
  const minute = two(number(when, 'minute'));
  if (every === 'hourly') return `hourly at :${minute}`;
  const at = `at ${two(number(when, 'hour'))}:${minute}`;
  if (every === 'weekly') return `weekly on ${WEEKDAYS[number(when, 'weekday') - 1]} ${at}`;
  return every === 'monthly' ? `monthly on day ${number(when, 'day')} ${at}` : `daily ${at}`;
}

function keepText(keep: Json): string {
  const words = KEPT.filter((kind) => number(keep, kind) > 0).map((kind) => `${number(keep, kind)} ${kind}`);
  return words.length === 0 ? 'everything' : words.join(', ');
}

function listRow(schedule: Json): Row {
  const volume = maybeText(schedule, 'volume_id');
  return {
    id: text(schedule, 'id'),
    name: text(schedule, 'name'),
    of: volume === null ? `type ${maybeText(schedule, 'volume_type_id')}` : `volume ${volume}`,
    when: whenText(member(schedule, 'when')),
    keep: keepText(member(schedule, 'keep')),
    enabled: schedule['enabled'] === true ? 'yes' : 'no',
    next: maybeText(schedule, 'next_at')?.slice(0, 19) ?? null,
  };
}

function print({ printer }: Context, schedule: Json): void {
  const fullEvery = number(schedule, 'full_every');
  const fields = {
    ...listRow(schedule),
    full: fullEvery === 0 ? 'the first' : `every ${fullEvery}`,
    last: maybeText(schedule, 'last_at')?.slice(0, 19) ?? null,
    failure: maybeText(schedule, 'last_failure'),
  };
  printer.object({ fields, raw: schedule });
}

async function findSchedule({ client }: Context, reference: string): Promise<Json> {
  const all = members(await client.get(PATH), 'schedules');
  const found = all.filter((item) => text(item, 'id') === reference.toLowerCase());
  const named = found.length > 0 ? found : all.filter((item) => text(item, 'name') === reference);
  const [first] = named;
  if (first === undefined) throw new Failure('not_found', { kind: 'Backup schedule', id: reference });
  if (named.length > 1) {
    const ids = named.map((item) => text(item, 'id')).join(', ');
    const reason = `${named.length} schedules are named "${reference}". Use an id: ${ids}`;
    throw new Failure('bad_request', { reason });
  }
  return first;
}

type Flags = {
  volume?: string;
  type?: string;
  every?: string;
  at?: string;
  on?: string;
  fullEvery?: number;
  keepLast?: number;
  keepHourly?: number;
  keepDaily?: number;
  keepWeekly?: number;
  keepMonthly?: number;
  name?: string;
  enable?: boolean;
  disable?: boolean;
};

function whole(word: string): number {
  if (!/^\d{1,5}$/.test(word)) throw new Failure('bad_request', { reason: `"${word}" is not a number from 0 on.` });
  return Number(word);
}

/** `--at 02:30`, of hourly ones `--at :30`; `--on friday` or, of monthly ones, `--on 15`. */
function whenBody({ every, at, on }: Flags): Json | null {
  if (every === undefined && at === undefined && on === undefined) return null;
  const time = at === undefined ? null : /^(\d{1,2})?:(\d{2})$/.exec(at);
  if (at !== undefined && time === null)
    throw new Failure('bad_request', { reason: `"${at}" is no time of day: write HH:MM in UTC, or :MM for hourly.` });
  const weekday =
    on === undefined ? -1 : WEEKDAYS.findIndex((day) => day.startsWith(on.toLowerCase()) && on.length > 2);
  if (on !== undefined && weekday === -1 && !/^\d{1,2}$/.test(on))
    throw new Failure('bad_request', { reason: `"${on}" is neither a day of the week nor one of the month.` });
  return {
    ...(every === undefined ? {} : { every }),
    ...(time?.[1] === undefined ? {} : { hour: Number(time[1]) }),
    ...(time === null ? {} : { minute: Number(time[2]) }),
    ...(weekday === -1 ? {} : { weekday: weekday + 1 }),
    ...(on !== undefined && weekday === -1 ? { day: Number(on) } : {}),
  };
}

function settingsBody(flags: Flags): Json {
  const kept: Readonly<Record<string, number | undefined>> = {
    last: flags.keepLast,
    hourly: flags.keepHourly,
    daily: flags.keepDaily,
    weekly: flags.keepWeekly,
    monthly: flags.keepMonthly,
  };
  const keep = Object.fromEntries(Object.entries(kept).filter(([, count]) => count !== undefined));
  const when = whenBody(flags);
  return {
    ...(when === null ? {} : { when }),
    ...(flags.fullEvery === undefined ? {} : { full_every: flags.fullEvery }),
    ...(Object.keys(keep).length === 0 ? {} : { keep }),
    ...(flags.enable === true ? { enabled: true } : {}),
    ...(flags.disable === true ? { enabled: false } : {}),
  };
}

async function create(context: Context, name: string, flags: Flags): Promise<void> {
  const { client } = context;
  if (flags.every === undefined)
    throw new Failure('bad_request', { reason: 'Say how often: --every hourly, daily, weekly or monthly.' });
  const schedule = {
    name,
    ...(flags.volume === undefined ? {} : { volume_id: text(await find(client, 'volume', flags.volume), 'id') }),
    ...(flags.type === undefined ? {} : { volume_type: flags.type }),
    ...settingsBody(flags),
  };
  print(context, member(await client.request('POST', PATH, { schedule }), 'schedule'));
}

async function set(context: Context, reference: string, flags: Flags): Promise<void> {
  const schedule = { ...(flags.name === undefined ? {} : { name: flags.name }), ...settingsBody(flags) };
  if (Object.keys(schedule).length === 0)
    throw new Failure('bad_request', { reason: 'Nothing is to be changed: see `quarry backup schedule set --help`.' });
  if (flags.enable === true && flags.disable === true)
    throw new Failure('bad_request', { reason: 'Give either --enable or --disable.' });
  const id = text(await findSchedule(context, reference), 'id');
  print(context, member(await context.client.request('PUT', `${PATH}/${id}`, { schedule }), 'schedule'));
}

function withSettings(command: Command): Command {
  return command
    .option('--every <frequency>', 'hourly, daily, weekly or monthly')
    .option('--at <time>', 'HH:MM in UTC; :MM where it is hourly')
    .option('--on <day>', 'monday … sunday, or a day of the month')
    .option('--full-every <count>', 'every so many backups is a full one; 0: only the first', whole)
    .option('--keep-last <count>', 'keep so many, whatever their age', whole)
    .option('--keep-hourly <count>', 'keep the last one of so many hours', whole)
    .option('--keep-daily <count>', 'keep the last one of so many days', whole)
    .option('--keep-weekly <count>', 'keep the last one of so many weeks', whole)
    .option('--keep-monthly <count>', 'keep the last one of so many months', whole);
}

export function registerBackupSchedule(backup: Command): void {
  const schedule = backup.command('schedule').description('have backups made at set times, and old ones deleted');
  withSettings(
    schedule
      .command('create')
      .description('have a volume, or all volumes of a type, backed up')
      .argument('<name>')
      .option('--volume <volume>', 'id or name')
      .option('--type <type>', 'id or name; all volumes of it that the project has'),
  ).action((name: string, flags: Flags, command: Command) =>
    withContext(command, (context) => create(context, name, flags)),
  );
  schedule
    .command('list')
    .description('list the schedules of this project')
    .action((_, command: Command) =>
      withContext(command, async ({ client, printer }) => {
        const all = members(await client.get(PATH), 'schedules');
        printer.list({ columns: LIST_COLUMNS, rows: all.map(listRow), raw: all });
      }),
    );
  schedule
    .command('show')
    .description('show one schedule')
    .argument('<schedule>', 'id or name')
    .action((reference: string, _, command: Command) =>
      withContext(command, async (context) =>
        print(context, object(await findSchedule(context, reference), 'schedule')),
      ),
    );
  withSettings(
    schedule
      .command('set')
      .description('change a schedule')
      .argument('<schedule>', 'id or name')
      .option('--name <name>')
      .option('--enable', 'go on with it, from now')
      .option('--disable', 'make no backups and delete none'),
  ).action((reference: string, flags: Flags, command: Command) =>
    withContext(command, (context) => set(context, reference, flags)),
  );
  schedule
    .command('delete')
    .description('delete schedules; their backups stay')
    .argument('<schedule...>', 'ids or names')
    .action((references: string[], _, command: Command) =>
      withContext(command, async (context) => {
        for (const reference of references) {
          const id = text(await findSchedule(context, reference), 'id');
          await context.client.request('DELETE', `${PATH}/${id}`);
        }
      }),
    );
}
