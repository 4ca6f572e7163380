/**
 * A backend that holds facts only: which volumes and snapshots there are, how large, which blocks of 64 KiB are mapped
 * and by which write. No bytes, no sockets; for tests of what is above, and held to the same contract as the real one.
 */
import { Failure } from '../base/errors.ts';
import { speedLimitsOf } from '../native/speed-limits.ts';
import type {
  BackendEvent,
  ByteRange,
  FillRange,
  PoolLevel,
  PoolStats,
  PublishOptions,
  ScrubStatus,
  VolumeBackend,
  VolumeLimits,
  VolumeSpace,
  VolumeUsage,
} from './backend.ts';

const BLOCK_BYTES = 65536;
const CAPACITY_BYTES = 2 ** 40;

type Thing = {
  readonly kind: 'volume' | 'snapshot';
  sizeBytes: number;
  /** The write that filled each block; two things share a block where the numbers are equal. */
  blocks: Map<number, number>;
  readonly volumeId: string | null;
  connections: number;
  failed: string | null;
  limits: VolumeLimits | null;
};

/** Where something is still to come, and the places that were given up. */
type Filling = { readonly ranges: FillRange[]; readonly failed: number[] };

type Published = { readonly targetId: string; readonly readOnly: boolean; readonly isListed: boolean };

export class MemoryBackend implements VolumeBackend {
  readonly nbdAddresses: readonly string[] = ['unix:/nowhere/nbd.sock'];
  readonly internalAddress = 'unix:/nowhere/internal.sock';
  readonly #things = new Map<string, Thing>();
  readonly #published = new Map<string, Published>();
  readonly #filling = new Map<string, Filling>();
  #onEvent: (event: BackendEvent) => void = () => {};
  #lastWrite = 0;
  level: PoolLevel = 'ok';
  /** More than this may not be promised. */
  provisionedBytesMax = Number.POSITIVE_INFINITY;

  onEvent(listener: (event: BackendEvent) => void): void {
    this.#onEvent = listener;
  }

  async createVolume({ id, sizeBytes, sourceId }: { id: string; sizeBytes: number; sourceId: string | null }) {
    if (this.#things.has(id)) return;
    requireBlocks(sizeBytes);
    const source = sourceId === null ? null : this.#require(sourceId);
    if (sourceId !== null) this.#refuseFilling(sourceId);
    if (source !== null && source.sizeBytes > sizeBytes) {
      const reason = `volume ${id} of ${sizeBytes} bytes is smaller than its source ${sourceId} of ${source.sizeBytes}`;
      throw new Failure('bad_request', { reason });
    }
    this.#requireRoom(sizeBytes);
    const blocks = new Map(source?.blocks ?? []);
    this.#things.set(id, {
      kind: 'volume',
      sizeBytes,
      blocks,
      volumeId: null,
      connections: 0,
      failed: null,
      limits: null,
    });
  }

  async delete(id: string) {
    const thing = this.#things.get(id);
    if (thing === undefined) return;
    if (thing.connections > 0)
      throw new Failure('wrong_state', { reason: `${thing.connections} clients are connected to ${id}` });
    for (const [name, { targetId }] of this.#published) if (targetId === id) this.#published.delete(name);
    this.#things.delete(id);
    this.#filling.delete(id);
  }

  async resizeVolume({ id, sizeBytes }: { id: string; sizeBytes: number }) {
    const thing = this.#require(id);
    requireBlocks(sizeBytes);
    if (sizeBytes < thing.sizeBytes)
      throw new Failure('bad_request', {
        reason: `volume ${id} has ${thing.sizeBytes} bytes and cannot shrink to ${sizeBytes}`,
      });
    this.#requireRoom(sizeBytes - thing.sizeBytes);
    thing.sizeBytes = sizeBytes;
  }

  async createSnapshot({ id, volumeId }: { id: string; volumeId: string }) {
    if (this.#things.has(id)) return;
    const { sizeBytes, blocks } = this.#require(volumeId);
    this.#refuseFilling(volumeId);
    this.#things.set(id, {
      kind: 'snapshot',
      sizeBytes,
      blocks: new Map(blocks),
      volumeId,
      connections: 0,
      failed: null,
      limits: null,
    });
  }

  async createSnapshots(wanted: readonly { id: string; volumeId: string }[]) {
    const ids = new Set(wanted.map(({ id }) => id));
    if (ids.size < wanted.length)
      throw new Failure('bad_request', { reason: `a snapshot is asked for twice: ${wanted.map(({ id }) => id)}` });
    const known = [...ids].filter((id) => this.#things.has(id));
    if (known.some((id) => this.#things.get(id)?.kind === 'volume') || ![0, ids.size].includes(known.length))
      throw new Failure('conflict', { reason: `${known} exist already` });
    if (known.length > 0) return;
    for (const { volumeId } of wanted) this.#require(volumeId);
    for (const { volumeId } of wanted) this.#refuseFilling(volumeId);
    for (const one of wanted) await this.createSnapshot(one);
  }

  async setLimits({ id, limits }: { id: string; limits: VolumeLimits | null }) {
    speedLimitsOf(limits);
    this.#require(id).limits = limits;
  }

  async revertVolume({ id, snapshotId }: { id: string; snapshotId: string }) {
    const thing = this.#require(id);
    const { sizeBytes, blocks } = this.#require(snapshotId);
    this.#refuseFilling(id);
    thing.sizeBytes = sizeBytes;
    thing.blocks = new Map(blocks);
  }

  async publish(options: PublishOptions) {
    const { name, targetId, readOnly, isListed } = options;
    this.#require(targetId);
    const known = this.#published.get(name);
    if (known?.targetId === targetId) return;
    if (known !== undefined) throw new Failure('conflict', { reason: `export ${name} belongs to ${known.targetId}` });
    this.#published.set(name, { targetId, readOnly, isListed });
  }

  async unpublish(name: string) {
    const known = this.#published.get(name);
    if (known === undefined) return;
    this.#published.delete(name);
    const thing = this.#things.get(known.targetId);
    const isReachable = [...this.#published.values()].some(({ targetId }) => targetId === known.targetId);
    if (thing !== undefined && !isReachable) thing.connections = 0;
  }

  async beginFill({ id, ranges }: { id: string; ranges: readonly FillRange[] }) {
    this.#require(id);
    if (this.#filling.has(id)) return;
    if ([...this.#published.values()].some(({ targetId }) => targetId === id))
      throw new Failure('conflict', { reason: `${id} is published already` });
    this.#filling.set(id, { ranges: [...ranges], failed: [] });
  }

  async narrowFill({ id, ranges }: { id: string; ranges: readonly FillRange[] }) {
    const filling = this.#filling.get(id);
    if (filling === undefined) return;
    const isLeft = (offset: number) => !ranges.some((range) => isInside(range, offset));
    const left: FillRange[] = filling.ranges.flatMap(({ offset, length }) => {
      const blocks = Array.from({ length: Math.ceil(length / BLOCK_BYTES) }, (_, at) => offset + at * BLOCK_BYTES);
      return blocks.filter(isLeft).map((at) => ({ offset: at, length: BLOCK_BYTES }));
    });
    filling.ranges.splice(0, filling.ranges.length, ...left);
  }

  async failFill({ id, offset }: { id: string; offset: number }) {
    this.#filling.get(id)?.failed.push(offset);
  }

  async endFill(id: string) {
    this.#filling.delete(id);
  }

  async publishFill({ name, targetId }: { name: string; targetId: string }) {
    if (!this.#filling.has(targetId)) throw new Failure('wrong_state', { reason: `${targetId} is not being filled` });
    this.#published.set(name, { targetId, readOnly: false, isListed: false });
  }

  #refuseFilling(id: string): void {
    if (this.#filling.has(id)) throw new Failure('wrong_state', { reason: `${id} is being filled` });
  }

  async map(id: string): Promise<ByteRange[]> {
    const { sizeBytes, blocks } = this.#require(id);
    const ranges: ByteRange[] = [];
    let end = 0;
    for (const index of [...blocks.keys()].sort((a, b) => a - b)) {
      const offset = index * BLOCK_BYTES;
      if (offset > end) ranges.push({ offset: end, length: offset - end, kind: 'hole' });
      append(ranges, index, 'data');
      end = offset + BLOCK_BYTES;
    }
    if (sizeBytes > end) ranges.push({ offset: end, length: sizeBytes - end, kind: 'hole' });
    return ranges;
  }

  async diff({ fromId, toId }: { fromId: string | null; toId: string }): Promise<ByteRange[]> {
    const from = fromId === null ? new Map<number, number>() : this.#require(fromId).blocks;
    const to = this.#require(toId).blocks;
    const ranges: ByteRange[] = [];
    for (const index of [...new Set([...from.keys(), ...to.keys()])].sort((a, b) => a - b))
      if (from.get(index) !== to.get(index)) append(ranges, index, to.has(index) ? 'data' : 'hole');
    return ranges;
  }

  async usage(ids: readonly string[] | null): Promise<VolumeUsage[]> {
    const found: VolumeUsage[] = [];
    for (const id of ids ?? this.#things.keys()) {
      const thing = this.#things.get(id);
      if (thing === undefined) continue;
      const { kind, sizeBytes, blocks, connections, failed } = thing;
      const mappedBytes = blocks.size * BLOCK_BYTES;
      found.push({ id, kind, sizeBytes, mappedBytes, connections, throttledSeconds: 0, failed });
    }
    return found;
  }

  async space(ids: readonly string[] | null): Promise<VolumeSpace[]> {
    const holders = new Map<number, number>();
    for (const { blocks } of this.#things.values())
      for (const write of blocks.values()) holders.set(write, (holders.get(write) ?? 0) + 1);
    return [...(ids ?? this.#things.keys())].flatMap((id) => {
      const thing = this.#things.get(id);
      if (thing === undefined) return [];
      const mappedBytes = thing.blocks.size * BLOCK_BYTES;
      const alone = [...thing.blocks.values()].filter((write) => holders.get(write) === 1).length;
      const exclusiveBytes = alone * BLOCK_BYTES;
      return { id, kind: thing.kind, mappedBytes, sharedBytes: mappedBytes - exclusiveBytes, exclusiveBytes };
    });
  }

  /** Memory does not rot. */
  async startScrub(): Promise<void> {}

  async heal(): Promise<boolean> {
    return false;
  }

  async scrubStatus(): Promise<ScrubStatus> {
    const none = { readBytes: 0, pages: 0, sealedBytes: 0, comparedBytes: 0, damagedBytes: 0 };
    return { isRunning: false, startedAt: null, endedAt: null, ...none, findings: [] };
  }

  async stats(): Promise<PoolStats> {
    const things = [...this.#things.values()];
    const distinct = new Set(things.flatMap((thing) => [...thing.blocks.values()]));
    const mappedBytes = distinct.size * BLOCK_BYTES;
    const volumes = things.filter((thing) => thing.kind === 'volume').length;
    return {
      capacityBytes: CAPACITY_BYTES,
      freeBytes: CAPACITY_BYTES - mappedBytes,
      reservedBytes: 0,
      provisionedBytes: this.#provisionedBytes,
      maxOverSubscription: 20,
      reservedPercentage: 0,
      level: this.level,
      mappedBytes,
      reclaimBytes: 0,
      metadataBytes: 0,
      filledBytes: 0,
      volumes,
      snapshots: things.length - volumes,
      connections: things.reduce((sum, thing) => sum + thing.connections, 0),
    };
  }

  async close() {}

  // ---- what clients and disks would do -----------------------------------------------------------------------------

  /** A client writes one block. */
  write(id: string, offset: number): void {
    this.#lastWrite += 1;
    this.#require(id).blocks.set(Math.floor(offset / BLOCK_BYTES), this.#lastWrite);
  }

  /** Block number to the write that filled it. */
  blocksOf(id: string): ReadonlyMap<number, number> {
    return this.#require(id).blocks;
  }

  /** As if that write had filled the block; null: it is a hole. */
  setBlock(id: string, { index, write }: { index: number; write: number | null }): void {
    const { blocks } = this.#require(id);
    if (write === null) blocks.delete(index);
    else blocks.set(index, write);
  }

  /** What comes for a volume that is being filled: it stays out of where something is. */
  fillBlock(id: string, { index, write }: { index: number; write: number }): void {
    const { blocks } = this.#require(id);
    const ranges = this.#filling.get(id)?.ranges ?? [];
    if (!blocks.has(index) && ranges.some((range) => isInside(range, index * BLOCK_BYTES))) blocks.set(index, write);
  }

  /** A client reads what is not there yet. */
  want(id: string, offset: number): void {
    this.#onEvent({ kind: 'bytes-wanted', id, offset });
  }

  /** Null: it is not being filled. */
  fillingOf(id: string): Filling | null {
    return this.#filling.get(id) ?? null;
  }

  /** Returns the id of what was reached. */
  connect(name: string): string {
    const known = this.#published.get(name);
    if (known === undefined) throw new Failure('not_found', { kind: 'Export', id: name });
    this.#require(known.targetId).connections += 1;
    return known.targetId;
  }

  disconnect(id: string): void {
    this.#require(id).connections = 0;
  }

  fail(id: string, reason: string): void {
    this.#require(id).failed = reason;
    this.#onEvent({ kind: 'volume-failed', id, reason });
  }

  /** What a restart of the process forgets. */
  restart(): void {
    this.#published.clear();
    this.#filling.clear();
    for (const thing of this.#things.values()) {
      thing.connections = 0;
      thing.limits = null;
    }
  }

  published(): ReadonlyMap<string, Published> {
    return this.#published;
  }

  limitsOf(id: string): VolumeLimits | null {
    return this.#require(id).limits;
  }

  ids(): string[] {
    return [...this.#things.keys()].sort();
  }

  get #provisionedBytes(): number {
    const volumes = [...this.#things.values()].filter(({ kind }) => kind === 'volume');
    return volumes.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  }

  #requireRoom(addedBytes: number): void {
    if (this.#provisionedBytes + addedBytes <= this.provisionedBytesMax) return;
    throw new Failure('no_backend', { reason: `${addedBytes} bytes more than ${this.#provisionedBytes} are too many` });
  }

  #require(id: string): Thing {
    const thing = this.#things.get(id);
    if (thing === undefined) throw new Failure('not_found', { kind: 'Volume or snapshot', id });
    return thing;
  }
}

function isInside({ offset, length }: FillRange, at: number): boolean {
  return at >= offset && at < offset + length;
}

function requireBlocks(sizeBytes: number): void {
  if (Number.isSafeInteger(sizeBytes) && sizeBytes > 0 && sizeBytes % BLOCK_BYTES === 0) return;
  throw new Failure('bad_request', { reason: `size ${sizeBytes} is not a positive multiple of ${BLOCK_BYTES} bytes` });
}

function append(ranges: ByteRange[], index: number, kind: 'data' | 'hole'): void {
  const offset = index * BLOCK_BYTES;
  const last = ranges.at(-1);
  if (last?.kind === kind && last.offset + last.length === offset)
    ranges[ranges.length - 1] = { ...last, length: last.length + BLOCK_BYTES };
  else ranges.push({ offset, length: BLOCK_BYTES, kind });
}
