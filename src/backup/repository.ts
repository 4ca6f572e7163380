/**
 * A repository of backups in an object store: made on first use, its server's behaviour tried out and recorded, and
 * read again at each start. It hands out manifests and leaves, checked; what to do with them is not known here.
 */
import { randomUUID } from 'node:crypto';
import { uncompressSync } from 'lz4-napi';
import { Type } from 'typebox';
import { Check } from 'typebox/value';
import { Failure } from '../base/errors.ts';
import { LEAF_BYTES, Leaf } from '../format/backup-leaf.ts';
import {
  BACKUP_FORMAT,
  CHUNK_BYTES_MAX,
  CHUNK_BYTES_MIN,
  decodeManifest,
  decodeSealed,
  encodeSealed,
  type Manifest,
  type ManifestLeaf,
  type Tombstone,
} from '../format/backup-manifest.ts';
import type { Compression } from '../format/backup-pack.ts';
import type { ObjectStore } from '../objects/objects.ts';
import type { ChunkPool } from './chunk-pool.ts';
import type { WrappingKey } from './encryption.ts';
import { FORMAT_KEY, indexKey, manifestKey } from './keys.ts';

/** The unit of change, compression and hashing of new backups. */
const CHUNK_BYTES = 65536;

const FormatSchema = Type.Object({
  format: Type.Integer({ minimum: 1 }),
  kind: Type.Literal('repository'),
  id: Type.String(),
  created_at: Type.String(),
  chunk_bytes: Type.Integer({ minimum: CHUNK_BYTES_MIN, maximum: CHUNK_BYTES_MAX }),
  /** The server refuses a put of what must not exist yet: the decision who was first is the server's. */
  conditional_put: Type.Boolean(),
});

export type RepositoryOptions = {
  readonly objects: ObjectStore;
  readonly pool: ChunkPool;
  readonly wrappingKey: WrappingKey | null;
  /** Of new chunks; `lz4` where absent. */
  readonly compression?: Compression;
  /** Milliseconds since 1970. */
  readonly now: () => number;
};

export class Repository {
  readonly objects: ObjectStore;
  readonly pool: ChunkPool;
  readonly wrappingKey: WrappingKey | null;
  readonly compression: Compression;
  readonly now: () => number;
  readonly chunkBytes: number;
  readonly id: string;
  readonly isConditional: boolean;

  private constructor(
    options: RepositoryOptions,
    format: { id: string; chunk_bytes: number; conditional_put: boolean },
  ) {
    this.objects = options.objects;
    this.pool = options.pool;
    this.wrappingKey = options.wrappingKey;
    this.compression = options.compression ?? 'lz4';
    this.now = options.now;
    this.chunkBytes = format.chunk_bytes;
    this.id = format.id;
    this.isConditional = format.conditional_put;
  }

  static async open(options: RepositoryOptions): Promise<Repository> {
    const { objects } = options;
    let body = await objects.get(FORMAT_KEY, null);
    if (body === null) {
      const made = encodeSealed({
        format: BACKUP_FORMAT,
        kind: 'repository',
        id: randomUUID(),
        created_at: new Date(options.now()).toISOString(),
        chunk_bytes: CHUNK_BYTES,
        conditional_put: await isConditional(objects),
      });
      await objects.put(FORMAT_KEY, made, { ifAbsent: true });
      // Another daemon may have been first: what is there now holds for both.
      body = await objects.get(FORMAT_KEY, null);
    }
    if (body === null)
      throw new Failure('objects_unavailable', {
        reason: `${objects.place}: ${FORMAT_KEY} is gone after it was written`,
      });
    const format = decodeSealed(FORMAT_KEY, body);
    if (!Check(FormatSchema, format))
      throw new Failure('corrupt', { path: `${objects.place}/${FORMAT_KEY}`, reason: 'it describes no repository' });
    if (format.format > BACKUP_FORMAT)
      throw new Failure('newer_format', { path: objects.place, found: format.format, supported: BACKUP_FORMAT });
    return new Repository(options, format);
  }

  /** Null when there is none, nor will be: a tombstone. */
  async manifest(volume: string, backup: string): Promise<Manifest | null> {
    const found = await this.manifestOrTombstone(volume, backup);
    return found?.kind === 'backup' ? found : null;
  }

  async manifestOrTombstone(volume: string, backup: string): Promise<Manifest | Tombstone | null> {
    const key = manifestKey(volume, backup);
    const body = await this.objects.get(key, null);
    if (body === null) return null;
    const found = decodeManifest(key, body);
    if (found.backup !== backup || (found.kind === 'backup' && found.volume !== volume))
      throw new Failure('corrupt', { path: key, reason: `it is that of backup ${found.backup}` });
    return found;
  }

  /** Puts what decides a backup's fate, once. False: it was decided before. */
  async decide(volume: string, backup: string, body: Buffer): Promise<boolean> {
    const key = manifestKey(volume, backup);
    // A server that does not compare leaves it to us; then one daemon has to be the only one (docs/backups.md).
    if (!this.isConditional && (await this.objects.get(key, null)) !== null) return false;
    return (await this.objects.put(key, body, { ifAbsent: true })) === 'stored';
  }
}

/** Tried twice with one key, because a server may ignore the condition without a word. */
async function isConditional(objects: ObjectStore): Promise<boolean> {
  const key = `probe/${randomUUID()}.json`;
  const first = Buffer.from('{"first":true}\n');
  try {
    if ((await objects.put(key, first, { ifAbsent: true })) !== 'stored') return false;
    const second = await objects.put(key, Buffer.from('{"first":false}\n'), { ifAbsent: true });
    const there = await objects.get(key, null);
    return second === 'exists' && there?.equals(first) === true;
  } finally {
    await objects.delete([key]);
  }
}

/** Reads leaves of one manifest. Index objects are small and read whole; the last one is kept. */
export class LeafReader {
  readonly #repository: Repository;
  readonly #manifest: Manifest;
  readonly #at: ReadonlyMap<number, ManifestLeaf>;
  readonly #indexes: ReadonlyMap<number, { readonly key: string; readonly bytes: number }>;
  #kept: { readonly number: number; readonly body: Buffer } | null = null;

  constructor(repository: Repository, manifest: Manifest) {
    this.#repository = repository;
    this.#manifest = manifest;
    this.#at = new Map(manifest.leaves.map((leaf) => [leaf[0], leaf]));
    this.#indexes = new Map(
      manifest.indexes.map(([number, backup, sequence, bytes]) => [
        number,
        { key: indexKey(manifest.volume, backup, sequence), bytes },
      ]),
    );
  }

  has(leaf: number): boolean {
    return this.#at.has(leaf);
  }

  /** Null: all zeros. Fails with `corrupt` when it is not what was written. */
  async read(number: number): Promise<Leaf | null> {
    const at = this.#at.get(number);
    if (at === undefined) return null;
    const [, index, offset, bytes, hash] = at;
    const { key, body } = await this.#index(index);
    const damaged = () => new Failure('corrupt', { path: key, reason: `leaf ${number} is not what was written` });
    const stored = body.subarray(offset, offset + bytes);
    if (stored.length !== bytes) throw damaged();
    let plain = stored;
    if (bytes < LEAF_BYTES) {
      if (bytes < 4 || stored.readUInt32LE(0) !== LEAF_BYTES) throw damaged();
      try {
        plain = uncompressSync(stored);
      } catch {
        throw damaged();
      }
    }
    if (plain.length !== LEAF_BYTES) throw damaged();
    const leaf = new Leaf(plain);
    if (leaf.hash().toString('hex') !== hash) throw damaged();
    return leaf;
  }

  async #index(number: number): Promise<{ key: string; body: Buffer }> {
    const index = this.#indexes.get(number);
    if (index === undefined) throw new Error(`manifest ${this.#manifest.backup} has no index ${number}`);
    if (this.#kept?.number !== number) {
      const body = await this.#repository.objects.get(index.key, null);
      if (body === null) throw new Failure('corrupt', { path: index.key, reason: 'it is missing' });
      this.#kept = { number, body };
    }
    return { key: index.key, body: this.#kept.body };
  }
}
