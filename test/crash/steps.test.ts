/**
 * SIGKILL of the real daemon at each step of each kind of task, while tasks of all other kinds are under way: started again, every
 * object is in its end state within seconds, what was accepted has happened, quotas are what a recount says, and the pool is whole.
 * A first round without a kill shows which steps there are. Each later one is for one step of one kind, and also counts for those
 * at which it met the others.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it, vi } from 'vitest';
import { KINDS } from '../../src/control/tasks/kinds.ts';
import { Random } from '../sim/random.ts';
import { ApiPool, type Json } from '../support/api-pool.ts';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { run } from '../support/peers.ts';
import { MAIN, quarryOn } from '../support/quarry.ts';
import { tempFolder } from '../support/temp.ts';
import { Place, SCENARIOS, type Stock } from './scenarios.ts';

const IS_SOAK = process.env['QUARRY_SOAK'] === '1';
const PROGRAM = join(import.meta.dirname, 'step-daemon.mjs');
/** Where not every step has to be hit: one round with a kill for each kind. */
const ROUNDS = Object.keys(KINDS).length;
/** How often a step may not have come although it was waited for: some depend on what else is under way. */
const MISSES_MAX = 3;
const TIMEOUT_MS = 1_800_000;
/** Much longer than it takes: what is stuck stays so. */
const END_MS = 30_000;

const LAST_STEP = 'followed up 1';

type Target = { readonly kind: string; readonly at: string };
type Step = Target & { readonly task: string };

/** What tasks have reached since the last order. */
class Steps {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  order(target: Target | null): void {
    rmSync(join(this.#folder, 'steps'), { force: true });
    writeFileSync(join(this.#folder, 'order'), JSON.stringify(target ?? { kind: 'none', at: '' }));
  }

  cancel(): void {
    rmSync(join(this.#folder, 'order'));
  }

  reached(): Step[] {
    const path = join(this.#folder, 'steps');
    const lines = existsSync(path) ? readFileSync(path, 'utf8').trimEnd().split('\n') : [];
    return lines.map((line) => {
      const [task = '', kind = '', at = ''] = line.split('\t');
      return { task, kind, at };
    });
  }
}

const key = ({ kind, at }: Target): string => `${kind}: ${at}`;

/** The last step of each task. */
function lastOf(steps: readonly Step[]): Step[] {
  return [...new Map(steps.map((step) => [step.task, step])).values()];
}

async function makeStock(daemon: Daemon, api: ApiPool, folder: string): Promise<Stock> {
  const image = join(folder, 'image');
  // Random: what is all alike would be one chunk of a backup.
  writeFileSync(image, randomBytes(3 * 2 ** 20));
  await quarryOn(daemon, 'volume', 'create', 'source', '--size', '1', '--image', image);
  await api.make('/types', { volume_type: { name: 'other' } });
  const specs = { consistent_group_snapshot_enabled: '<is> True' };
  const { id: groupType } = await api.make('/group_types', { group_type: { name: 'gt', group_specs: specs } });
  const { id: volume } = (await api.ask('GET', '/volumes?name=source')).body.volumes[0];
  const make = async (path: string, body: object): Promise<string> => {
    // Not in a project that rounds count.
    const { id } = await api.make(`/stock${path}`, body);
    await expectEnd(api, 'the stock');
    return id;
  };
  const snapshot = await make('/snapshots', { snapshot: { volume_id: volume } });
  const backup = () => make('/backups', { backup: { volume_id: volume } });
  return { snapshot, restorable: await backup(), verifiable: await backup(), groupType };
}

/** Nothing is under way any more, and nothing is anything but available. Counted, since a long run has more than a page. */
async function expectEnd(api: ApiPool, about: string): Promise<void> {
  const open = async (): Promise<string[]> => {
    const { tasks, volumes, snapshots, backups } = (await api.ask('GET', '/quarry/status')).body;
    const counts = Object.entries({ volumes, snapshots, backups }).flatMap(([what, { by_status }]) =>
      Object.entries(by_status).map(([status, count]) => ({ status, of: `${count} ${what}` })),
    );
    const lists = await Promise.all(['groups', 'group_snapshots'].map((what) => api.list(what)));
    const rows = lists.flat().map(({ id, status }) => ({ status, of: id }));
    const passing = [...counts, ...rows].filter(({ status }) => status !== 'available');
    return [
      ...passing.map(({ status, of }) => `${of}: ${status}`),
      ...tasks.map(({ kind, subject }: Json) => `task ${kind} of ${subject}`),
    ];
  };
  await expect.poll(open, { message: about, timeout: END_MS, interval: 20 }).toEqual([]);
}

async function expectRecount(api: ApiPool, project: string, about: string): Promise<void> {
  const list = async (what: string): Promise<Json[]> => (await api.ask('GET', `/${project}/${what}/detail`)).body[what];
  const [volumes = [], snapshots = [], backups = [], groups = []] = await Promise.all(
    ['volumes', 'snapshots', 'backups', 'groups'].map(list),
  );
  const own = { volumes, snapshots, backups, groups };
  const gib = (rows: Json[]): number => rows.reduce((sum, { size }) => sum + size, 0);
  const counted = {
    ...Object.fromEntries(Object.entries(own).map(([name, rows]) => [name, rows.length])),
    gigabytes: gib([...own.volumes, ...own.snapshots]),
    backup_gigabytes: gib(own.backups),
  };
  const { quota_set: use } = (await api.ask('GET', `/os-quota-sets/${project}?usage=true`)).body;
  const shown = Object.fromEntries(Object.keys(counted).map((name) => [name, use[name].in_use + use[name].reserved]));
  expect(shown, `${about}: quotas are what a recount says`).toEqual(counted);
  const { pool, ...catalog } = (await api.ask('GET', '/quarry/status')).body;
  expect(pool.volumes, `${about}: the pool has the volumes of the catalog`).toBe(catalog.volumes.count);
  // The newest backup of a volume keeps a snapshot that is nobody's.
  const bases = pool.snapshots - catalog.snapshots.count;
  expect(bases, about).toBeGreaterThanOrEqual(0);
  expect(bases, about).toBeLessThanOrEqual(catalog.backups.count);
}

type Surroundings = {
  readonly daemon: Daemon;
  /** Its socket has the same path after each start, so that one pool serves them all. */
  readonly api: ApiPool;
  readonly steps: Steps;
  readonly stock: Stock;
};
type Round = { readonly about: string; readonly project: string; readonly target: Target | null };

/** False when every task came to its end without that step. */
async function isReached(steps: Steps, target: Target | null, about: string): Promise<boolean> {
  const look = (): boolean => {
    const reached = steps.reached();
    if (target !== null && reached.some((step) => key(step) === key(target))) return true;
    const kinds = new Set(reached.filter(({ at }) => at === LAST_STEP).map(({ kind }) => kind));
    if (kinds.size < Object.keys(KINDS).length) throw new Error(`${about}: some tasks neither end nor are killed`);
    return false;
  };
  return vi.waitFor(look, { timeout: END_MS, interval: 10 });
}

/** Returns the steps that were reached. After a kill the daemon runs again and everything was found right. */
async function round({ daemon, api, steps, stock }: Surroundings, { about, project, target }: Round): Promise<Step[]> {
  const place = new Place(daemon, { api, stock, project });
  const attempts = await Promise.all(Object.values(SCENARIOS).map((prepare) => prepare(place)));
  steps.order(target);
  const answers = Promise.all(attempts.map(({ act }) => act().catch(() => null)));
  const isKilled = await isReached(steps, target, about);
  if (isKilled) await daemon.end();
  const answered = await answers;
  steps.cancel();
  const reached = steps.reached();
  if (isKilled) await daemon.start();
  await expectEnd(api, about);
  const refused: string[] = [];
  for (const [index, kind] of Object.keys(SCENARIOS).entries()) {
    const answer = answered[index];
    if (answer === null || answer === undefined) continue;
    if (answer.status >= 300) refused.push(`${kind}: ${answer.status} ${JSON.stringify(answer.body)}`);
    else if (!(await attempts[index]?.hasHappened(answer.body === null ? null : Object.values(answer.body)[0])))
      refused.push(`${kind}: accepted, and has not happened`);
  }
  expect(refused, about).toEqual([]);
  await expectRecount(api, project, about);
  return reached;
}

it(
  'SIGKILL at each step of each kind of task leaves nothing stuck, and what was accepted has happened',
  async () => {
    expect(Object.keys(SCENARIOS).sort(), 'every kind of task is tried').toEqual(Object.keys(KINDS).sort());
    const seed = Number(process.env['QUARRY_SEED'] ?? 20261124);
    const random = new Random(seed);
    await using folder = await tempFolder();
    const steps = new Steps(folder.path);
    await using daemon = await startDaemon({ program: PROGRAM, env: { QUARRY_STEPS: folder.path } });
    await using api = new ApiPool(daemon);
    const around = { daemon, api, steps, stock: await makeStock(daemon, api, folder.path) };
    const all = await round(around, { about: 'without a kill', project: 'p0', target: null });
    expect([...new Set(all.map(({ kind }) => kind))].sort()).toEqual(Object.keys(KINDS).sort());
    const left = new Map(all.map((step) => [key(step), step]));
    const missed = new Map<string, number>();
    const kinds = Object.keys(KINDS);
    for (let number = 1; left.size > 0 && (IS_SOAK || number <= ROUNDS); number += 1) {
      // The kinds in turn, so that few rounds show something of each.
      const wanted = [...left.values()].filter(({ kind }) => kind === kinds[number % kinds.length]);
      const target = random.pick(wanted.length > 0 ? wanted : [...left.values()]);
      const about = `QUARRY_SEED=${seed}, round ${number}, ${key(target)}`;
      const reached = await round(around, { about, project: `p${number}`, target });
      const last = lastOf(reached).map(key);
      for (const step of last) left.delete(step);
      if (last.includes(key(target))) continue;
      const misses = (missed.get(key(target)) ?? 0) + 1;
      missed.set(key(target), misses);
      if (misses === MISSES_MAX) left.delete(key(target));
    }
    expect([...missed.values()].filter((misses) => misses === MISSES_MAX).length).toBeLessThan(5);
    await daemon.kill('SIGKILL');
    await run(process.execPath, [MAIN, 'check', '--data', daemon.dataDir]);
    await daemon.start();
  },
  TIMEOUT_MS,
);
