/**
 * Volumes and snapshots that the plane knows: handles, names, and what is under way with them. Opened at the first
 * publish, closed when they are deleted or reverted.
 */

import type { ExportMode, Plane, SpeedLimits, VolumeHandle } from '../native/plane.ts';
import type { State, StoredObject } from './state.ts';

export type Opened = {
  readonly handle: VolumeHandle;
  readonly object: StoredObject;
  /** Export names with their modes. */
  readonly names: Map<string, ExportMode>;
  /** Freezes asked for whose record is not applied yet: meanwhile no leaf may be given with own entries. */
  freezing: number;
  /** Why it refuses I/O; final while it is open. */
  failure: string | null;
};

export class Exports {
  readonly #plane: Plane;
  readonly #byHandle = new Map<VolumeHandle, Opened>();
  readonly #byNumber = new Map<number, Opened>();
  readonly #byName = new Map<string, Opened>();
  /** By id; given to the plane whenever it opens the object. Not kept beyond the process. */
  readonly #limits = new Map<string, SpeedLimits>();
  #lastHandle = 0;

  constructor(plane: Plane) {
    this.#plane = plane;
  }

  get(handle: VolumeHandle): Opened | undefined {
    return this.#byHandle.get(handle);
  }

  of(object: StoredObject): Opened | undefined {
    return this.#byNumber.get(object.number);
  }

  named(name: string): Opened | undefined {
    return this.#byName.get(name);
  }

  all(): Iterable<Opened> {
    return this.#byHandle.values();
  }

  open(object: StoredObject): Opened {
    const known = this.#byNumber.get(object.number);
    if (known !== undefined) return known;
    this.#lastHandle += 1;
    const opened: Opened = { handle: this.#lastHandle, object, names: new Map(), freezing: 0, failure: null };
    const readOnly = object.kind === 'snapshot';
    this.#plane.openVolume({ handle: opened.handle, sizeBytes: object.sizeBytes, readOnly });
    const limits = this.#limits.get(object.id);
    if (limits !== undefined) this.#plane.setLimits(opened.handle, limits);
    this.#byHandle.set(opened.handle, opened);
    this.#byNumber.set(object.number, opened);
    return opened;
  }

  setLimits(object: StoredObject, limits: SpeedLimits): void {
    this.#limits.set(object.id, limits);
    const opened = this.#byNumber.get(object.number);
    if (opened !== undefined) this.#plane.setLimits(opened.handle, limits);
  }

  /** Of an object that is gone: another one with its id begins without. */
  forgetLimits(id: string): void {
    this.#limits.delete(id);
  }

  publish(opened: Opened, name: string, mode: ExportMode): void {
    this.#plane.publish({ name, handle: opened.handle, ...mode });
    opened.names.set(name, mode);
    this.#byName.set(name, opened);
  }

  /** For who fills it. */
  publishFill(opened: Opened, name: string): void {
    this.#plane.publishFill({ name, handle: opened.handle });
    opened.names.set(name, { readOnly: false, isListed: false, isInternal: true, description: '' });
    this.#byName.set(name, opened);
  }

  async unpublish(name: string): Promise<void> {
    const opened = this.#byName.get(name);
    if (opened === undefined) return;
    this.#byName.delete(name);
    opened.names.delete(name);
    await this.#plane.unpublish(name);
  }

  connections(opened: Opened): number {
    return this.#plane.volumeStats(opened.handle).connections;
  }

  /** Its clients are cut off, its last capture is handled, its grants have come back. */
  async close(opened: Opened): Promise<void> {
    for (const name of [...opened.names.keys()]) await this.unpublish(name);
    await this.#plane.closeVolume(opened.handle);
    this.#byHandle.delete(opened.handle);
    this.#byNumber.delete(opened.object.number);
  }
}

/** Snapshots that an object has in its past, the newest first: of its volume, and of what that was cloned from, up to then. */
export function snapshotsBehind(state: State, object: StoredObject): StoredObject[] {
  const bySource = new Map<number, StoredObject[]>();
  for (const candidate of state.objects.values()) {
    if (candidate.kind !== 'snapshot') continue;
    const siblings = bySource.get(candidate.sourceNumber);
    if (siblings === undefined) bySource.set(candidate.sourceNumber, [candidate]);
    else siblings.push(candidate);
  }
  const found: StoredObject[] = [];
  let before = Number.POSITIVE_INFINITY;
  for (let at: StoredObject | undefined = object; at !== undefined; at = state.objects.get(at.sourceNumber)) {
    if (at !== object && at.kind === 'snapshot') found.push(at);
    // Numbers ascend: a child has seen its source's snapshots with smaller ones.
    for (const snapshot of (bySource.get(at.number) ?? []).sort((a, b) => b.number - a.number))
      if (snapshot.number < before) found.push(snapshot);
    before = at.number;
  }
  return found;
}

/** The first ancestor that is known: objects that may share pages have the same one. Only a hint. */
export function lineageOf(state: State, object: StoredObject): number {
  let at = object;
  for (;;) {
    const source = state.objects.get(at.sourceNumber);
    if (source === undefined) return at.sourceNumber === 0 ? at.number : at.sourceNumber;
    at = source;
  }
}
