/**
 * Which action may begin in which status, what the status is meanwhile, and what it is afterwards. Status words are
 * Cinder's. Nothing else writes a status: `begin` and `finish` are the only callers of the catalog's compare-and-set.
 * docs/states.md is generated from these tables.
 */
import { Failure } from '../base/errors.ts';
import { attachmentsOf, connectionsOf } from '../catalog/attachments.ts';
import { findBackup } from '../catalog/backups.ts';
import type {
  BackupRow,
  GroupRow,
  GroupSnapshotRow,
  Reader,
  SnapshotRow,
  VolumeRow,
  Writer,
} from '../catalog/schema.ts';
import { findSnapshot } from '../catalog/snapshots.ts';
import { changePreviousStatus, changeStatus, statusOf } from '../catalog/status.ts';
import { findVolume } from '../catalog/volumes.ts';
import type { Caller } from './policy.ts';
import { requireVisible } from './visibility.ts';

export const VOLUME_STATUSES = [
  'creating',
  'available',
  'reserved',
  'attaching',
  'in-use',
  'detaching',
  'maintenance',
  'deleting',
  'error',
  'error_deleting',
  'error_extending',
  'error_managing',
  'error_restoring',
  'error_backing-up',
  'managing',
  'restoring-backup',
  'backing-up',
  'awaiting-transfer',
  'downloading',
  'uploading',
  'retyping',
  'extending',
  'reverting',
] as const;
export type VolumeStatus = (typeof VOLUME_STATUSES)[number];

export const SNAPSHOT_STATUSES = [
  'creating',
  'available',
  'deleting',
  'error',
  'error_deleting',
  'updating',
  'unmanaging',
  'backing-up',
  'restoring',
] as const;
export type SnapshotStatus = (typeof SNAPSHOT_STATUSES)[number];

export const GROUP_STATUSES = [
  'creating',
  'available',
  'updating',
  'deleting',
  'deleted',
  'error',
  'error_deleting',
] as const;
export type GroupStatus = (typeof GROUP_STATUSES)[number];

export const BACKUP_STATUSES = ['creating', 'available', 'deleting', 'error', 'error_deleting', 'restoring'] as const;
export type BackupStatus = (typeof BACKUP_STATUSES)[number];

export type Transition<Status extends string> = {
  /** Where it may begin; `any` is every status. Empty: the object does not exist before. */
  readonly from: readonly Status[] | 'any';
  /** Null: it happens at once, the status is `done` when the request is answered. */
  readonly during: Status | null;
  /** Null: the object is gone. `by-attachments`: what the volume's attachments make it, as they are by then. */
  readonly done: Status | 'previous' | 'by-attachments' | null;
  readonly failed: Status | 'previous';
};

const DELETABLE = ['available', 'error', 'error_restoring', 'error_extending', 'error_managing'] as const;

/** The statuses that say how far a volume's attachments are. */
const ATTACHED = ['available', 'reserved', 'attaching', 'in-use', 'detaching'] as const;

export const VOLUME = {
  create: { from: [], during: 'creating', done: 'available', failed: 'error' },
  delete: { from: DELETABLE, during: 'deleting', done: null, failed: 'error_deleting' },
  'force-delete': { from: 'any', during: 'deleting', done: null, failed: 'error_deleting' },
  extend: { from: ['available'], during: 'extending', done: 'previous', failed: 'error_extending' },
  'extend-in-use': { from: ['available', 'in-use'], during: 'extending', done: 'previous', failed: 'error_extending' },
  revert: { from: ['available'], during: 'reverting', done: 'available', failed: 'error' },
  backup: { from: ['available'], during: 'backing-up', done: 'previous', failed: 'previous' },
  'backup-in-use': { from: ['available', 'in-use'], during: 'backing-up', done: 'previous', failed: 'previous' },
  'fill-from-backup': { from: ['creating'], during: 'restoring-backup', done: 'available', failed: 'error' },
  // After the line above: whose work is lost with its task, is told the more careful of the two.
  restore: { from: ['available'], during: 'restoring-backup', done: 'available', failed: 'error_restoring' },
  reserve: { from: ['available'], during: null, done: 'attaching', failed: 'previous' },
  'reserve-multiattach': { from: ['available', 'in-use'], during: null, done: 'attaching', failed: 'previous' },
  unreserve: { from: ['attaching'], during: null, done: 'by-attachments', failed: 'previous' },
  attach: { from: ['available', 'attaching'], during: null, done: 'in-use', failed: 'previous' },
  'attach-multiattach': {
    from: ['available', 'attaching', 'in-use'],
    during: null,
    done: 'in-use',
    failed: 'previous',
  },
  'create-attachment': { from: ['available'], during: null, done: 'reserved', failed: 'previous' },
  'create-attachment-multiattach': {
    from: ['available', 'in-use'],
    during: null,
    done: 'reserved',
    failed: 'previous',
  },
  // For a server that has one already, and moves to another host.
  'create-another-attachment': {
    from: ['in-use', 'reserved'],
    during: null,
    done: 'by-attachments',
    failed: 'previous',
  },
  'connect-attachment': { from: ATTACHED, during: null, done: 'attaching', failed: 'previous' },
  'complete-attachment': { from: ATTACHED, during: null, done: 'in-use', failed: 'previous' },
  'begin-detaching': { from: ['in-use'], during: null, done: 'detaching', failed: 'previous' },
  'roll-detaching': { from: ['detaching'], during: null, done: 'in-use', failed: 'previous' },
  detach: { from: ATTACHED, during: null, done: 'by-attachments', failed: 'previous' },
  'detach-in-error': { from: [...ATTACHED, 'error'], during: null, done: 'by-attachments', failed: 'previous' },
  retype: { from: ['available', 'in-use'], during: 'retyping', done: 'previous', failed: 'previous' },
  offer: { from: ['available'], during: null, done: 'awaiting-transfer', failed: 'previous' },
  'withdraw-offer': { from: ['awaiting-transfer'], during: null, done: 'available', failed: 'previous' },
  'accept-transfer': { from: ['awaiting-transfer'], during: null, done: 'available', failed: 'previous' },
  fail: {
    from: ['available', 'reserved', 'attaching', 'in-use', 'detaching', 'maintenance', 'awaiting-transfer'],
    during: null,
    done: 'error',
    failed: 'error',
  },
} as const satisfies Record<string, Transition<VolumeStatus>>;

export const SNAPSHOT = {
  create: { from: [], during: 'creating', done: 'available', failed: 'error' },
  delete: { from: ['available', 'error'], during: 'deleting', done: null, failed: 'error_deleting' },
  'force-delete': { from: 'any', during: 'deleting', done: null, failed: 'error_deleting' },
  revert: { from: ['available'], during: 'restoring', done: 'available', failed: 'available' },
  backup: { from: ['available'], during: 'backing-up', done: 'previous', failed: 'previous' },
  fail: { from: ['available'], during: null, done: 'error', failed: 'error' },
} as const satisfies Record<string, Transition<SnapshotStatus>>;

/** An empty group is there at once; one with volumes takes as long as they do. */
export const GROUP = {
  'create-empty': { from: [], during: null, done: 'available', failed: 'error' },
  create: { from: [], during: 'creating', done: 'available', failed: 'error' },
  delete: { from: ['available', 'error'], during: 'deleting', done: null, failed: 'error' },
  'delete-with-volumes': { from: 'any', during: 'deleting', done: null, failed: 'error' },
} as const satisfies Record<string, Transition<GroupStatus>>;

export const GROUP_SNAPSHOT = {
  create: { from: [], during: 'creating', done: 'available', failed: 'error' },
  delete: { from: ['available', 'error'], during: 'deleting', done: null, failed: 'error' },
} as const satisfies Record<string, Transition<GroupStatus>>;

export const BACKUP = {
  create: { from: [], during: 'creating', done: 'available', failed: 'error' },
  delete: { from: ['available', 'error'], during: 'deleting', done: null, failed: 'error_deleting' },
  'force-delete': { from: 'any', during: 'deleting', done: null, failed: 'error_deleting' },
  restore: { from: ['available'], during: 'restoring', done: 'available', failed: 'available' },
} as const satisfies Record<string, Transition<BackupStatus>>;

/** What needs a volume or snapshot in a certain status without changing it. */
export const NEEDS = {
  'snapshot a volume': ['available'],
  'snapshot a volume in use': ['available', 'in-use'],
  'clone a volume': ['available', 'in-use', 'reserved', 'attaching', 'detaching', 'backing-up', 'awaiting-transfer'],
  'create from a snapshot': ['available', 'backing-up'],
  'change the read-only flag': ['available'],
  'initialize a connection': ATTACHED,
  'change metadata': VOLUME_STATUSES.filter((status) => status !== 'maintenance' && status !== 'uploading'),
  'update a volume': VOLUME_STATUSES.filter((status) => status !== 'maintenance'),
} as const satisfies Record<string, readonly string[]>;

/** Statuses in which a volume or snapshot has data that clients may reach. */
export const SERVED_NOT: ReadonlySet<string> = new Set(['creating', 'deleting', 'error_deleting']);

export type VolumeAction = keyof typeof VOLUME;
export type SnapshotAction = keyof typeof SNAPSHOT;
export type GroupAction = keyof typeof GROUP;
export type GroupSnapshotAction = keyof typeof GROUP_SNAPSHOT;
export type BackupAction = keyof typeof BACKUP;

type Tables = {
  volumes: { row: VolumeRow; action: VolumeAction };
  snapshots: { row: SnapshotRow; action: SnapshotAction };
  groups: { row: GroupRow; action: GroupAction };
  group_snapshots: { row: GroupSnapshotRow; action: GroupSnapshotAction };
  backups: { row: BackupRow; action: BackupAction };
};

type TableFacts = {
  readonly actions: Readonly<Record<string, Transition<string>>>;
  /** What it is called where it is missing, and where its status is wrong. */
  readonly kind: string;
  readonly invalid: string;
};

const FACTS: Readonly<Record<keyof Tables, TableFacts>> = {
  volumes: { actions: VOLUME, kind: 'Volume', invalid: 'volume' },
  snapshots: { actions: SNAPSHOT, kind: 'Snapshot', invalid: 'snapshot' },
  groups: { actions: GROUP, kind: 'Group', invalid: 'Group' },
  group_snapshots: { actions: GROUP_SNAPSHOT, kind: 'GroupSnapshot', invalid: 'GroupSnapshot' },
  backups: { actions: BACKUP, kind: 'Backup', invalid: 'backup' },
};

function transition(table: keyof Tables, action: string): Transition<string> {
  const found = FACTS[table].actions[action];
  if (found === undefined) throw new Error(`no transition ${table}.${action}`);
  return found;
}

export type Begin<Table extends keyof Tables> = {
  readonly table: Table;
  readonly id: string;
  readonly action: Tables[Table]['action'];
  readonly nowUs: number;
};

/** Checks the status and changes it, in one step. The row as changed, or a refusal that names the status needed. */
export async function begin<Table extends keyof Tables>(
  writer: Writer,
  step: Begin<Table>,
): Promise<Tables[Table]['row']> {
  const row = await tryBegin(writer, step);
  if (row !== null) return row;
  const { table, id, action } = step;
  const now = await statusOf(writer, table, id);
  if (now === undefined) throw new Failure('not_found', { kind: FACTS[table].kind, id });
  const { from } = transition(table, action);
  throw refusal({ table, id, status: now.status, needed: from === 'any' ? [] : from, code: codeFor(action) });
}

/** The same, for what is done only if it can be: null when the status forbids it. */
export async function tryBegin<Table extends keyof Tables>(
  writer: Writer,
  step: Begin<Table>,
): Promise<Tables[Table]['row'] | null> {
  const { from, during, done } = transition(step.table, step.action);
  const to = during ?? (done === 'by-attachments' ? await statusByAttachments(writer, step.id) : done);
  if (to === null || to === 'previous') throw new Error(`${step.table}.${step.action} leads nowhere`);
  const row = await changeStatus(writer, step.table, {
    id: step.id,
    from: from === 'any' ? null : from,
    to,
    previous: during === null ? 'forget' : 'remember',
    nowUs: step.nowUs,
  });
  return row ?? null;
}

/** The furthest of its attachments decides. */
export async function statusByAttachments(reader: Reader, volumeId: string): Promise<VolumeStatus> {
  const attachments = await attachmentsOf(reader, volumeId);
  if (attachments.some(({ status }) => status === 'attached')) return 'in-use';
  const connected = new Set((await connectionsOf(reader, volumeId)).map((connection) => connection.attachment_id));
  if (attachments.some(({ id }) => connected.has(id))) return 'attaching';
  return attachments.length > 0 ? 'reserved' : 'available';
}

/**
 * After attachments of a volume were removed. Work under way keeps its status and ends in the one that is right then;
 * what is neither keeps its status, such as `error` of a volume whose disk failed.
 */
export async function followAttachments(
  writer: Writer,
  { id, isFailed, nowUs }: { id: string; isFailed: boolean; nowUs: number },
): Promise<void> {
  const action = isFailed ? 'detach' : 'detach-in-error';
  if ((await tryBegin(writer, { table: 'volumes', id, action, nowUs })) !== null) return;
  await changePreviousStatus(writer, { id, from: ATTACHED, to: await statusByAttachments(writer, id) });
}

export function isAllowedIn(row: VolumeRow, action: VolumeAction): boolean {
  const { from } = transition('volumes', action);
  return from === 'any' || from.includes(row.status);
}

/** The refusal that `begin` would give; for what must be done before the status can change. */
export function requireAction(row: VolumeRow, action: VolumeAction): void {
  const { from } = transition('volumes', action);
  if (from === 'any' || isAllowedIn(row, action)) return;
  throw refusal({ table: 'volumes', id: row.id, status: row.status, needed: from, code: codeFor(action) });
}

export type Finish<Table extends keyof Tables> = Begin<Table> & { readonly outcome: 'done' | 'failed' };

/** Ends an action. A status that an administrator set meanwhile stays; then, and for rows that are gone, null. */
export async function finish<Table extends keyof Tables>(
  writer: Writer,
  { table, id, action, nowUs, outcome }: Finish<Table>,
): Promise<Tables[Table]['row'] | null> {
  const { during, done, failed } = transition(table, action);
  if (during === null) throw new Error(`${table}.${action} ends when it begins`);
  const wanted = outcome === 'done' ? done : failed;
  if (wanted === 'by-attachments') throw new Error(`${table}.${action} has no end of its own`);
  if (wanted === null) throw new Error(`${table}.${action} ends with the removal of the row`);
  const before = await statusOf(writer, table, id);
  if (before === undefined) return null;
  const to = wanted === 'previous' ? (before.previous_status ?? 'available') : wanted;
  return (await changeStatus(writer, table, { id, from: [during], to, previous: 'forget', nowUs })) ?? null;
}

/** An administrator's word; stops no work under way. */
export async function resetStatus<Table extends keyof Tables>(
  writer: Writer,
  reset: { table: Table; id: string; status: string; nowUs: number },
): Promise<void> {
  const { table, id, status, nowUs } = reset;
  await changeStatus(writer, table, { id, from: null, to: status, previous: 'forget', nowUs });
}

/** The status of a row at its insertion. */
export function initialStatus(table: keyof Tables): string {
  return transition(table, 'create').during ?? 'available';
}

export function requireStatus(row: VolumeRow | SnapshotRow, need: keyof typeof NEEDS): void {
  const needed: readonly string[] = NEEDS[need];
  if (needed.includes(row.status)) return;
  const table = 'volume_id' in row ? 'snapshots' : 'volumes';
  throw refusal({ table, id: row.id, status: row.status, needed, code: 'wrong_state' });
}

/** Statuses that only a task ends: after a crash each must have one, or be ended as failed. */
export function passing(table: keyof Tables): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  for (const { during, failed } of Object.values(FACTS[table].actions)) if (during !== null) found.set(during, failed);
  return found;
}

export async function endPassing<Table extends keyof Tables>(
  writer: Writer,
  { table, row, nowUs }: { table: Table; row: Tables[Table]['row']; nowUs: number },
): Promise<string | null> {
  const failed = passing(table).get(row.status);
  if (failed === undefined) return null;
  const to = failed === 'previous' ? (row.previous_status ?? 'available') : failed;
  const changed = await changeStatus(writer, table, { id: row.id, from: [row.status], to, previous: 'forget', nowUs });
  return changed === undefined ? null : to;
}

export async function visibleVolume(
  reader: Parameters<typeof findVolume>[0],
  caller: Caller,
  id: string,
): Promise<VolumeRow> {
  return requireVisible(caller, await findVolume(reader, id), { kind: 'Volume', id });
}

export async function visibleSnapshot(
  reader: Parameters<typeof findSnapshot>[0],
  caller: Caller,
  id: string,
): Promise<SnapshotRow> {
  return requireVisible(caller, await findSnapshot(reader, id), { kind: 'Snapshot', id });
}

export async function visibleBackup(
  reader: Parameters<typeof findBackup>[0],
  caller: Caller,
  id: string,
): Promise<BackupRow> {
  return requireVisible(caller, await findBackup(reader, id), { kind: 'Backup', id });
}

function codeFor(action: string): 'wrong_state' | 'conflict' {
  // Clients expect 409 for this action alone.
  return action === 'revert' ? 'conflict' : 'wrong_state';
}

function refusal(about: {
  table: keyof Tables;
  id: string;
  status: string;
  needed: readonly string[];
  code: 'wrong_state' | 'conflict';
}): Failure {
  const { table, id, status, needed, code } = about;
  const { kind, invalid } = FACTS[table];
  const reason = `Invalid ${invalid}: ${kind} ${id} status must be ${needed.join(' or ')}, but current status is: ${status}.`;
  return new Failure(code, { reason });
}
