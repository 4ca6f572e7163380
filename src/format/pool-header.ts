/**
 * The file `pool/header`, written once when the pool is made. 4,096 bytes, little-endian:
 *
 *   offset  size
 *        0     8  magic "QUARRYPL"
 *        8     4  format version of the pool: a program that does not know it must not touch the folder
 *       12     4  CRC-32 (ISO-HDLC) of the 4,096 bytes with this field as 0
 *       16     4  bytes per extent (65,536)
 *       20     4  bytes per block (4,096)
 *       24     4  slots per extent file (16,384)
 *       28     4  bytes per page slot (8,192)
 *       32     8  bytes per journal half
 *       40    16  pool id
 */

import { crc32 } from 'node:zlib';
import { BLOCK_BYTES, EXTENT_BYTES, SLOTS_PER_FILE } from '../native/plane.ts';
import { SLOT_BYTES } from './page.ts';
import { POOL_VERSION } from './version.ts';

export const POOL_HEADER_BYTES = 4096;
const MAGIC = 'QUARRYPL';
const CRC_OFFSET = 12;

export type PoolHeader = { readonly poolId: string; readonly journalHalfBytes: number };

export function encodePoolHeader(header: PoolHeader): Uint8Array {
  const bytes = Buffer.alloc(POOL_HEADER_BYTES);
  bytes.write(MAGIC, 0, 'latin1');
  const words = [POOL_VERSION, 0, EXTENT_BYTES, BLOCK_BYTES, SLOTS_PER_FILE, SLOT_BYTES];
  words.forEach((word, index) => {
    bytes.writeUInt32LE(word, 8 + index * 4);
  });
  bytes.writeBigUInt64LE(BigInt(header.journalHalfBytes), 32);
  bytes.write(header.poolId.replaceAll('-', ''), 40, 'hex');
  bytes.writeUInt32LE(crc32(bytes), CRC_OFFSET);
  return bytes;
}

/** A string says what is wrong; a number is a format version from the future. */
export function decodePoolHeader(data: Uint8Array): PoolHeader | string | { readonly newer: number } {
  if (data.length < POOL_HEADER_BYTES) return `only ${data.length} of ${POOL_HEADER_BYTES} bytes`;
  const bytes = Buffer.from(data.subarray(0, POOL_HEADER_BYTES));
  if (bytes.toString('latin1', 0, 8) !== MAGIC) return 'no pool magic';
  const crc = bytes.readUInt32LE(CRC_OFFSET);
  bytes.writeUInt32LE(0, CRC_OFFSET);
  if (crc32(bytes) !== crc) return 'checksum mismatch';
  const version = bytes.readUInt32LE(8);
  if (version > POOL_VERSION) return { newer: version };
  const sizes = [16, 20, 24, 28].map((at) => bytes.readUInt32LE(at));
  const expected = [EXTENT_BYTES, BLOCK_BYTES, SLOTS_PER_FILE, SLOT_BYTES];
  if (sizes.some((size, index) => size !== expected[index]))
    return `sizes ${sizes.join(', ')} instead of ${expected.join(', ')}`;
  const hex = bytes.toString('hex', 40, 56);
  const poolId = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
  return { poolId, journalHalfBytes: Number(bytes.readBigUInt64LE(32)) };
}
