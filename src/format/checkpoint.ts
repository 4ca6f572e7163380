/**
 * The root of a checkpoint: everything but the pages, at one journal position. Little-endian.
 *
 *   offset  size
 *        0     8  magic "QUARRYCP"
 *        8     4  format version
 *       12     4  CRC-32 (ISO-HDLC) of the whole with this field as 0
 *       16     8  length of the whole
 *       24     8  number of the checkpoint, 1 for the first
 *       32     8  journal sequence: every frame up to it is in here
 *       40    16  pool id
 *       56     4  next object number
 *       60     4  number of objects
 *       64     4  number of extent files
 *       68     4  length of the drop list
 *       72     4  number of page ids
 *       76     4  number of damaged extents (version 1: zero)
 *       80     …  objects, 64 bytes each: number u32, kind u32 (0 volume, 1 snapshot), size u64, root page u32, height u32,
 *                 mapped extents u64, source number u32, zero u32, created at u64 (journal sequence), uuid 16
 *        …     …  extent files, 116 bytes each: number u32, owner u32, used extents u32, zero u32, 16 x u32 pages of references,
 *                 9 x u32 pages of sums (version 1: without these, 80 bytes)
 *        …     …  drop list: page ids (u32), the next one last
 *        …     …  addresses (u32) of extents that are known to be damaged
 *        …     …  page table: per page id from 0 on, slot u32 and references u32; slot 0 and references 0: free
 */

import { crc32 } from 'node:zlib';
import { CHECKPOINT_VERSION } from './version.ts';

export const REFERENCE_PAGES_PER_FILE = 16;
export const SUM_PAGES_PER_FILE = 9;
export const POOL_ID_BYTES = 16;
const HEADER_BYTES = 80;
const OBJECT_BYTES = 64;
const FILE_BYTES_1 = 16 + REFERENCE_PAGES_PER_FILE * 4;
const FILE_BYTES = FILE_BYTES_1 + SUM_PAGES_PER_FILE * 4;
const CRC_OFFSET = 12;
const MAGIC = 'QUARRYCP';

export type CheckpointObject = {
  readonly number: number;
  readonly kind: 'volume' | 'snapshot';
  readonly sizeBytes: number;
  readonly root: number;
  readonly height: number;
  readonly mapped: number;
  readonly sourceNumber: number;
  readonly createdAt: number;
  /** UUID as 32 hexadecimal digits with dashes. */
  readonly id: string;
};

export type CheckpointFile = {
  readonly fileNumber: number;
  readonly owner: number;
  readonly used: number;
  readonly references: Uint32Array;
  readonly sums: Uint32Array;
};

export type Checkpoint = {
  readonly number: number;
  readonly sequence: number;
  readonly poolId: string;
  readonly nextObjectNumber: number;
  readonly objects: readonly CheckpointObject[];
  readonly files: readonly CheckpointFile[];
  readonly drops: readonly number[];
  /** Addresses of extents whose bytes are known to be wrong. */
  readonly damaged: readonly number[];
  readonly slots: Uint32Array;
  readonly references: Uint32Array;
};

export function encodeCheckpoint(root: Checkpoint): Uint8Array {
  const pages = root.slots.length;
  const length =
    HEADER_BYTES +
    root.objects.length * OBJECT_BYTES +
    root.files.length * FILE_BYTES +
    root.drops.length * 4 +
    root.damaged.length * 4 +
    pages * 8;
  const bytes = Buffer.alloc(length);
  bytes.write(MAGIC, 0, 'latin1');
  bytes.writeUInt32LE(CHECKPOINT_VERSION, 8);
  bytes.writeBigUInt64LE(BigInt(length), 16);
  bytes.writeBigUInt64LE(BigInt(root.number), 24);
  bytes.writeBigUInt64LE(BigInt(root.sequence), 32);
  bytes.write(root.poolId.replaceAll('-', ''), 40, 'hex');
  const counts = [
    root.nextObjectNumber,
    root.objects.length,
    root.files.length,
    root.drops.length,
    pages,
    root.damaged.length,
  ];
  counts.forEach((count, index) => {
    bytes.writeUInt32LE(count, 56 + index * 4);
  });
  let at = HEADER_BYTES;
  for (const object of root.objects) {
    bytes.writeUInt32LE(object.number, at);
    bytes.writeUInt32LE(object.kind === 'volume' ? 0 : 1, at + 4);
    bytes.writeBigUInt64LE(BigInt(object.sizeBytes), at + 8);
    bytes.writeUInt32LE(object.root, at + 16);
    bytes.writeUInt32LE(object.height, at + 20);
    bytes.writeBigUInt64LE(BigInt(object.mapped), at + 24);
    bytes.writeUInt32LE(object.sourceNumber, at + 32);
    bytes.writeBigUInt64LE(BigInt(object.createdAt), at + 40);
    bytes.write(object.id.replaceAll('-', ''), at + 48, 'hex');
    at += OBJECT_BYTES;
  }
  for (const file of root.files) {
    bytes.writeUInt32LE(file.fileNumber, at);
    bytes.writeUInt32LE(file.owner, at + 4);
    bytes.writeUInt32LE(file.used, at + 8);
    file.references.forEach((page, index) => {
      bytes.writeUInt32LE(page, at + 16 + index * 4);
    });
    file.sums.forEach((page, index) => {
      bytes.writeUInt32LE(page, at + FILE_BYTES_1 + index * 4);
    });
    at += FILE_BYTES;
  }
  for (const word of [...root.drops, ...root.damaged]) {
    bytes.writeUInt32LE(word, at);
    at += 4;
  }
  const table = new Uint32Array(pages * 2);
  for (let page = 0; page < pages; page += 1) {
    table[page * 2] = root.slots[page] ?? 0;
    table[page * 2 + 1] = root.references[page] ?? 0;
  }
  bytes.set(new Uint8Array(table.buffer), at);
  bytes.writeUInt32LE(crc32(bytes), CRC_OFFSET);
  return bytes;
}

export type CheckpointError =
  | { readonly kind: 'absent' | 'damaged'; readonly reason: string }
  | { readonly kind: 'newer'; readonly version: number };

export function decodeCheckpoint(data: Uint8Array): Checkpoint | CheckpointError {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  if (bytes.length === 0) return { kind: 'absent', reason: 'empty' };
  const damaged = (reason: string): CheckpointError => ({ kind: 'damaged', reason });
  if (bytes.length < HEADER_BYTES) return damaged(`only ${bytes.length} bytes long`);
  if (bytes.toString('latin1', 0, 8) !== MAGIC) return damaged('no checkpoint magic');
  const length = Number(bytes.readBigUInt64LE(16));
  if (length < HEADER_BYTES || length > bytes.length) return damaged(`${bytes.length} bytes of ${length}`);
  const whole = Buffer.from(bytes.subarray(0, length));
  const crc = whole.readUInt32LE(CRC_OFFSET);
  whole.writeUInt32LE(0, CRC_OFFSET);
  if (crc32(whole) !== crc) return damaged('checksum mismatch');
  const version = whole.readUInt32LE(8);
  if (version > CHECKPOINT_VERSION) return { kind: 'newer', version };
  return decodeBody(whole, length, version);
}

function decodeBody(whole: Buffer, length: number, version: number): Checkpoint | CheckpointError {
  const [nextObjectNumber, objectCount, fileCount, dropCount, pages, damagedCount] = [56, 60, 64, 68, 72, 76].map(
    (at) => whole.readUInt32LE(at),
  ) as [number, number, number, number, number, number];
  const hasSums = version > 1;
  const fileBytes = hasSums ? FILE_BYTES : FILE_BYTES_1;
  const words = dropCount + damagedCount + pages * 2;
  const expected = HEADER_BYTES + objectCount * OBJECT_BYTES + fileCount * fileBytes + words * 4;
  if (expected !== length) return { kind: 'damaged', reason: 'counts do not add up to its length' };
  let at = HEADER_BYTES;
  const objects: CheckpointObject[] = [];
  for (let index = 0; index < objectCount; index += 1, at += OBJECT_BYTES) {
    objects.push({
      number: whole.readUInt32LE(at),
      kind: whole.readUInt32LE(at + 4) === 0 ? 'volume' : 'snapshot',
      sizeBytes: Number(whole.readBigUInt64LE(at + 8)),
      root: whole.readUInt32LE(at + 16),
      height: whole.readUInt32LE(at + 20),
      mapped: Number(whole.readBigUInt64LE(at + 24)),
      sourceNumber: whole.readUInt32LE(at + 32),
      createdAt: Number(whole.readBigUInt64LE(at + 40)),
      id: uuidAt(whole, at + 48),
    });
  }
  const files: CheckpointFile[] = [];
  for (let index = 0; index < fileCount; index += 1, at += fileBytes) {
    const references = Uint32Array.from({ length: REFERENCE_PAGES_PER_FILE }, (_, page) =>
      whole.readUInt32LE(at + 16 + page * 4),
    );
    const sums = Uint32Array.from({ length: SUM_PAGES_PER_FILE }, (_, page) =>
      hasSums ? whole.readUInt32LE(at + FILE_BYTES_1 + page * 4) : 0,
    );
    files.push({
      fileNumber: whole.readUInt32LE(at),
      owner: whole.readUInt32LE(at + 4),
      used: whole.readUInt32LE(at + 8),
      references,
      sums,
    });
  }
  const drops = Array.from({ length: dropCount }, (_, index) => whole.readUInt32LE(at + index * 4));
  at += dropCount * 4;
  const damaged = Array.from({ length: damagedCount }, (_, index) => whole.readUInt32LE(at + index * 4));
  at += damagedCount * 4;
  const slots = new Uint32Array(pages);
  const references = new Uint32Array(pages);
  for (let page = 0; page < pages; page += 1, at += 8) {
    slots[page] = whole.readUInt32LE(at);
    references[page] = whole.readUInt32LE(at + 4);
  }
  return {
    number: Number(whole.readBigUInt64LE(24)),
    sequence: Number(whole.readBigUInt64LE(32)),
    poolId: uuidAt(whole, 40),
    nextObjectNumber,
    objects,
    files,
    drops,
    damaged,
    slots,
    references,
  };
}

function uuidAt(bytes: Buffer, at: number): string {
  const hex = bytes.toString('hex', at, at + POOL_ID_BYTES);
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}
