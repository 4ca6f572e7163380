/**
 * Fills packs with stored chunks in address order and uploads each when it is full, with index objects the same way.
 * It knows where a chunk came to lie as soon as it takes it; that it is durable only `finish` says.
 */
import { compressSync } from 'lz4-napi';
import { Failure } from '../base/errors.ts';
import { LEAF_BYTES, type Leaf, type LeafEntry } from '../format/backup-leaf.ts';
import type { ManifestIndex, ManifestLeaf, ManifestPack } from '../format/backup-manifest.ts';
import { encodeFooter, footerBytes, NO_KEY_ID, type PackEntry } from '../format/backup-pack.ts';
import { indexKey, packKey } from './keys.ts';
import { Background } from './pipeline.ts';
import type { Repository } from './repository.ts';

/** The unit of upload: requests stay few and memory bounded. */
const PACK_BYTES = 16 << 20;
const INDEX_BYTES = 4 << 20;
/** With the pack that is being filled, what packs take of memory: 48 MiB per backup. */
const UPLOADS_AT_ONCE = 2;
const FOOTER_ENTRIES_MAX = 4096;

export type WriterOptions = {
  readonly volume: string;
  readonly backup: string;
  /** Null: not encrypted. */
  readonly keyId: string | null;
  /** Numbers of this backup begin here; sequences of packs after those that are already there. */
  readonly firstPack: number;
  readonly firstSequence: number;
  readonly firstIndex: number;
  readonly packBytes?: number;
};

export type Written = {
  readonly packs: readonly ManifestPack[];
  readonly indexes: readonly ManifestIndex[];
  readonly bytes: number;
};

type OpenPack = {
  readonly sequence: number;
  readonly buffer: Buffer;
  readonly entries: PackEntry[];
  used: number;
};

export class PackWriter {
  readonly #repository: Repository;
  readonly #options: WriterOptions;
  readonly #uploads = new Background({ atOnceMax: UPLOADS_AT_ONCE });
  readonly #packBytes: number;
  readonly #packs: ManifestPack[] = [];
  readonly #indexes: ManifestIndex[] = [];
  #pack: OpenPack | null = null;
  /** Of packs that are stored: used again, so that memory does not depend on when the garbage collector runs. */
  readonly #spare: Buffer[] = [];
  #sequence: number;
  #leaves: Buffer[] = [];
  #leavesBytes = 0;
  #bytes = 0;

  constructor(repository: Repository, options: WriterOptions) {
    this.#repository = repository;
    this.#options = options;
    this.#packBytes = options.packBytes ?? PACK_BYTES;
    this.#sequence = options.firstSequence;
  }

  get bytes(): number {
    return this.#bytes;
  }

  async addChunk(chunk: { chunk: number; stored: Buffer; flags: number; hash: Buffer }): Promise<LeafEntry> {
    const { stored, flags, hash } = chunk;
    if (this.#pack !== null && this.#pack.used + stored.length > this.#packBytes) await this.#seal();
    if (this.#pack !== null && this.#pack.entries.length === FOOTER_ENTRIES_MAX) await this.#seal();
    this.#pack ??= this.#open();
    const pack = this.#pack;
    const offset = pack.used;
    stored.copy(pack.buffer, offset);
    pack.used += stored.length;
    pack.entries.push({ chunk: chunk.chunk, offset, storedBytes: stored.length, flags, hash });
    return { pack: this.#options.firstPack + pack.sequence, offset, storedBytes: stored.length, flags, hash };
  }

  /** Where the manifest will find the leaf. */
  async addLeaf(number: number, leaf: Leaf): Promise<ManifestLeaf> {
    const packed = compressSync(leaf.bytes);
    const stored = packed.length < LEAF_BYTES ? packed : leaf.bytes;
    if (this.#leavesBytes + stored.length > INDEX_BYTES) await this.#sealIndex();
    const index = this.#options.firstIndex + this.#indexes.length;
    const at: ManifestLeaf = [number, index, this.#leavesBytes, stored.length, leaf.hash().toString('hex')];
    this.#leaves.push(stored);
    this.#leavesBytes += stored.length;
    return at;
  }

  /** Everything is durable when it returns. */
  async finish(): Promise<Written> {
    await this.#seal();
    await this.#sealIndex();
    await this.#uploads.settled();
    const packs = this.#packs.toSorted((a, b) => a[0] - b[0]);
    return { packs, indexes: this.#indexes, bytes: this.#bytes };
  }

  /** After a failure: nothing is under way any more. */
  async abandon(): Promise<void> {
    await this.#uploads.idle();
  }

  #open(): OpenPack {
    // The largest chunk may start just below the limit of an empty pack.
    const size = this.#packBytes + this.#repository.chunkBytes + footerBytes(FOOTER_ENTRIES_MAX);
    const buffer = this.#spare.pop() ?? Buffer.allocUnsafeSlow(size);
    const pack: OpenPack = { sequence: this.#sequence, buffer, entries: [], used: 0 };
    this.#sequence += 1;
    return pack;
  }

  async #seal(): Promise<void> {
    const pack = this.#pack;
    this.#pack = null;
    if (pack === null) return;
    const { objects, pool, chunkBytes } = this.#repository;
    const { volume, backup, keyId, firstPack } = this.#options;
    await this.#uploads.add(async () => {
      const { bytes, blake3 } = await pool.hash({ bytes: pack.buffer, dataBytes: pack.used });
      const number = firstPack + pack.sequence;
      const footer = encodeFooter({
        packNumber: number,
        chunkBytes,
        keyId: keyId ?? NO_KEY_ID,
        dataBytes: pack.used,
        dataHash: blake3,
        entries: pack.entries,
      });
      const whole = Buffer.from(bytes.buffer, bytes.byteOffset, pack.used + footer.bytes.length);
      footer.bytes.copy(whole, pack.used);
      await objects.put(packKey(volume, backup, pack.sequence), whole, { ifAbsent: false });
      this.#spare.push(bytes);
      const live = pack.used;
      this.#packs.push([number, backup, pack.sequence, whole.length, live, footer.hash.toString('hex'), keyId]);
      this.#bytes += whole.length;
    });
  }

  async #sealIndex(): Promise<void> {
    if (this.#leavesBytes === 0) return;
    const body = Buffer.concat(this.#leaves);
    this.#leaves = [];
    this.#leavesBytes = 0;
    const sequence = this.#indexes.length;
    const { volume, backup, firstIndex } = this.#options;
    this.#indexes.push([firstIndex + sequence, backup, sequence, body.length]);
    this.#bytes += body.length;
    await this.#uploads.add(async () => {
      await this.#repository.objects.put(indexKey(volume, backup, sequence), body, { ifAbsent: false });
    });
  }
}

/** Numbers are u32 for the whole line of a volume's backups. */
export function requireNumber(next: number): void {
  if (next < 0xffff_0000) return;
  throw new Failure('not_supported', {
    reason: 'This line of backups has used up its pack numbers: make a full backup.',
  });
}
