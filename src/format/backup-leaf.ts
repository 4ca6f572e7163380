/**
 * A leaf of a backup's index: where 1,024 consecutive chunks of a volume are stored. A chunk without a pack is zeros.
 *
 *   per chunk, 48 bytes   pack number u32 (0: zeros) | offset u32 | stored bytes u32 | flags u32 | hash 32
 */
import { blake3 } from '@napi-rs/blake-hash';
import { HASH_BYTES } from './backup-pack.ts';

export const LEAF_CHUNKS = 1024;
const ENTRY_BYTES = 48;
export const LEAF_BYTES = LEAF_CHUNKS * ENTRY_BYTES;
const HASH_AT = ENTRY_BYTES - HASH_BYTES;

export type LeafEntry = {
  readonly pack: number;
  readonly offset: number;
  readonly storedBytes: number;
  readonly flags: number;
  readonly hash: Buffer;
};

/** A leaf in memory is its bytes: nothing is allocated per chunk. */
export class Leaf {
  readonly bytes: Buffer;

  constructor(bytes: Buffer) {
    if (bytes.length !== LEAF_BYTES) throw new Error(`a leaf of ${bytes.length} bytes`);
    this.bytes = bytes;
  }

  static empty(): Leaf {
    return new Leaf(Buffer.alloc(LEAF_BYTES));
  }

  copy(): Leaf {
    return new Leaf(Buffer.from(this.bytes));
  }

  /** Null: zeros. */
  get(slot: number): LeafEntry | null {
    const at = slot * ENTRY_BYTES;
    const pack = this.bytes.readUInt32LE(at);
    if (pack === 0) return null;
    return {
      pack,
      offset: this.bytes.readUInt32LE(at + 4),
      storedBytes: this.bytes.readUInt32LE(at + 8),
      flags: this.bytes.readUInt32LE(at + 12),
      hash: this.bytes.subarray(at + HASH_AT, at + ENTRY_BYTES),
    };
  }

  set(slot: number, entry: LeafEntry | null): void {
    const at = slot * ENTRY_BYTES;
    if (entry === null) {
      this.bytes.fill(0, at, at + ENTRY_BYTES);
      return;
    }
    this.bytes.writeUInt32LE(entry.pack, at);
    this.bytes.writeUInt32LE(entry.offset, at + 4);
    this.bytes.writeUInt32LE(entry.storedBytes, at + 8);
    this.bytes.writeUInt32LE(entry.flags, at + 12);
    entry.hash.copy(this.bytes, at + HASH_AT);
  }

  isEmpty(): boolean {
    for (let slot = 0; slot < LEAF_CHUNKS; slot += 1)
      if (this.bytes.readUInt32LE(slot * ENTRY_BYTES) !== 0) return false;
    return true;
  }

  hash(): Buffer {
    return blake3(this.bytes);
  }
}
