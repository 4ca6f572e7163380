/**
 * What every verb of the control plane works with, put together once. It knows that there is a catalog and a backend,
 * not which.
 */
import type { BackendEvent, VolumeBackend } from '../backend/backend.ts';
import { Failure } from '../base/errors.ts';
import type { RootLog } from '../base/log.ts';
import type { Metrics } from '../base/metrics.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { type BackupOptions, BackupStore } from './backup-store.ts';
import { Exports } from './exports.ts';
import { Fills } from './fills.ts';
import { ensureReservedGroupType } from './group-types.ts';
import { Healer } from './healer.ts';
import { LimitKeeper } from './limits.ts';
import { tellLevel } from './pool-level.ts';
import { failObject, settleLeftovers } from './recovery.ts';
import { ScheduleRunner } from './schedule-runner.ts';
import { Tasks } from './tasks.ts';
import { Turns } from './turns.ts';
import { ensureDefaultType } from './types.ts';

/** The engine's limit: 64 TiB. */
export const VOLUME_GIB_MAX = 65536;
export const GIB = 2 ** 30;
export const METADATA_KEYS_MAX = 256;

export type QuotaDefaults = Readonly<Record<QuotaResource, number>>;
export const QUOTA_RESOURCES = [
  'volumes',
  'snapshots',
  'gigabytes',
  'backups',
  'backup_gigabytes',
  'per_volume_gigabytes',
  'groups',
] as const;
export type QuotaResource = (typeof QUOTA_RESOURCES)[number];

/** How the API knows who asks. */
export const AUTH_KINDS = ['none', 'token', 'keystone'] as const;
export type AuthKind = (typeof AUTH_KINDS)[number];

export type Settings = {
  readonly version: string;
  readonly auth: AuthKind;
  readonly availabilityZone: string;
  /** The host part of `host@backend#pool`. */
  readonly host: string;
  readonly quotaDefaults: QuotaDefaults;
  /** Every volume and snapshot is published under its id, and volumes under unique names. */
  readonly publishAll: boolean;
  /** Under which name clients reach the NBD listeners on TCP; null: under the addresses they listen on. */
  readonly nbdPublicHost: string | null;
  /** Only another service may end an attachment that has a connection and a server. */
  readonly requireServiceToken: boolean;
};

export type ControlOptions = {
  readonly catalog: Catalog;
  readonly backend: VolumeBackend & { readonly nbdAddresses: readonly string[]; readonly nbdRequiresTls?: boolean };
  readonly log: RootLog;
  readonly metrics: Metrics;
  readonly settings: Settings;
  readonly backups: BackupOptions;
  readonly newId: () => string;
  /** 128 random bits as 32 hex digits: what must not be guessed. */
  readonly newSecret: () => string;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** Resolves after a while, or when the signal says so; for repeating what failed. */
  readonly pause: (ms: number, signal: AbortSignal) => Promise<void>;
};

export class Control {
  readonly catalog: Catalog;
  readonly backend: ControlOptions['backend'];
  readonly log: RootLog;
  readonly metrics: Metrics;
  readonly settings: Settings;
  readonly newId: () => string;
  readonly newSecret: () => string;
  readonly exports: Exports;
  readonly limits: LimitKeeper;
  readonly backups: BackupStore;
  readonly schedules: ScheduleRunner;
  readonly fills: Fills;
  /** Whoever changes the attachments of a volume, by the volume's id. */
  readonly turns = new Turns();
  readonly healer: Healer;
  readonly tasks: Tasks;
  readonly startedAtUs: number;
  readonly #now: () => number;
  #lastUs = 0;

  constructor(options: ControlOptions) {
    this.catalog = options.catalog;
    this.backend = options.backend;
    this.log = options.log;
    this.metrics = options.metrics;
    this.settings = options.settings;
    this.newId = options.newId;
    this.newSecret = options.newSecret;
    this.#now = options.now;
    this.exports = new Exports(this);
    this.limits = new LimitKeeper(this, options.pause);
    this.backups = new BackupStore(this, options.backups);
    this.schedules = new ScheduleRunner(this);
    this.fills = new Fills(this, { waitMs: options.backups.fillWaitMs, pause: options.pause });
    this.healer = new Healer(this);
    this.tasks = new Tasks(this, options.pause);
    this.startedAtUs = this.nowUs();
  }

  /** Microseconds since 1970, each later than the one before: what was made earlier sorts earlier. */
  nowUs(): number {
    this.#lastUs = Math.max(this.#now() * 1000, this.#lastUs + 1);
    return this.#lastUs;
  }

  /** Resumes what a crash or stop interrupted, and publishes everything again. */
  async start(): Promise<void> {
    await ensureDefaultType(this);
    await ensureReservedGroupType(this);
    const resumed = await this.tasks.load();
    await settleLeftovers(this, resumed);
    // Before anybody is served: limits were forgotten with the process that set them.
    await this.limits.applyAll();
    await this.fills.beginAll();
    await this.exports.publishAtStart();
    await this.backups.dropBasesQuietly(null);
    this.tasks.resume(resumed);
  }

  /** Tells of what happened in the backend by itself. */
  async backendEvent(event: BackendEvent): Promise<void> {
    if (event.kind === 'pool-level') return tellLevel(this.log, event);
    if (event.kind === 'damage') return this.healer.found(event);
    if (event.kind === 'bytes-wanted') return this.fills.want(event.id, event.offset);
    this.log.error({ id: event.id, reason: event.reason }, 'a volume refuses I/O');
    await failObject(this, event);
  }

  /** The backend is lost and the process about to end: what fails now must not be taken for the volumes' failure. */
  abandon(): void {
    this.schedules.stop();
    this.fills.stop();
    this.backups.stop();
    this.tasks.stop();
    this.limits.stop();
  }

  /** Tasks under way get to their next step; what they did not finish goes on at the next start. */
  async close(): Promise<void> {
    await this.schedules.close();
    this.tasks.stop();
    await this.backups.close();
    await this.healer.close();
    await this.fills.close();
    await this.tasks.close();
    await this.limits.close();
  }
}

/** How many clients are connected to any of these. */
export async function connectionsTo(control: Control, ids: readonly string[]): Promise<number> {
  const usages = await control.backend.usage(ids);
  return usages.reduce((sum, usage) => sum + usage.connections, 0);
}

export async function refuseWhileConnected(
  control: Control,
  about: { kind: 'volume' | 'snapshot'; id: string; ids: readonly string[]; code: 'wrong_state' | 'conflict' },
): Promise<void> {
  const connections = await connectionsTo(control, about.ids);
  if (connections === 0) return;
  const clients = connections === 1 ? '1 NBD client is' : `${connections} NBD clients are`;
  const reason = `Invalid ${about.kind}: ${clients} connected to ${about.kind} ${about.id}. Disconnect first.`;
  throw new Failure(about.code, { reason });
}
