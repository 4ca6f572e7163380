/**
 * Keeps the speed limits of volumes in force. What a limit should be is read from the catalog at the moment of setting
 * it; the backend forgets all of them when the process ends. So every volume is looked at again at a start, and whoever
 * changes what a limit follows from (specs, types, sizes) says so here. What fails is tried again until it works.
 */

import type { VolumeLimits } from '../backend/backend.ts';
import { Failure } from '../base/errors.ts';
import { findQosSpec, qosValuesOf, volumesWithQos } from '../catalog/qos-specs.ts';
import type { Reader, VolumeRow } from '../catalog/schema.ts';
import { findType } from '../catalog/types.ts';
import { findVolume } from '../catalog/volumes.ts';
import type { Control } from './control.ts';
import { CONSUMERS, frontEndOf, limitsOf, type QosRules } from './limit-rules.ts';
import type { Specs } from './types.ts';

/** Volumes whose limits are being set at the same time. */
const AT_ONCE_MAX = 16;
const RETRY_MS = [100, 500, 2000, 10_000] as const;
/** What the backend has may be anything: it must be told. */
const UNKNOWN = 'unknown';
const NONE = 'null';

export type VolumeQos = {
  /** What the host that uses the volume is told to keep to; null: nothing. */
  readonly frontEnd: Specs | null;
  readonly limits: VolumeLimits | null;
};

export async function qosOf(control: Control, row: Pick<VolumeRow, 'type_id' | 'size_gib'>): Promise<VolumeQos> {
  const rules = await rulesOfType(control.catalog.reader, row.type_id);
  return { frontEnd: frontEndOf(rules, row.size_gib), limits: limitsOf(rules, row.size_gib) };
}

/** As the volume's type and size say now. */
export async function applyLimits(control: Control, volumeId: string): Promise<void> {
  await control.limits.apply(volumeId);
}

async function rulesOfType(reader: Reader, typeId: string): Promise<QosRules | null> {
  const type = await findType(reader, typeId);
  const specId = type?.qos_spec_id ?? null;
  if (specId === null) return null;
  const spec = await findQosSpec(reader, specId);
  const consumer = CONSUMERS.find((word) => word === spec?.consumer);
  if (consumer === undefined) return null;
  const values = await qosValuesOf(reader, specId);
  return { consumer, specs: Object.fromEntries(values.map(({ key, value }) => [key, value])) };
}

export class LimitKeeper {
  readonly #control: Control;
  readonly #pause: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly #stop = new AbortController();
  /** What the backend was told last, as text; volumes without limits that never had any are not in it. */
  readonly #told = new Map<string, string>();
  /** The last change under way per volume: changes of one volume happen in order. */
  readonly #changing = new Map<string, Promise<void>>();
  readonly #failing = new Set<string>();
  #isRetrying = false;
  readonly #running = new Set<Promise<void>>();

  constructor(control: Control, pause: (ms: number, signal: AbortSignal) => Promise<void>) {
    this.#control = control;
    this.#pause = pause;
  }

  /** At a start, before anybody is served. A volume whose limits cannot be set is served all the same. */
  async applyAll(): Promise<void> {
    const rows = await volumesWithQos(this.#control.catalog.reader);
    const failed = await this.#applyEach(rows.map((row) => row.id));
    this.#retryLater(failed);
  }

  /** Before a volume can be reached, or when it must be certain. */
  async apply(id: string): Promise<void> {
    const before = this.#changing.get(id) ?? Promise.resolve();
    const change = before.then(() => this.#tell(id));
    // The chain goes on after a failure; the failure is the caller's.
    const settled = change.catch(() => {});
    this.#changing.set(id, settled);
    try {
      await change;
    } finally {
      if (this.#changing.get(id) === settled) this.#changing.delete(id);
    }
  }

  /** After a commit that may have changed limits: they follow at once, as far as possible, and otherwise later. */
  refresh(ids: readonly string[]): void {
    if (ids.length === 0 || this.#stop.signal.aborted) return;
    this.#run(async () => this.#retryLater(await this.#applyEach(ids)));
  }

  /** The volume is gone from the backend. */
  forget(id: string): void {
    this.#told.delete(id);
  }

  /** Resolves when nothing is under way and nothing waits to be tried again. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }

  stop(): void {
    this.#stop.abort();
  }

  async close(): Promise<void> {
    this.stop();
    await this.idle();
  }

  async #tell(id: string): Promise<void> {
    const row = await findVolume(this.#control.catalog.reader, id);
    if (row === undefined) return;
    const { limits } = await qosOf(this.#control, row);
    const text = JSON.stringify(limits);
    if ((this.#told.get(id) ?? NONE) === text) return;
    this.#told.set(id, UNKNOWN);
    await this.#control.backend.setLimits({ id, limits });
    if (limits === null) this.#told.delete(id);
    else this.#told.set(id, text);
  }

  /** Which could not be done. */
  async #applyEach(ids: readonly string[]): Promise<string[]> {
    const failed: string[] = [];
    const left = [...ids];
    const work = async (): Promise<void> => {
      for (let id = left.pop(); id !== undefined && !this.#stop.signal.aborted; id = left.pop())
        if (!(await this.#tried(id))) failed.push(id);
    };
    await Promise.all(Array.from({ length: Math.min(AT_ONCE_MAX, ids.length) }, work));
    return failed;
  }

  async #tried(id: string): Promise<boolean> {
    try {
      await this.apply(id);
      return true;
    } catch (error) {
      // Not there yet, or no longer: who makes a volume sets its limits before it can be reached.
      if (error instanceof Failure && error.code === 'not_found') {
        this.forget(id);
        return true;
      }
      if (this.#stop.signal.aborted) return true;
      this.#control.log.warn({ id, err: error }, 'the limits of a volume could not be set; trying again');
      return false;
    }
  }

  /** One loop for all that fail, however they came to it. */
  #retryLater(ids: readonly string[]): void {
    for (const id of ids) this.#failing.add(id);
    if (this.#failing.size === 0 || this.#isRetrying) return;
    this.#isRetrying = true;
    this.#run(async () => {
      for (let attempt = 0; this.#failing.size > 0 && !this.#stop.signal.aborted; attempt += 1) {
        await this.#pause(RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)] ?? 0, this.#stop.signal);
        const left = [...this.#failing];
        this.#failing.clear();
        for (const id of await this.#applyEach(left)) this.#failing.add(id);
      }
      this.#isRetrying = false;
    });
  }

  #run(work: () => Promise<void>): void {
    const running = work()
      .catch((error: unknown) => this.#control.log.error({ err: error }, 'limits of volumes could not be looked at'))
      .finally(() => this.#running.delete(running));
    this.#running.add(running);
  }
}
