/**
 * A pack: the stored bytes of many chunks one after the other, and a footer that says which they are, so that a pack
 * can be understood without its index. docs/backup-format.md has the layout. It knows bytes, not where packs lie.
 *
 *   chunks, back to back     dataBytes
 *   entries, 64 bytes each   chunk u64 | offset u32 | stored bytes u32 | flags u32 | zero 12 | hash 32
 *   trailer, 112 bytes       magic 8 | count u32 | chunk bytes u32 | pack number u32 | zero 4 | key id 16 |
 *                            data bytes u64 | BLAKE3 of the chunks 32 | BLAKE3 of entries and trailer up to here 32
 */
import { blake3 } from '@napi-rs/blake-hash';
import { Failure } from '../base/errors.ts';

/** How a chunk is stored: the low byte is the codec. */
export const CODEC = { raw: 1, lz4: 2, zstd: 3 } as const;
/** What chunks may be compressed by. */
export const COMPRESSIONS = ['lz4', 'zstd'] as const;
export type Compression = (typeof COMPRESSIONS)[number];
export const CODEC_MASK = 0xff;
export const ENCRYPTED = 0x100;
export const HASH_BYTES = 32;

const MAGIC = Buffer.from('QRYPACK1');
const ENTRY_BYTES = 64;
const ENTRY_HASH_AT = ENTRY_BYTES - HASH_BYTES;
const TRAILER_BYTES = 112;
const DATA_HASH_AT = TRAILER_BYTES - 2 * HASH_BYTES;
const FOOTER_HASH_AT = TRAILER_BYTES - HASH_BYTES;
/** More than any pack has: 16 MiB of chunks of a few bytes each would need more, and are never written. */
const ENTRIES_MAX = 1 << 20;

export type PackEntry = {
  readonly chunk: number;
  readonly offset: number;
  readonly storedBytes: number;
  readonly flags: number;
  readonly hash: Buffer;
};

export type PackFooter = {
  readonly packNumber: number;
  readonly chunkBytes: number;
  /** 32 hexadecimal digits; zeros without encryption. */
  readonly keyId: string;
  readonly dataBytes: number;
  readonly dataHash: Buffer;
  /** What a manifest names: it stands for every byte of the pack. */
  readonly hash: Buffer;
  readonly entries: readonly PackEntry[];
};

export const NO_KEY_ID = '0'.repeat(32);

export function footerBytes(count: number): number {
  return count * ENTRY_BYTES + TRAILER_BYTES;
}

export function encodeFooter(about: Omit<PackFooter, 'hash'>): { bytes: Buffer; hash: Buffer } {
  const { entries } = about;
  const bytes = Buffer.alloc(footerBytes(entries.length));
  entries.forEach((entry, index) => {
    const at = index * ENTRY_BYTES;
    bytes.writeBigUInt64LE(BigInt(entry.chunk), at);
    bytes.writeUInt32LE(entry.offset, at + 8);
    bytes.writeUInt32LE(entry.storedBytes, at + 12);
    bytes.writeUInt32LE(entry.flags, at + 16);
    entry.hash.copy(bytes, at + ENTRY_HASH_AT);
  });
  const at = entries.length * ENTRY_BYTES;
  MAGIC.copy(bytes, at);
  bytes.writeUInt32LE(entries.length, at + 8);
  bytes.writeUInt32LE(about.chunkBytes, at + 12);
  bytes.writeUInt32LE(about.packNumber, at + 16);
  bytes.write(about.keyId, at + 24, 16, 'hex');
  bytes.writeBigUInt64LE(BigInt(about.dataBytes), at + 40);
  about.dataHash.copy(bytes, at + DATA_HASH_AT);
  const hash = blake3(bytes.subarray(0, at + FOOTER_HASH_AT));
  hash.copy(bytes, at + FOOTER_HASH_AT);
  return { bytes, hash };
}

/** How long the footer is, from the last bytes of a pack; fails with `corrupt` where they are no trailer. */
export function footerBytesOf(key: string, tail: Buffer): number {
  const at = tail.length - TRAILER_BYTES;
  if (at < 0 || tail.compare(MAGIC, 0, MAGIC.length, at, at + MAGIC.length) !== 0)
    throw new Failure('corrupt', { path: key, reason: 'it does not end like a pack' });
  const count = tail.readUInt32LE(at + 8);
  if (count > ENTRIES_MAX) throw new Failure('corrupt', { path: key, reason: `it claims ${count} chunks` });
  return footerBytes(count);
}

/** From bytes that end where the pack ends and hold at least its footer. */
export function decodeFooter(key: string, tail: Buffer): PackFooter {
  const length = footerBytesOf(key, tail);
  if (length > tail.length) throw new Failure('corrupt', { path: key, reason: 'its footer is longer than itself' });
  const bytes = tail.subarray(tail.length - length);
  const at = length - TRAILER_BYTES;
  const hash = blake3(bytes.subarray(0, at + FOOTER_HASH_AT));
  if (!hash.equals(bytes.subarray(at + FOOTER_HASH_AT)))
    throw new Failure('corrupt', { path: key, reason: 'its footer is not what was written' });
  const entries: PackEntry[] = [];
  for (let start = 0; start < at; start += ENTRY_BYTES) {
    entries.push({
      chunk: Number(bytes.readBigUInt64LE(start)),
      offset: bytes.readUInt32LE(start + 8),
      storedBytes: bytes.readUInt32LE(start + 12),
      flags: bytes.readUInt32LE(start + 16),
      hash: bytes.subarray(start + ENTRY_HASH_AT, start + ENTRY_BYTES),
    });
  }
  return {
    packNumber: bytes.readUInt32LE(at + 16),
    chunkBytes: bytes.readUInt32LE(at + 12),
    keyId: bytes.toString('hex', at + 24, at + 40),
    dataBytes: Number(bytes.readBigUInt64LE(at + 40)),
    dataHash: bytes.subarray(at + DATA_HASH_AT, at + DATA_HASH_AT + HASH_BYTES),
    hash,
    entries,
  };
}
