/**
 * A repository in a folder and volumes that are maps of blocks: what backups need, without a daemon. A volume's freeze
 * is a copy; what changed between two is told by comparing them, as the engine tells it from its maps.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { ByteRange } from '../../src/backend/backend.ts';
import { ChunkPool } from '../../src/backup/chunk-pool.ts';
import { type BackupOrder, type BackupResult, createBackup } from '../../src/backup/create.ts';
import type { WrappingKey } from '../../src/backup/encryption.ts';
import { Repository } from '../../src/backup/repository.ts';
import { restoreBackup } from '../../src/backup/restore.ts';
import type { ManifestAbout } from '../../src/format/backup-manifest.ts';
import type { Compression } from '../../src/format/backup-pack.ts';
import { FolderObjects } from '../../src/objects/folder.ts';
import type { ObjectStore } from '../../src/objects/objects.ts';
import { type TempFolder, tempFolder } from '../support/temp.ts';

export const BLOCK_BYTES = 4096;
const ZERO_BLOCK = Buffer.alloc(BLOCK_BYTES);

export class FakeVolume {
  readonly sizeBytes: number;
  readonly blocks: Map<number, Buffer>;
  readBytes = 0;

  constructor(sizeBytes: number, blocks = new Map<number, Buffer>()) {
    this.sizeBytes = sizeBytes;
    this.blocks = blocks;
  }

  freeze(sizeBytes = this.sizeBytes): FakeVolume {
    return new FakeVolume(sizeBytes, new Map([...this.blocks].filter(([block]) => block * BLOCK_BYTES < sizeBytes)));
  }

  /** Random bytes; every third block of text, which compresses. */
  fill(offset: number, length: number): void {
    for (let block = offset / BLOCK_BYTES; block < (offset + length) / BLOCK_BYTES; block += 1)
      this.blocks.set(
        block,
        block % 3 === 0 ? Buffer.alloc(BLOCK_BYTES, `block ${Math.random()}`) : randomBytes(BLOCK_BYTES),
      );
  }

  discard(offset: number, length: number): void {
    for (let block = offset / BLOCK_BYTES; block < (offset + length) / BLOCK_BYTES; block += 1)
      this.blocks.delete(block);
  }

  async read(offset: number, target: Buffer): Promise<void> {
    this.readBytes += target.length;
    for (let at = 0; at < target.length; at += BLOCK_BYTES)
      (this.blocks.get((offset + at) / BLOCK_BYTES) ?? ZERO_BLOCK).copy(target, at);
  }

  async write(offset: number, data: Buffer): Promise<void> {
    if (offset + data.length > this.sizeBytes) throw new Error('a write past the end');
    for (let at = 0; at < data.length; at += BLOCK_BYTES)
      this.blocks.set((offset + at) / BLOCK_BYTES, Buffer.from(data.subarray(at, at + BLOCK_BYTES)));
  }

  async writeZeroes(offset: number, length: number): Promise<void> {
    if (offset + length > this.sizeBytes) throw new Error('zeros past the end');
    this.discard(offset, length);
  }

  async flush(): Promise<void> {}

  map(): ByteRange[] {
    return rangesOf([...this.blocks.keys()], () => 'data');
  }

  changesSince(before: FakeVolume): ByteRange[] {
    const touched = [...new Set([...this.blocks.keys(), ...before.blocks.keys()])];
    const changed = touched.filter((block) => this.blocks.get(block) !== before.blocks.get(block));
    return rangesOf(changed, (block) => (this.blocks.has(block) ? 'data' : 'hole'));
  }

  /** As users see it: a block of zeros and no block are the same. */
  isSameAs(other: FakeVolume): boolean {
    for (const block of new Set([...this.blocks.keys(), ...other.blocks.keys()]))
      if (!(this.blocks.get(block) ?? ZERO_BLOCK).equals(other.blocks.get(block) ?? ZERO_BLOCK)) return false;
    return true;
  }
}

function rangesOf(blocks: number[], kindOf: (block: number) => 'data' | 'hole'): ByteRange[] {
  const ranges: ByteRange[] = [];
  for (const block of blocks.sort((a, b) => a - b)) {
    const kind = kindOf(block);
    const last = ranges.at(-1);
    const offset = block * BLOCK_BYTES;
    if (last?.kind === kind && last.offset + last.length === offset)
      ranges[ranges.length - 1] = { ...last, length: last.length + BLOCK_BYTES };
    else ranges.push({ offset, length: BLOCK_BYTES, kind });
  }
  return ranges;
}

export const ABOUT: ManifestAbout = {
  name: 'nightly',
  description: null,
  metadata: { a: 'b' },
  project_id: 'p',
  user_id: 'u',
  snapshot_id: null,
  volume_name: 'disk',
  volume_type: '__DEFAULT__',
  bootable: false,
  image_metadata: {},
};

type WorldOptions = {
  readonly wrappingKey?: WrappingKey | null;
  readonly compression?: Compression;
  readonly around?: (objects: ObjectStore) => ObjectStore;
};

export type Taken = BackupResult & {
  readonly id: string;
  readonly frozen: FakeVolume;
  readonly readFromVolume: number;
};

export class BackupWorld implements AsyncDisposable {
  readonly folder: string;
  readonly pool: ChunkPool;
  readonly volumeId = randomUUID();
  repository: Repository;
  /** Milliseconds that the repository's clock is ahead. */
  aheadMs = 0;
  readonly #temp: TempFolder;

  private constructor(temp: TempFolder, pool: ChunkPool, repository: Repository) {
    this.#temp = temp;
    this.folder = temp.path;
    this.pool = pool;
    this.repository = repository;
  }

  static async open(options: WorldOptions = {}): Promise<BackupWorld> {
    const temp = await tempFolder();
    const pool = new ChunkPool({ threadsMax: 2 });
    let world: BackupWorld | null = null;
    const objects = await FolderObjects.open(temp.path, Date.now());
    const repository = await Repository.open({
      objects: options.around?.(objects) ?? objects,
      pool,
      wrappingKey: options.wrappingKey ?? null,
      ...(options.compression !== undefined && { compression: options.compression }),
      now: () => Date.now() + (world?.aheadMs ?? 0),
    });
    world = new BackupWorld(temp, pool, repository);
    return world;
  }

  /** The same folder, opened again in another way. */
  async reopen(options: WorldOptions) {
    const objects = await FolderObjects.open(this.folder, Date.now());
    this.repository = await Repository.open({
      objects: options.around?.(objects) ?? objects,
      pool: this.pool,
      wrappingKey: options.wrappingKey ?? null,
      ...(options.compression !== undefined && { compression: options.compression }),
      now: () => Date.now() + this.aheadMs,
    });
  }

  order(frozen: FakeVolume, parent: Taken | null, changes: Partial<BackupOrder> = {}): BackupOrder {
    return {
      volume: this.volumeId,
      backup: randomUUID(),
      parent: parent?.id ?? null,
      about: ABOUT,
      createdAt: new Date().toISOString(),
      dataTimestamp: new Date().toISOString(),
      sizeBytes: frozen.sizeBytes,
      source: frozen,
      changes: async () => (parent === null ? null : frozen.changesSince(parent.frozen)),
      contents: async () => frozen.map(),
      signal: new AbortController().signal,
      onProgress: () => {},
      ...changes,
    };
  }

  async take(volume: FakeVolume, parent: Taken | null = null, changes: Partial<BackupOrder> = {}): Promise<Taken> {
    const frozen = volume.freeze();
    const order = this.order(frozen, parent, changes);
    const result = await createBackup(this.repository, order);
    return { ...result, id: order.backup, frozen, readFromVolume: frozen.readBytes };
  }

  async restore(id: string, target?: FakeVolume): Promise<FakeVolume> {
    const manifest = await this.repository.manifest(this.volumeId, id);
    if (manifest === null) throw new Error(`no manifest ${id}`);
    const volume = target ?? new FakeVolume(manifest.size_bytes);
    await restoreBackup(this.repository, {
      manifest,
      target: volume,
      targetBytes: volume.sizeBytes,
      mapped: volume.map(),
      signal: new AbortController().signal,
      onProgress: () => {},
    });
    return volume;
  }

  /** Key and size of every object. */
  files(): Map<string, number> {
    const entries = readdirSync(this.folder, { recursive: true, withFileTypes: true });
    const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
    return new Map(files.map((path) => [path.slice(this.folder.length + 1), statSync(path).size]));
  }

  bytesOf(key: string): Buffer {
    return readFileSync(join(this.folder, key));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pool.close();
    await this.#temp.remove();
  }
}
