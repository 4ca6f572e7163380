/**
 * Fills a volume from a backup while clients use it: everything, in the order that is cheap; and before that, whatever clients wait
 * for. What is written goes through a door that leaves alone what clients wrote (docs/architecture.md). Every chunk is checked
 * before a byte of it is written. It knows no task and no policy: what fails is thrown, and can be asked for again.
 */
import type { ByteRange, FillRange } from '../backend/backend.ts';
import { Failure } from '../base/errors.ts';
import { LEAF_CHUNKS, type Leaf } from '../format/backup-leaf.ts';
import type { Manifest } from '../format/backup-manifest.ts';
import type { ChunkKeys } from './chunk-pool.ts';
import { inOrder } from './pipeline.ts';
import { LeafReader, type Repository } from './repository.ts';
import { type BlockWriter, joined, type Span, SpanReader, type Wanted } from './restore.ts';

/** What a volume tracks: a chunk is one or more of these. */
const UNIT_BYTES = 65536;
/** Less than a restore has: clients' own requests come beside it. */
const REQUESTS_AT_ONCE = 2;
/** Plain bytes of one request. */
const PLAIN_BYTES = 4 << 20;
/** Chunks fetched with one that somebody waits for, if they lie behind it: who reads one often reads on. */
const CHUNKS_AHEAD = 15;
const LEAVES_AT_ONCE = 16;
/** Leaves kept for requests of clients, 48 KiB each. */
const LEAVES_KEPT = 64;

export type FillOrder = {
  readonly manifest: Manifest;
  readonly keys: ReadonlyMap<string, ChunkKeys>;
  readonly target: BlockWriter;
  /** What the volume has: by clients, or from before. */
  readonly mapped: readonly ByteRange[];
  /** The backup has zeros there. */
  readonly narrow: (ranges: readonly FillRange[]) => Promise<void>;
  readonly signal: AbortSignal;
  readonly onProgress: (doneBytes: number, totalBytes: number) => void;
};

/** Where a backup may have data, told by its manifest alone: for a volume that shall be served at once. */
export function fillRanges({ leaves, chunk_bytes: chunkBytes, size_bytes: sizeBytes }: Manifest): FillRange[] {
  requireUnits(chunkBytes);
  const leafBytes = chunkBytes * LEAF_CHUNKS;
  const ranges: { offset: number; length: number }[] = [];
  for (const [number] of leaves) {
    const offset = number * leafBytes;
    const length = Math.min(leafBytes, sizeBytes - offset);
    const last = ranges.at(-1);
    if (length <= 0) continue;
    if (last !== undefined && last.offset + last.length === offset) last.length += length;
    else ranges.push({ offset, length });
  }
  return ranges;
}

function requireUnits(chunkBytes: number): void {
  if (chunkBytes % UNIT_BYTES === 0) return;
  const reason = `A backup in chunks of ${chunkBytes} bytes cannot be restored instantly: only in multiples of ${UNIT_BYTES}. Restore it without.`;
  throw new Failure('not_supported', { reason });
}

export class Filler {
  readonly #order: FillOrder;
  readonly #spans: SpanReader;
  readonly #leaves: LeafReader;
  readonly #kept = new Map<number, Promise<Leaf | null>>();
  /** Leaves that were looked through once: what is zeros in them is no longer expected. */
  readonly #seen = new Set<number>();
  readonly #there = new Bits();
  readonly #underWay = new Map<number, Promise<void>>();
  #doneBytes = 0;

  constructor(repository: Repository, order: FillOrder) {
    this.#order = order;
    this.#spans = new SpanReader(repository, order.manifest, order.keys);
    this.#leaves = new LeafReader(repository, order.manifest);
    this.#notice(order.mapped);
  }

  /** Chunks that the volume has to their last byte. */
  #notice(mapped: readonly ByteRange[]): void {
    const { chunk_bytes: chunkBytes, size_bytes: sizeBytes } = this.#order.manifest;
    for (const { offset, length, kind } of mapped) {
      if (kind === 'hole') continue;
      const end = offset + length;
      for (let chunk = Math.ceil(offset / chunkBytes); ; chunk += 1) {
        const chunkEnd = Math.min((chunk + 1) * chunkBytes, sizeBytes);
        if (chunkEnd > end || chunk * chunkBytes >= chunkEnd) break;
        this.#there.add(chunk);
      }
    }
  }

  /** The chunk at this place is in the volume, or is zeros, when it returns. */
  async want(offset: number): Promise<void> {
    const chunk = Math.floor(offset / this.#order.manifest.chunk_bytes);
    try {
      await this.#wantChunk(chunk);
    } catch (error) {
      // It may have been one behind it that is damaged.
      if (!this.#there.has(chunk)) throw error;
    }
  }

  async #wantChunk(chunk: number): Promise<void> {
    const underWay = this.#underWay.get(chunk);
    if (underWay !== undefined) return underWay;
    const leaf = await this.#leaf(Math.floor(chunk / LEAF_CHUNKS));
    if (leaf?.get(chunk % LEAF_CHUNKS) == null) return;
    const wanted = this.#wantedFrom(leaf, chunk);
    for (const span of joined(wanted, CHUNKS_AHEAD + 1))
      if (span.chunks.some((one) => one.chunk === chunk)) await this.#take(span);
    // It was on its way in another request by the time its leaf was here.
    await this.#underWay.get(chunk);
  }

  /** That chunk, whatever is thought of it, and those behind it that are missing. */
  #wantedFrom(leaf: Leaf, chunk: number): Wanted[] {
    const wanted: Wanted[] = [];
    const last = Math.min(chunk + CHUNKS_AHEAD, (Math.floor(chunk / LEAF_CHUNKS) + 1) * LEAF_CHUNKS - 1);
    for (let at = chunk; at <= last; at += 1) {
      const entry = leaf.get(at % LEAF_CHUNKS);
      if (entry === null || this.#underWay.has(at) || (at !== chunk && this.#there.has(at))) continue;
      wanted.push({ ...entry, chunk: at });
    }
    return wanted;
  }

  /** Goes through the whole backup. Returns what is damaged; nothing is missing when that is nothing. */
  async run(): Promise<ReadonlyMap<number, Failure>> {
    const damaged = new Map<number, Failure>();
    for (let isWhole = false; !isWhole; ) {
      isWhole = true;
      const spans = this.#missing(damaged, () => {
        isWhole = false;
      });
      const taken = inOrder(spans, REQUESTS_AT_ONCE, async (span) => {
        this.#checkSignal();
        const chunks = span.chunks.filter(({ chunk }) => !this.#there.has(chunk) && !this.#underWay.has(chunk));
        if (chunks.length < span.chunks.length) isWhole = false;
        for (const rest of joined(chunks, chunks.length)) await this.#takeOrNote(rest, damaged);
      });
      for await (const _ of taken) this.#checkSignal();
      // What clients brought meanwhile was left out: look again once it is there, or is not.
      if (!isWhole) await Promise.allSettled(this.#underWay.values());
    }
    if (damaged.size === 0) await this.#order.target.flush();
    return damaged;
  }

  async #takeOrNote(span: Span, damaged: Map<number, Failure>): Promise<void> {
    try {
      await this.#take(span);
    } catch (error) {
      if (!(error instanceof Failure) || error.code !== 'corrupt') throw error;
      for (const { chunk } of span.chunks) if (!this.#there.has(chunk)) damaged.set(chunk, error);
    }
  }

  async *#missing(damaged: ReadonlyMap<number, Failure>, onSkipped: () => void): AsyncGenerator<Span> {
    const { leaves, chunk_bytes: chunkBytes } = this.#order.manifest;
    for (let first = 0; first < leaves.length; first += LEAVES_AT_ONCE) {
      const wanted: Wanted[] = [];
      for (const [number] of leaves.slice(first, first + LEAVES_AT_ONCE)) {
        this.#checkSignal();
        const leaf = await this.#leaf(number);
        for (let slot = 0; slot < LEAF_CHUNKS; slot += 1) {
          const entry = leaf?.get(slot) ?? null;
          const chunk = number * LEAF_CHUNKS + slot;
          if (entry === null || this.#there.has(chunk) || damaged.has(chunk)) continue;
          if (this.#underWay.has(chunk)) onSkipped();
          else wanted.push({ ...entry, chunk });
        }
      }
      yield* joined(wanted, Math.max(1, Math.floor(PLAIN_BYTES / chunkBytes)));
    }
  }

  #checkSignal(): void {
    if (this.#order.signal.aborted) throw new Failure('shutting_down');
  }

  /** Whoever wants one of these chunks meanwhile waits for this. */
  async #take(span: Span): Promise<void> {
    const work = this.#fetch(span);
    for (const { chunk } of span.chunks) this.#underWay.set(chunk, work);
    try {
      await work;
    } finally {
      for (const { chunk } of span.chunks) this.#underWay.delete(chunk);
    }
  }

  async #fetch(span: Span): Promise<void> {
    const { manifest, target, onProgress } = this.#order;
    const { chunk_bytes: chunkBytes, size_bytes: sizeBytes } = manifest;
    const { plain, damaged } = await this.#spans.read(span, { wantsBytes: true });
    const bad = new Set(damaged.map(({ chunk }) => chunk));
    for (let index = 0; index < span.chunks.length; ) {
      const first = span.chunks[index]?.chunk ?? 0;
      let count = 0;
      while (span.chunks[index + count]?.chunk === first + count && !bad.has(first + count)) count += 1;
      const offset = first * chunkBytes;
      const length = Math.min(count * chunkBytes, sizeBytes - offset);
      if (count > 0) await target.write(offset, plain.subarray(index * chunkBytes, index * chunkBytes + length));
      for (const { chunk, storedBytes } of span.chunks.slice(index, index + count))
        if (this.#there.add(chunk)) this.#doneBytes += storedBytes;
      index += Math.max(1, count);
    }
    onProgress(this.#doneBytes, manifest.stored_bytes);
    const [first] = damaged;
    if (first !== undefined)
      throw new Failure('corrupt', {
        path: this.#spans.keyOf(span.pack),
        reason: `chunk ${first.chunk}: ${first.reason}`,
      });
  }

  async #leaf(number: number): Promise<Leaf | null> {
    const kept = this.#kept.get(number);
    this.#kept.delete(number);
    const leaf = kept ?? this.#read(number);
    this.#kept.set(number, leaf);
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= LEAVES_KEPT) break;
      this.#kept.delete(oldest);
    }
    try {
      return await leaf;
    } catch (error) {
      if (this.#kept.get(number) === leaf) this.#kept.delete(number);
      throw error;
    }
  }

  async #read(number: number): Promise<Leaf | null> {
    const leaf = await this.#leaves.read(number);
    if (this.#seen.has(number)) return leaf;
    const { manifest, narrow, onProgress } = this.#order;
    const { chunk_bytes: chunkBytes, size_bytes: sizeBytes } = manifest;
    const zeros: { offset: number; length: number }[] = [];
    for (let slot = 0; slot < LEAF_CHUNKS; slot += 1) {
      const entry = leaf?.get(slot) ?? null;
      const offset = (number * LEAF_CHUNKS + slot) * chunkBytes;
      if (entry !== null) {
        if (this.#there.has(number * LEAF_CHUNKS + slot)) this.#doneBytes += entry.storedBytes;
        continue;
      }
      const length = Math.min(chunkBytes, sizeBytes - offset);
      const last = zeros.at(-1);
      if (length <= 0) break;
      if (last !== undefined && last.offset + last.length === offset) last.length += length;
      else zeros.push({ offset, length });
    }
    this.#seen.add(number);
    if (zeros.length > 0) await narrow(zeros);
    onProgress(this.#doneBytes, manifest.stored_bytes);
    return leaf;
  }
}

/** Which chunks: a bit each, kept for the leaves that have some. */
class Bits {
  readonly #leaves = new Map<number, Uint8Array>();

  has(chunk: number): boolean {
    const bits = this.#leaves.get(Math.floor(chunk / LEAF_CHUNKS));
    return bits !== undefined && ((bits[(chunk % LEAF_CHUNKS) >> 3] ?? 0) & (1 << (chunk & 7))) !== 0;
  }

  /** False: it was there. */
  add(chunk: number): boolean {
    if (this.has(chunk)) return false;
    const number = Math.floor(chunk / LEAF_CHUNKS);
    const bits = this.#leaves.get(number) ?? new Uint8Array(LEAF_CHUNKS / 8);
    this.#leaves.set(number, bits);
    const at = (chunk % LEAF_CHUNKS) >> 3;
    bits[at] = (bits[at] ?? 0) | (1 << (chunk & 7));
    return true;
  }
}
