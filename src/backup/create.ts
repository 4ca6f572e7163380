/**
 * Makes a backup: reads what changed since an earlier one (or everything), stores what is new, and commits by putting
 * the manifest last (law 4). Interrupted at any point and called again with the same order it goes on with what is
 * stored; called after it has committed it does nothing. It knows no volume's status and no API.
 */
import { randomUUID } from 'node:crypto';
import type { ByteRange } from '../backend/backend.ts';
import { Failure } from '../base/errors.ts';
import { LEAF_CHUNKS, Leaf, type LeafEntry } from '../format/backup-leaf.ts';
import {
  BACKUP_FORMAT,
  encodeSealed,
  type Manifest,
  type ManifestAbout,
  type ManifestIndex,
  type ManifestLeaf,
  type ManifestPack,
  rootOf,
} from '../format/backup-manifest.ts';
import { HASH_BYTES } from '../format/backup-pack.ts';
import { AdoptedPacks } from './adopt.ts';
import type { Encoded } from './chunk-pool.ts';
import { type DataKey, loadDataKey, newDataKey, storeDataKey } from './encryption.ts';
import { pinKey } from './keys.ts';
import { PackWriter, requireNumber, type Written } from './pack-writer.ts';
import { inOrder } from './pipeline.ts';
import { planRuns } from './plan.ts';
import { LeafReader, type Repository } from './repository.ts';

/** Reads and encodings under way; with the bytes of one, what they take of memory. */
const DEPTH = 8;
const READ_BYTES = 1 << 20;

export type BlockReader = { read(offset: number, target: Buffer): Promise<void> };

export type BackupProgress = {
  /** Bytes of the volume that had to be read, and those done with. */
  readonly totalBytes: number;
  readonly doneBytes: number;
  readonly storedBytes: number;
};

export type BackupOrder = {
  readonly volume: string;
  readonly backup: string;
  /** The backup whose chunks may be referred to; null for a full backup. */
  readonly parent: string | null;
  readonly about: ManifestAbout;
  readonly createdAt: string;
  readonly dataTimestamp: string;
  readonly sizeBytes: number;
  readonly source: BlockReader;
  /** What changed since the parent's data; null when that can no longer be told. */
  readonly changes: () => Promise<readonly ByteRange[] | null>;
  /** What there is, holes included or not. */
  readonly contents: () => Promise<readonly ByteRange[]>;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: BackupProgress) => void;
  readonly packBytes?: number;
};

export type BackupResult = { readonly manifest: Manifest; readonly readBytes: number };

export async function createBackup(repository: Repository, order: BackupOrder): Promise<BackupResult> {
  const { volume, backup } = order;
  const before = await repository.manifestOrTombstone(volume, backup);
  if (before?.kind === 'backup') {
    await unpin(repository, order);
    return { manifest: before, readBytes: 0 };
  }
  if (before?.kind === 'tombstone') throw givenUp(backup);
  const work = await BackupWork.begin(repository, order);
  try {
    return await work.run();
  } catch (error) {
    await work.abandon();
    throw error;
  }
}

function givenUp(backup: string): Failure {
  const reason = `Backup ${backup} was given up by a collection of garbage, because nothing was heard of it for long.`;
  return new Failure('conflict', { reason });
}

async function unpin({ objects }: Repository, { volume, parent, backup }: BackupOrder): Promise<void> {
  if (parent !== null) await objects.delete([pinKey(volume, parent, backup)]);
}

/** The parent's manifest, pinned: from here on no collection takes what it lists. Null when it cannot be referred to. */
async function pinnedParent(repository: Repository, order: BackupOrder): Promise<Manifest | null> {
  const { volume, parent, backup } = order;
  if (parent === null) return null;
  const pin = encodeSealed({ format: BACKUP_FORMAT, kind: 'pin', parent, child: backup });
  await repository.objects.put(pinKey(volume, parent, backup), pin, { ifAbsent: false });
  const manifest = await repository.manifest(volume, parent);
  if (manifest === null) return null;
  const isLike =
    manifest.chunk_bytes === repository.chunkBytes &&
    manifest.is_encrypted === (repository.wrappingKey !== null) &&
    // A volume that was put back to a smaller snapshot.
    manifest.size_bytes <= order.sizeBytes;
  return isLike ? manifest : null;
}

/** One leaf under way: as it was, and as it becomes. */
type LeafState = {
  readonly number: number;
  readonly before: Leaf | null;
  readonly leaf: Leaf;
  readonly stored: ReadonlyMap<number, LeafEntry>;
};
type Piece = { readonly state: LeafState; readonly first: number; readonly count: number; readonly isZeros: boolean };
type DonePiece = Piece & { readonly encoded: Encoded | null };

class BackupWork {
  readonly #repository: Repository;
  readonly #order: BackupOrder;
  readonly #base: Manifest | null;
  readonly #baseLeaves: LeafReader | null;
  readonly #key: DataKey | null;
  readonly #adopted: AdoptedPacks;
  readonly #writer: PackWriter;
  readonly #volumeBytes: Buffer;
  /** Bytes still needed of each pack that was there before. */
  readonly #live: Map<number, number>;
  readonly #leaves: Map<number, ManifestLeaf>;
  /** Of pieces that are done: used again, so that memory does not depend on when the garbage collector runs. */
  readonly #spare: ArrayBuffer[] = [];
  #totalBytes = 0;
  #doneBytes = 0;
  #readBytes = 0;

  private constructor(
    repository: Repository,
    order: BackupOrder,
    found: { base: Manifest | null; key: DataKey | null; adopted: AdoptedPacks },
  ) {
    const { base, key, adopted } = found;
    this.#repository = repository;
    this.#order = order;
    this.#base = base;
    this.#baseLeaves = base === null ? null : new LeafReader(repository, base);
    this.#key = key;
    this.#adopted = adopted;
    this.#volumeBytes = Buffer.from(order.volume.replaceAll('-', ''), 'hex');
    this.#live = new Map(base?.packs.map(([number, , , , live]) => [number, live]));
    this.#leaves = new Map(base?.leaves.map((leaf) => [leaf[0], leaf]));
    this.#writer = new PackWriter(repository, {
      volume: order.volume,
      backup: order.backup,
      keyId: key?.id ?? null,
      firstPack: base?.next_pack ?? 1,
      firstSequence: adopted.packs.length,
      firstIndex: base?.next_index ?? 1,
      ...(order.packBytes !== undefined && { packBytes: order.packBytes }),
    });
  }

  static async begin(repository: Repository, order: BackupOrder): Promise<BackupWork> {
    const base = await pinnedParent(repository, order);
    const firstPack = base?.next_pack ?? 1;
    requireNumber(firstPack);
    const { volume, backup } = order;
    const { objects, wrappingKey } = repository;
    let hashKey: Uint8Array | null = null;
    const load = async (keyId: string): Promise<DataKey> => loadDataKey(objects, wrappingKey, { volume, keyId });
    const [anyPack] = base?.packs ?? [];
    if (anyPack?.[6] != null) hashKey = (await load(anyPack[6])).hashKey;
    const isUsable = async (keyId: string): Promise<boolean> => {
      const key = await load(keyId).catch((error: unknown) => {
        if (error instanceof Failure && error.code !== 'objects_unavailable') return null;
        throw error;
      });
      // All chunks of a manifest are hashed under one key.
      hashKey ??= key?.hashKey ?? null;
      return key !== null && hashKey !== null && Buffer.compare(key.hashKey, hashKey) === 0;
    };
    const about = { volume, backup, firstPack, isEncrypted: wrappingKey !== null };
    const adopted = await AdoptedPacks.find(repository, about, isUsable);
    const key = wrappingKey === null ? null : newDataKey(hashKey);
    if (wrappingKey !== null && key !== null) await storeDataKey(objects, wrappingKey, { volume, key });
    return new BackupWork(repository, order, { base, key, adopted });
  }

  async run(): Promise<BackupResult> {
    const { signal } = this.#order;
    const ranges = await this.#ranges();
    let state: LeafState | null = null;
    for await (const piece of inOrder(this.#pieces(ranges), DEPTH, (item) => this.#encode(item))) {
      if (signal.aborted) throw new Failure('shutting_down');
      if (state !== null && state !== piece.state) await this.#finishLeaf(state);
      state = piece.state;
      await this.#place(piece);
    }
    if (state !== null) await this.#finishLeaf(state);
    const written = await this.#writer.finish();
    const manifest = this.#manifest(written);
    if (signal.aborted) throw new Failure('shutting_down');
    await this.#commit(manifest);
    return { manifest, readBytes: this.#readBytes };
  }

  async abandon(): Promise<void> {
    await this.#writer.abandon();
  }

  async #ranges(): Promise<readonly ByteRange[]> {
    const { sizeBytes } = this.#order;
    if (this.#base === null) return this.#order.contents();
    const changes = await this.#order.changes();
    if (changes !== null) return changes;
    // What has no data must become zeros where the parent has some.
    return filled(await this.#order.contents(), sizeBytes);
  }

  async *#pieces(ranges: readonly ByteRange[]): AsyncGenerator<Piece> {
    const { sizeBytes, signal } = this.#order;
    const { chunkBytes } = this.#repository;
    const options = { sizeBytes, chunkBytes, groupChunks: LEAF_CHUNKS };
    for (const run of planRuns(ranges, options)) if (run.kind === 'read') this.#totalBytes += run.count * chunkBytes;
    this.#tell();
    const pieceChunks = Math.max(1, READ_BYTES / chunkBytes);
    let state: LeafState | null = null;
    for (const { first, count, kind } of planRuns(ranges, options)) {
      if (signal.aborted) throw new Failure('shutting_down');
      const number = Math.floor(first / LEAF_CHUNKS);
      // Nothing to make zeros of.
      if (kind === 'zeros' && this.#baseLeaves?.has(number) !== true) continue;
      if (state?.number !== number) state = await this.#openLeaf(number);
      if (kind === 'zeros') {
        yield { state, first, count, isZeros: true };
        continue;
      }
      for (let at = first; at < first + count; ) {
        const end = Math.min(first + count, (Math.floor(at / pieceChunks) + 1) * pieceChunks);
        yield { state, first: at, count: end - at, isZeros: false };
        at = end;
      }
    }
  }

  async #openLeaf(number: number): Promise<LeafState> {
    const before = (await this.#baseLeaves?.read(number)) ?? null;
    return { number, before, leaf: before?.copy() ?? Leaf.empty(), stored: await this.#adopted.ofLeaf(number) };
  }

  async #encode(piece: Piece): Promise<DonePiece> {
    const { state, first, count, isZeros } = piece;
    const isStored = (chunk: number) => state.stored.has(chunk);
    const chunks = Array.from({ length: count }, (_, index) => first + index);
    if (isZeros || chunks.every(isStored)) return { ...piece, encoded: null };
    const { chunkBytes, pool } = this.#repository;
    const { sizeBytes, source } = this.#order;
    const bytes = this.#buffer(count * chunkBytes);
    const known = Math.min(bytes.length, sizeBytes - first * chunkBytes);
    await source.read(first * chunkBytes, bytes.subarray(0, known));
    bytes.fill(0, known);
    this.#readBytes += known;
    const encoded = await pool.encode({
      bytes,
      firstChunk: first,
      chunkBytes,
      volume: this.#volumeBytes,
      knownHashes: state.before === null ? null : knownHashes(state.before, first % LEAF_CHUNKS, count),
      compression: this.#repository.compression,
      keys: this.#key,
    });
    return { ...piece, encoded };
  }

  #buffer(length: number): Buffer {
    const at = this.#spare.findIndex(({ byteLength }) => byteLength >= length);
    const [spare] = at < 0 ? [] : this.#spare.splice(at, 1);
    return spare === undefined ? Buffer.allocUnsafeSlow(length) : Buffer.from(spare, 0, length);
  }

  #recycle({ stored }: Encoded): void {
    if (this.#spare.length >= DEPTH) this.#spare.shift();
    this.#spare.push(stored.buffer as ArrayBuffer);
  }

  async #place({ state, first, count, isZeros, encoded }: DonePiece): Promise<void> {
    for (let index = 0; index < count; index += 1) {
      const chunk = first + index;
      const slot = chunk % LEAF_CHUNKS;
      const stored = state.stored.get(chunk);
      const result = encoded?.chunks[index];
      if (isZeros) state.leaf.set(slot, null);
      else if (stored !== undefined) state.leaf.set(slot, stored);
      else if (result === undefined) throw new Error(`chunk ${chunk} was lost on its way`);
      else if (result.kind === 'zeros') state.leaf.set(slot, null);
      else if (result.kind === 'data') {
        const { offset, storedBytes, flags, hash } = result;
        const bytes = encoded?.stored.subarray(offset, offset + storedBytes) ?? Buffer.alloc(0);
        const own = Buffer.from(hash);
        state.leaf.set(slot, await this.#writer.addChunk({ chunk, stored: bytes, flags, hash: own }));
      }
    }
    if (encoded !== null) this.#recycle(encoded);
    if (isZeros) return;
    this.#doneBytes += count * this.#repository.chunkBytes;
    this.#tell();
  }

  async #finishLeaf({ number, before, leaf }: LeafState): Promise<void> {
    if (before?.bytes.equals(leaf.bytes)) return;
    for (let slot = 0; slot < LEAF_CHUNKS && before !== null; slot += 1) {
      const old = before.get(slot);
      if (old !== null && !isSamePlace(old, leaf.get(slot))) this.#release(old);
    }
    if (leaf.isEmpty()) this.#leaves.delete(number);
    else this.#leaves.set(number, await this.#writer.addLeaf(number, leaf));
  }

  #release({ pack, storedBytes }: LeafEntry): void {
    this.#live.set(pack, (this.#live.get(pack) ?? 0) - storedBytes);
  }

  #manifest(written: Written): Manifest {
    const { order, base } = { order: this.#order, base: this.#base };
    const inherited = (base?.packs ?? [])
      .map(([number, backup, sequence, bytes, , hash, key]): ManifestPack => {
        return [number, backup, sequence, bytes, this.#live.get(number) ?? 0, hash, key];
      })
      .filter(([, , , , live]) => live > 0);
    const packs = [...inherited, ...this.#adopted.packs, ...written.packs];
    const leaves = [...this.#leaves.values()].sort((a, b) => a[0] - b[0]);
    const used = new Set(leaves.map(([, index]) => index));
    const indexes: ManifestIndex[] = [...(base?.indexes ?? []), ...written.indexes].filter(([number]) =>
      used.has(number),
    );
    const adoptedBytes = this.#adopted.packs.reduce((sum, [, , , bytes]) => sum + bytes, 0);
    const shape = { size_bytes: order.sizeBytes, chunk_bytes: this.#repository.chunkBytes, leaves };
    return {
      format: BACKUP_FORMAT,
      kind: 'backup',
      backup: order.backup,
      volume: order.volume,
      parent: order.parent,
      created_at: order.createdAt,
      data_timestamp: order.dataTimestamp,
      ...shape,
      leaf_chunks: LEAF_CHUNKS,
      is_encrypted: this.#key !== null,
      next_pack: (base?.next_pack ?? 1) + this.#adopted.packs.length + written.packs.length,
      next_index: (base?.next_index ?? 1) + written.indexes.length,
      packs,
      indexes,
      root: rootOf(shape),
      added_bytes: written.bytes + adoptedBytes,
      stored_bytes: packs.reduce((sum, [, , , , live]) => sum + live, 0),
      about: order.about,
      nonce: randomUUID(),
    };
  }

  async #commit(manifest: Manifest): Promise<void> {
    const { volume, backup } = this.#order;
    if (!(await this.#repository.decide(volume, backup, encodeSealed(manifest)))) {
      const there = await this.#repository.manifestOrTombstone(volume, backup);
      if (there?.kind !== 'backup' || there.nonce !== manifest.nonce) throw givenUp(backup);
    }
    await unpin(this.#repository, this.#order);
  }

  #tell(): void {
    const storedBytes = this.#writer.bytes;
    this.#order.onProgress({ totalBytes: this.#totalBytes, doneBytes: this.#doneBytes, storedBytes });
  }
}

function isSamePlace(a: LeafEntry, b: LeafEntry | null): boolean {
  return b !== null && a.pack === b.pack && a.offset === b.offset;
}

function knownHashes(leaf: Leaf, slot: number, count: number): Buffer {
  const hashes = Buffer.alloc(count * HASH_BYTES);
  for (let index = 0; index < count; index += 1) leaf.get(slot + index)?.hash.copy(hashes, index * HASH_BYTES);
  return hashes;
}

/** The gaps between ranges of data are holes. */
function filled(ranges: readonly ByteRange[], sizeBytes: number): ByteRange[] {
  const all: ByteRange[] = [];
  let end = 0;
  for (const range of ranges) {
    if (range.offset > end) all.push({ offset: end, length: range.offset - end, kind: 'hole' });
    all.push(range);
    end = range.offset + range.length;
  }
  if (end < sizeBytes) all.push({ offset: end, length: sizeBytes - end, kind: 'hole' });
  return all;
}
