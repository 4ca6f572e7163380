/**
 * The API's objects as the command line needs them: found by id or by a name that only one bears, and waited for
 * until what was asked has happened.
 */
import { Failure } from '../base/errors.ts';
import { type ApiClient, ApiError } from './client.ts';
import { type Json, maybeText, member, members, text } from './decode.ts';
import { OperationFailed } from './failure.ts';

export type Kind = 'volume' | 'snapshot' | 'transfer' | 'group' | 'group snapshot' | 'backup';

type Words = {
  /** Below /v3. */
  readonly path: string;
  /** The keys of one and of many, and of the links to more. */
  readonly one: string;
  readonly many: string;
  readonly links: string;
  readonly title: string;
};

const WORDS: Readonly<Record<Kind, Words>> = {
  volume: { path: 'volumes', one: 'volume', many: 'volumes', links: 'volumes_links', title: 'Volume' },
  snapshot: { path: 'snapshots', one: 'snapshot', many: 'snapshots', links: 'snapshots_links', title: 'Snapshot' },
  transfer: {
    path: 'volume-transfers',
    one: 'transfer',
    many: 'transfers',
    links: 'transfers_links',
    title: 'Transfer',
  },
  group: { path: 'groups', one: 'group', many: 'groups', links: 'group_links', title: 'Group' },
  backup: { path: 'backups', one: 'backup', many: 'backups', links: 'backups_links', title: 'Backup' },
  'group snapshot': {
    path: 'group_snapshots',
    one: 'group_snapshot',
    many: 'group_snapshots',
    links: 'group_snapshot_links',
    title: 'Group snapshot',
  },
};

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
/** Between two looks at a status: short at first, since most work takes milliseconds, then longer. */
const POLL_MS_MIN = 20;
const POLL_MS_MAX = 2_000;
const POLL_GROWTH = 1.5;

export const pathOf = (kind: Kind, id: string) => `/${WORDS[kind].path}/${encodeURIComponent(id)}`;

/** All pages of a list. */
export async function listAll(client: ApiClient, kind: Kind, query: Readonly<Record<string, string>>): Promise<Json[]> {
  const { path, many, links: linksKey } = WORDS[kind];
  const found: Json[] = [];
  let marker: string | null = null;
  for (;;) {
    const parameters = new URLSearchParams({ ...query, ...(marker === null ? {} : { marker }) });
    const page = await client.get(`/${path}/detail?${parameters}`);
    const items = members(page, many);
    found.push(...items);
    const last = items.at(-1);
    const links = page[linksKey];
    if (last === undefined || !Array.isArray(links) || links.length === 0) return found;
    marker = text(last, 'id');
  }
}

async function show(client: ApiClient, kind: Kind, id: string): Promise<Json | null> {
  try {
    return member(await client.get(pathOf(kind, id)), WORDS[kind].one);
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
}

export async function find(client: ApiClient, kind: Kind, reference: string): Promise<Json> {
  if (reference === '') throw new Failure('bad_request', { reason: `The ${kind}'s name is empty.` });
  if (UUID.test(reference)) {
    const byId = await show(client, kind, reference.toLowerCase());
    if (byId !== null) return byId;
  }
  const named = await listAll(client, kind, { name: reference });
  const [first, ...others] = named;
  if (first === undefined) {
    throw new Failure('not_found', { kind: WORDS[kind].title, id: reference });
  }
  if (others.length > 0) {
    const ids = named.map((item) => text(item, 'id')).join(', ');
    throw new Failure('bad_request', {
      reason: `${named.length} ${kind}s are named "${reference}". Use an id: ${ids}`,
    });
  }
  return first;
}

/** Why work on an object failed, where the daemon has said so. */
export async function reasonFor(client: ApiClient, id: string): Promise<string> {
  try {
    const messages = members(await client.get(`/messages?resource_uuid=${id}`), 'messages');
    const message = messages[0] === undefined ? null : maybeText(messages[0], 'user_message');
    return message === null ? '' : `: ${message}`;
  } catch {
    return '';
  }
}

/** Polls until the status is none of those that pass by themselves. `gone` ends as null when the object no longer exists. */
export async function waitFor(options: {
  client: ApiClient;
  kind: Kind;
  id: string;
  what: string;
  until: 'settled' | 'gone';
  signal: AbortSignal;
  /** Called at each look. */
  onLook?: () => Promise<void>;
}): Promise<Json | null> {
  const { client, kind, id } = options;
  for (let delayMs = POLL_MS_MIN; ; delayMs = Math.min(delayMs * POLL_GROWTH, POLL_MS_MAX)) {
    const found = await show(client, kind, id);
    await options.onLook?.();
    if (found === null) {
      if (options.until === 'gone') return null;
      throw new Failure('not_found', { kind: WORDS[kind].title, id });
    }
    const status = text(found, 'status');
    if (status.startsWith('error') && status !== 'error_extending') {
      const said = maybeText(found, 'fail_reason');
      const reason = said === null ? await reasonFor(client, id) : `: ${said}`;
      const next = options.until === 'gone' ? 'delete it again' : `delete it with \`quarry ${kind} delete ${id}\``;
      throw new OperationFailed(
        `${options.what} failed: ${kind} ${id} is in status ${status}${reason}. When the cause is gone, ${next}.`,
      );
    }
    if (status === 'error_extending') {
      throw new OperationFailed(`${options.what} failed: ${kind} ${id} kept its size${await reasonFor(client, id)}.`);
    }
    const isPassing = status.endsWith('ing') || status === 'restoring-backup';
    if (options.until === 'settled' && !isPassing) return found;
    await pause(delayMs, options.signal);
  }
}

export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(new Failure('cancelled'));
    const onAbort = () => {
      clearTimeout(timer);
      reject(new Failure('cancelled'));
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', onAbort);
      resolve();
    }, ms);
    signal.addEventListener('abort', onAbort, { once: true });
  });
}
