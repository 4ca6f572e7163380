/**
 * A manifest: the object whose existence makes a backup exist. It lists the packs and index objects that the backup
 * needs, whoever wrote them, so that one manifest restores a volume. Two lines: JSON, and the BLAKE3 of that line. At
 * a manifest's place there may be a tombstone: the decision that there will never be one.
 */
import { Blake3Hasher, blake3 } from '@napi-rs/blake-hash';
import { type Static, Type } from 'typebox';
import { Check } from 'typebox/value';
import { Failure } from '../base/errors.ts';
import { LEAF_CHUNKS } from './backup-leaf.ts';

export const BACKUP_FORMAT = 1;
export const CHUNK_BYTES_MIN = 16384;
export const CHUNK_BYTES_MAX = 1 << 20;

const Hash = Type.Unsafe<string>({ type: 'string', pattern: '^[0-9a-f]{64}$' });
const Id = Type.Unsafe<string>({ type: 'string', pattern: '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' });
const KeyId = Type.Unsafe<string>({ type: 'string', pattern: '^[0-9a-f]{32}$' });
const Count = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });
const U32 = Type.Integer({ minimum: 0, maximum: 0xffff_ffff });
const TextOrNull = Type.Union([Type.String(), Type.Null()]);
const Texts = Type.Record(Type.String(), Type.String());

/** Number, the backup that wrote it, its place among that backup's, bytes, bytes still needed, hash of the footer, key. */
const Pack = Type.Tuple([U32, Id, U32, Count, Count, Hash, Type.Union([KeyId, Type.Null()])]);
/** Number, the backup that wrote it, its place among that backup's, bytes. */
const Index = Type.Tuple([U32, Id, U32, Count]);
/** Which 1,024 chunks, number of the index object, offset and bytes in it, hash of the leaf. */
const LeafAt = Type.Tuple([U32, U32, Count, Count, Hash]);

const ManifestSchema = Type.Object({
  format: Type.Literal(BACKUP_FORMAT),
  kind: Type.Literal('backup'),
  backup: Id,
  volume: Id,
  /** For information; nothing of it is needed. */
  parent: Type.Union([Id, Type.Null()]),
  created_at: Type.String(),
  data_timestamp: Type.String(),
  size_bytes: Count,
  chunk_bytes: Type.Integer({ minimum: CHUNK_BYTES_MIN, maximum: CHUNK_BYTES_MAX }),
  leaf_chunks: Type.Literal(LEAF_CHUNKS),
  is_encrypted: Type.Boolean(),
  /** The next numbers, so that none is given twice in a line of backups. */
  next_pack: U32,
  next_index: U32,
  packs: Type.Array(Pack),
  indexes: Type.Array(Index),
  leaves: Type.Array(LeafAt),
  root: Hash,
  /** Bytes that this backup added to the store. */
  added_bytes: Count,
  /** Bytes in packs that this backup needs, whoever added them. */
  stored_bytes: Count,
  about: Type.Object({
    name: TextOrNull,
    description: TextOrNull,
    metadata: Texts,
    project_id: Type.String(),
    user_id: Type.String(),
    snapshot_id: TextOrNull,
    volume_name: TextOrNull,
    volume_type: TextOrNull,
    bootable: Type.Boolean(),
    image_metadata: Texts,
  }),
  /** Tells a writer its own manifest from another's. */
  nonce: Type.String(),
});
export type Manifest = Static<typeof ManifestSchema>;
export type ManifestPack = Static<typeof Pack>;
export type ManifestIndex = Static<typeof Index>;
export type ManifestLeaf = Static<typeof LeafAt>;
export type ManifestAbout = Manifest['about'];

const TombstoneSchema = Type.Object({
  format: Type.Literal(BACKUP_FORMAT),
  kind: Type.Literal('tombstone'),
  backup: Id,
  created_at: Type.String(),
});
export type Tombstone = Static<typeof TombstoneSchema>;

export function encodeSealed(value: unknown): Buffer {
  const line = Buffer.from(JSON.stringify(value));
  return Buffer.concat([line, Buffer.from(`\n${blake3(line).toString('hex')}\n`)]);
}

/** The value of an object of two lines; fails with `corrupt` unless every byte is as written. */
export function decodeSealed(key: string, bytes: Buffer): unknown {
  const end = bytes.length - 66;
  const line = bytes.subarray(0, Math.max(0, end));
  if (end < 0 || bytes.toString('latin1', end) !== `\n${blake3(line).toString('hex')}\n`)
    throw new Failure('corrupt', { path: key, reason: 'its bytes are not what was written' });
  try {
    return JSON.parse(line.toString());
  } catch {
    throw new Failure('corrupt', { path: key, reason: 'it is not JSON' });
  }
}

export function decodeManifest(key: string, bytes: Buffer): Manifest | Tombstone {
  const value = decodeSealed(key, bytes);
  const found = (value as { format?: unknown } | null)?.format;
  if (typeof found === 'number' && found > BACKUP_FORMAT)
    throw new Failure('newer_format', { path: key, found, supported: BACKUP_FORMAT });
  if (Check(TombstoneSchema, value)) return value;
  if (!Check(ManifestSchema, value)) throw new Failure('corrupt', { path: key, reason: 'it is no manifest' });
  requireConsistent(key, value);
  return value;
}

/** What a reader relies on beyond shapes. */
function requireConsistent(key: string, manifest: Manifest): void {
  const damaged = (reason: string) => new Failure('corrupt', { path: key, reason });
  const indexes = new Map(manifest.indexes.map(([number, , , bytes]) => [number, bytes]));
  const leafBytes = manifest.chunk_bytes * LEAF_CHUNKS;
  let before = -1;
  for (const [leaf, index, offset, bytes] of manifest.leaves) {
    if (leaf <= before || leaf * leafBytes >= manifest.size_bytes)
      throw damaged(`leaf ${leaf} is out of order or range`);
    const there = indexes.get(index);
    if (there === undefined || offset + bytes > there) throw damaged(`leaf ${leaf} lies outside its index object`);
    before = leaf;
  }
  if (manifest.root !== rootOf(manifest)) throw damaged('its root is not that of its leaves');
}

/** One hash for the contents of a volume at a moment: size, chunk size, and the hash of each leaf that is not all zeros. */
export function rootOf(about: Pick<Manifest, 'size_bytes' | 'chunk_bytes' | 'leaves'>): string {
  const hasher = new Blake3Hasher();
  const numbers = Buffer.alloc(12);
  numbers.writeBigUInt64LE(BigInt(about.size_bytes), 0);
  numbers.writeUInt32LE(about.chunk_bytes, 8);
  hasher.update(numbers);
  for (const [leaf, , , , hash] of about.leaves) {
    const item = Buffer.alloc(36);
    item.writeUInt32LE(leaf, 0);
    item.write(hash, 4, 'hex');
    hasher.update(item);
  }
  return hasher.digest('hex');
}
