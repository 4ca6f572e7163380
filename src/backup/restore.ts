/**
 * Reads a backup back: into a volume, or only to see whether all of it is right. Every chunk is checked before a byte of
 * it is written, so what a restore has written is what was backed up, and a restore that cannot say so fails.
 */
import type { ByteRange } from '../backend/backend.ts';
import { Failure } from '../base/errors.ts';
import { LEAF_CHUNKS, type LeafEntry } from '../format/backup-leaf.ts';
import type { Manifest, ManifestPack } from '../format/backup-manifest.ts';
import type { ChunkKeys, DecodeJob } from './chunk-pool.ts';
import { loadDataKey } from './encryption.ts';
import { packKey } from './keys.ts';
import { inOrder } from './pipeline.ts';
import { LeafReader, type Repository } from './repository.ts';

/** Wanted chunks nearer to each other than this are read together: a request costs more than the bytes between. */
const GAP_BYTES = 256 * 1024;
const REQUEST_BYTES = 4 << 20;
const REQUESTS_AT_ONCE = 4;
/** Plain bytes of one request at most: zeros and text compress well. */
const PLAIN_BYTES = 8 << 20;
/** Leaves whose chunks are sorted together: 1 GiB of volume with chunks of 64 KiB. */
const LEAVES_AT_ONCE = 16;

export type BlockWriter = {
  write(offset: number, data: Buffer): Promise<void>;
  writeZeroes(offset: number, length: number): Promise<void>;
  flush(): Promise<void>;
};

export type Wanted = LeafEntry & { readonly chunk: number };
export type Span = {
  readonly pack: number;
  readonly offset: number;
  readonly length: number;
  readonly chunks: readonly Wanted[];
};

/** The keys of all packs of a manifest, by id. Fails when one cannot be had. */
export async function keysOf(
  repository: Repository,
  { volume, packs }: Manifest,
): Promise<ReadonlyMap<string, ChunkKeys>> {
  const { objects, wrappingKey } = repository;
  const keys = new Map<string, ChunkKeys>();
  for (const [, , , , , , keyId] of packs)
    if (keyId !== null && !keys.has(keyId)) keys.set(keyId, await loadDataKey(objects, wrappingKey, { volume, keyId }));
  return keys;
}

/** All chunks that are not zeros, in groups of neighbouring leaves, each in the order of the packs. */
export async function* spansOf(repository: Repository, manifest: Manifest): AsyncGenerator<Span> {
  const reader = new LeafReader(repository, manifest);
  for (let first = 0; first < manifest.leaves.length; first += LEAVES_AT_ONCE) {
    const wanted: Wanted[] = [];
    for (const [number] of manifest.leaves.slice(first, first + LEAVES_AT_ONCE)) {
      const leaf = await reader.read(number);
      for (let slot = 0; slot < LEAF_CHUNKS; slot += 1) {
        const entry = leaf?.get(slot) ?? null;
        if (entry !== null) wanted.push({ ...entry, chunk: number * LEAF_CHUNKS + slot });
      }
    }
    yield* joined(wanted, Math.max(1, Math.floor(PLAIN_BYTES / manifest.chunk_bytes)));
  }
}

/** Those that lie near each other in a pack, together. */
export function* joined(wanted: Wanted[], chunksMax: number): Generator<Span> {
  wanted.sort((a, b) => a.pack - b.pack || a.offset - b.offset);
  let chunks: Wanted[] = [];
  let start = 0;
  let end = 0;
  const span = (pack: number): Span => ({ pack, offset: start, length: end - start, chunks });
  for (const chunk of wanted) {
    const before = chunks[0];
    const chunkEnd = chunk.offset + chunk.storedBytes;
    const fits =
      before !== undefined &&
      before.pack === chunk.pack &&
      chunk.offset - end < GAP_BYTES &&
      chunkEnd - start <= REQUEST_BYTES &&
      chunks.length < chunksMax;
    if (!fits) {
      if (before !== undefined) yield span(before.pack);
      chunks = [];
      start = chunk.offset;
      end = chunk.offset;
    }
    chunks.push(chunk);
    end = Math.max(end, chunkEnd);
  }
  const first = chunks[0];
  if (first !== undefined) yield span(first.pack);
}

export class SpanReader {
  readonly #repository: Repository;
  readonly #manifest: Manifest;
  readonly #keys: ReadonlyMap<string, ChunkKeys>;
  readonly #packs: ReadonlyMap<number, ManifestPack>;
  readonly #volume: Buffer;

  constructor(repository: Repository, manifest: Manifest, keys: ReadonlyMap<string, ChunkKeys>) {
    this.#repository = repository;
    this.#manifest = manifest;
    this.#keys = keys;
    this.#packs = new Map(manifest.packs.map((pack) => [pack[0], pack]));
    this.#volume = Buffer.from(manifest.volume.replaceAll('-', ''), 'hex');
  }

  keyOf(pack: number): string {
    const found = this.#packs.get(pack);
    return found === undefined ? `pack ${pack}` : packKey(this.#manifest.volume, found[1], found[2]);
  }

  /** The plain chunks one after the other; or, with `wantsBytes` false, only what is damaged. */
  async read(span: Span, { wantsBytes }: { wantsBytes: boolean }) {
    const pack = this.#packs.get(span.pack);
    const key = this.keyOf(span.pack);
    if (pack === undefined)
      throw new Failure('corrupt', { path: key, reason: 'chunks lie in it and it is not listed' });
    const { objects, pool } = this.#repository;
    const bytes = await objects.get(key, { offset: span.offset, length: span.length });
    if (bytes === null) throw new Failure('corrupt', { path: key, reason: 'it is missing' });
    const keyId = pack[6];
    const keys = keyId === null ? null : (this.#keys.get(keyId) ?? null);
    const chunks: DecodeJob['chunks'] = span.chunks.map(({ chunk, offset, storedBytes, flags, hash }) => {
      return { chunk, at: offset - span.offset, storedBytes, flags, hash, keys };
    });
    return pool.decode({
      bytes: ownBytes(bytes),
      chunkBytes: this.#manifest.chunk_bytes,
      volume: this.#volume,
      chunks,
      wantsBytes,
    });
  }
}

/** Small reads of Node share a pool that cannot be handed to another thread. */
function ownBytes(bytes: Buffer): Buffer {
  if (bytes.byteOffset === 0 && bytes.buffer.byteLength === bytes.length) return bytes;
  const own = Buffer.allocUnsafeSlow(bytes.length);
  bytes.copy(own);
  return own;
}

export type RestoreOrder = {
  readonly manifest: Manifest;
  readonly target: BlockWriter;
  readonly targetBytes: number;
  /** Where the target has data now; all of it that the backup does not overwrite becomes zeros. */
  readonly mapped: readonly ByteRange[];
  readonly signal: AbortSignal;
  readonly onProgress: (doneBytes: number, totalBytes: number) => void;
};

export async function restoreBackup(repository: Repository, order: RestoreOrder): Promise<void> {
  const { manifest, target, signal } = order;
  if (order.targetBytes < manifest.size_bytes) {
    const reason = `Invalid volume: It has ${order.targetBytes} bytes, the backup ${manifest.size_bytes}.`;
    throw new Failure('bad_request', { reason });
  }
  const keys = await keysOf(repository, manifest);
  const reader = new SpanReader(repository, manifest, keys);
  await clear(repository, order);
  const total = manifest.stored_bytes;
  let done = 0;
  order.onProgress(0, total);
  const written = inOrder(spansOf(repository, manifest), REQUESTS_AT_ONCE, async (span) => {
    if (signal.aborted) throw new Failure('shutting_down');
    const { plain, damaged } = await reader.read(span, { wantsBytes: true });
    const [first] = damaged;
    if (first !== undefined)
      throw new Failure('corrupt', { path: reader.keyOf(span.pack), reason: `chunk ${first.chunk}: ${first.reason}` });
    await writeChunks(order, span, plain);
    return span.chunks.reduce((sum, { storedBytes }) => sum + storedBytes, 0);
  });
  for await (const bytes of written) {
    done += bytes;
    order.onProgress(done, total);
  }
  await target.flush();
}

/** Neighbours in the pack that are neighbours in the volume are one write. */
async function writeChunks({ manifest, target }: RestoreOrder, { chunks }: Span, plain: Buffer): Promise<void> {
  const { chunk_bytes: chunkBytes, size_bytes: sizeBytes } = manifest;
  for (let index = 0; index < chunks.length; ) {
    const first = chunks[index]?.chunk ?? 0;
    let count = 1;
    while (chunks[index + count]?.chunk === first + count) count += 1;
    const offset = first * chunkBytes;
    const length = Math.min(count * chunkBytes, sizeBytes - offset);
    if (length > 0) await target.write(offset, plain.subarray(index * chunkBytes, index * chunkBytes + length));
    index += count;
  }
}

/** Zeros wherever the target has data and the backup has none. */
async function clear(repository: Repository, { manifest, target, mapped, signal }: RestoreOrder): Promise<void> {
  const { chunk_bytes: chunkBytes } = manifest;
  const reader = new LeafReader(repository, manifest);
  const leafBytes = chunkBytes * LEAF_CHUNKS;
  for (const { offset, length, kind } of mapped) {
    if (kind === 'hole') continue;
    const end = offset + length;
    for (let at = offset; at < end; ) {
      if (signal.aborted) throw new Failure('shutting_down');
      const number = Math.floor(at / leafBytes);
      const stop = Math.min(end, (number + 1) * leafBytes);
      const leaf = reader.has(number) ? await reader.read(number) : null;
      let from = at;
      for (let position = at; position < stop && leaf !== null; ) {
        const chunk = Math.floor(position / chunkBytes);
        const next = Math.min(stop, (chunk + 1) * chunkBytes);
        if (leaf.get(chunk % LEAF_CHUNKS) !== null) {
          if (position > from) await target.writeZeroes(from, position - from);
          from = next;
        }
        position = next;
      }
      if (stop > from) await target.writeZeroes(from, stop - from);
      at = stop;
    }
  }
}
