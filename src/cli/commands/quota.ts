/** `quarry quota …`: limits of projects, and how much of them is used. */
import type { Command } from 'commander';
import { Failure } from '../../base/errors.ts';
import { type Context, collectPair, withContext } from '../context.ts';
import { type Json, member, number, object } from '../decode.ts';
import type { Row } from '../print.ts';

const COLUMNS = ['resource', 'limit', 'used', 'reserved'];
/** Whose limits are those of every project without its own. */
const DEFAULT_CLASS = 'default';

const pathOf = (project: string): string => `/os-quota-sets/${encodeURIComponent(project)}`;

function shownLimit(limit: number): string | number {
  return limit === -1 ? 'none' : limit;
}

function limitRows(set: Json): Row[] {
  return Object.entries(set)
    .filter(([resource]) => resource !== 'id')
    .map(([resource]) => ({ resource, limit: shownLimit(number(set, resource)) }));
}

async function show({ client, printer }: Context, project: string | undefined): Promise<void> {
  if (project === undefined) {
    // One's own: the only limits that everybody may read without knowing the project's id.
    const absolute = member(member(await client.get('/limits'), 'limits'), 'absolute');
    const rows = Object.keys(absolute).map((resource) => ({ resource, value: shownLimit(number(absolute, resource)) }));
    printer.list({ columns: ['resource', 'value'], rows, raw: absolute });
    return;
  }
  const set = member(await client.get(`${pathOf(project)}?usage=true`), 'quota_set');
  const rows = Object.entries(set)
    .filter(([resource]) => resource !== 'id')
    .map(([resource, value]) => {
      const use = object(value, resource);
      return {
        resource,
        limit: shownLimit(number(use, 'limit')),
        used: number(use, 'in_use'),
        reserved: number(use, 'reserved'),
      };
    });
  printer.list({ columns: COLUMNS, rows, raw: set });
}

function limitsOf(pairs: Record<string, string> | undefined): Record<string, number> {
  const entries = Object.entries(pairs ?? {});
  if (entries.length === 0)
    throw new Failure('bad_request', { reason: 'Nothing to set: give --limit, for example --limit volumes=20.' });
  return Object.fromEntries(
    entries.map(([resource, text]) => {
      if (text === 'none') return [resource, -1];
      if (/^-?\d{1,10}$/.test(text)) return [resource, Number(text)];
      const reason = `The limit of ${resource} is "${text}", but must be a whole number or none.`;
      throw new Failure('bad_request', { reason });
    }),
  );
}

type Limits = { limit?: Record<string, string> };

async function set(context: Context, project: string, flags: Limits): Promise<void> {
  await context.client.request('PUT', pathOf(project), { quota_set: limitsOf(flags.limit) });
  await show(context, project);
}

async function defaults({ client, printer }: Context, flags: Limits): Promise<void> {
  const path = `/os-quota-class-sets/${DEFAULT_CLASS}`;
  if (flags.limit !== undefined) await client.request('PUT', path, { quota_class_set: limitsOf(flags.limit) });
  const found = member(await client.get(path), 'quota_class_set');
  printer.list({ columns: ['resource', 'limit'], rows: limitRows(found), raw: found });
}

export function registerQuota(program: Command): void {
  const quota = program.command('quota').description('show and change limits of projects');
  quota
    .command('show')
    .description('show limits and use of a project, or one’s own')
    .argument('[project]', 'id')
    .action((project: string | undefined, _, command: Command) =>
      withContext(command, (context) => show(context, project)),
    );
  quota
    .command('set')
    .description('limit a project: volumes, gigabytes, snapshots, volumes_TYPE, …')
    .argument('<project>', 'id')
    .option('--limit <resource=number>', 'or none; repeatable', collectPair)
    .action((project: string, flags: Limits, command: Command) =>
      withContext(command, (context) => set(context, project, flags)),
    );
  quota
    .command('delete')
    .description('give a project the limits of every project again')
    .argument('<project>', 'id')
    .action((project: string, _, command: Command) =>
      withContext(command, async (context) => {
        await context.client.request('DELETE', pathOf(project));
        await show(context, project);
      }),
    );
  quota
    .command('default')
    .description('show or change the limits of every project without its own')
    .option('--limit <resource=number>', 'or none; repeatable', collectPair)
    .action((flags: Limits, command: Command) => withContext(command, (context) => defaults(context, flags)));
}
