/** A pool on a simulated disk, opened; with the few things that most tests do to it. */

import { type CheckReport, checkPool } from '../../src/engine/check.ts';
import { type Engine, type EngineOptions, openEngine } from '../../src/engine/engine.ts';
import type { StoreEvent } from '../../src/engine/volume-store.ts';
import { SimClock } from '../sim/clock.ts';
import { SimDisk } from '../sim/files.ts';
import { SimPlane } from '../sim/plane.ts';

export const KIB = 1024;
export const MIB = 2 ** 20;
export const GIB = 2 ** 30;
export const EXTENT = 64 * KIB;
export const BLOCK = 4 * KIB;

export type Pool = {
  readonly disk: SimDisk;
  readonly plane: SimPlane;
  readonly clock: SimClock;
  readonly engine: Engine;
  readonly events: StoreEvent[];
  /** What the process would have ended with. */
  readonly fatal: Error[];
  /** The plane's handle of a volume or snapshot, published if it was not. */
  handle(id: string): Promise<number>;
  write(id: string, offset: number, source: Uint8Array): Promise<void>;
  read(id: string, offset: number, length: number): Promise<Uint8Array>;
  trim(id: string, offset: number, length: number): Promise<void>;
  flush(id: string): Promise<void>;
};

export function newDisk(seed = 1, totalBytes = GIB): SimDisk {
  return new SimDisk({ seed, totalBytes });
}

export function uuid(number: number): string {
  return `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`;
}

export function bytes(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

export async function openPool(disk: SimDisk, options: Partial<EngineOptions> = {}): Promise<Pool> {
  const clock = new SimClock();
  const events: StoreEvent[] = [];
  const fatal: Error[] = [];
  let opened: Engine | null = null;
  const plane = new SimPlane(disk, () => opened?.onPlaneEvents());
  const engine = await openEngine({
    files: disk,
    plane,
    clock,
    // Disks of tests are small; who tests what may be promised says so.
    options: {
      maxOverSubscription: Number.POSITIVE_INFINITY,
      reserveBytes: 0,
      journalHalfBytes: 256 * KIB,
      cleanPagesMax: 64,
      ...options,
    },
    onEvent: (event) => events.push(event),
    onFatal: (error) => fatal.push(error),
  });
  opened = engine;
  const handle = async (id: string): Promise<number> => {
    await engine.publish({ name: id, targetId: id, readOnly: false, isListed: true, description: '' });
    return plane.handleOf(id);
  };
  return {
    disk,
    plane,
    clock,
    engine,
    events,
    fatal,
    handle,
    write: async (id, offset, source) => plane.write(await handle(id), offset, source),
    read: async (id, offset, length) => plane.read(await handle(id), offset, length),
    trim: async (id, offset, length) => plane.trim(await handle(id), offset, length),
    flush: async (id) => plane.flushClient(await handle(id)),
  };
}

/** The power goes, and comes back. */
export function afterPowerLoss(pool: Pool): SimDisk {
  pool.disk.powerOff();
  return pool.disk.afterCrash();
}

/** Lets everything that is not waiting for somebody happen. */
export async function quiet(): Promise<void> {
  for (let turns = 0; turns < 20; turns += 1) await new Promise<void>((resolve) => setImmediate(resolve));
}

export function check(disk: SimDisk): CheckReport {
  return checkPool(disk);
}
