/**
 * The journal's envelope: one frame is one group commit. Frames start at multiples of 512 bytes.
 *
 *   offset  size
 *        0     4  magic "QFRM"
 *        4     4  format version
 *        8     4  payload length in bytes
 *       12     4  CRC-32 (ISO-HDLC) of the frame with this field as 0, payload included, padding not
 *       16     8  sequence: 1 for the first frame of a pool, then one more each
 *       24     8  zero
 *       32     …  records (record.ts)
 */

import { crc32 } from 'node:zlib';
import { JOURNAL_VERSION } from './version.ts';

export const FRAME_ALIGN = 512;
export const FRAME_HEADER_BYTES = 32;
const MAGIC = 0x4d524651;
const CRC_OFFSET = 12;

export type Frame = { readonly sequence: number; readonly words: Uint32Array; readonly sizeBytes: number };

/** Bytes that a frame with this payload takes in the journal. */
export function frameSize(payloadBytes: number): number {
  return Math.ceil((FRAME_HEADER_BYTES + payloadBytes) / FRAME_ALIGN) * FRAME_ALIGN;
}

export function encodeFrame(sequence: number, records: readonly Uint32Array[]): Uint8Array {
  const payloadBytes = records.reduce((sum, words) => sum + words.byteLength, 0);
  const bytes = new Uint8Array(frameSize(payloadBytes));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, JOURNAL_VERSION, true);
  view.setUint32(8, payloadBytes, true);
  view.setBigUint64(16, BigInt(sequence), true);
  let at = FRAME_HEADER_BYTES;
  for (const words of records) {
    bytes.set(new Uint8Array(words.buffer, words.byteOffset, words.byteLength), at);
    at += words.byteLength;
  }
  view.setUint32(CRC_OFFSET, crc32(bytes.subarray(0, at)), true);
  return bytes;
}

export type FrameError = 'none' | 'damaged' | 'newer';

/** The frame at an offset; 'none' where there is no sign of one. */
export function decodeFrame(bytes: Uint8Array, offset: number): Frame | FrameError {
  if (offset + FRAME_HEADER_BYTES > bytes.length) return 'none';
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset);
  if (view.getUint32(0, true) !== MAGIC) return 'none';
  const payloadBytes = view.getUint32(8, true);
  const end = FRAME_HEADER_BYTES + payloadBytes;
  if (payloadBytes % 4 !== 0 || offset + end > bytes.length) return 'damaged';
  const frame = bytes.slice(offset, offset + end);
  const inner = new DataView(frame.buffer);
  const crc = inner.getUint32(CRC_OFFSET, true);
  inner.setUint32(CRC_OFFSET, 0, true);
  if (crc32(frame) !== crc) return 'damaged';
  // Only a frame whose checksum holds can be trusted about its version.
  if (inner.getUint32(4, true) > JOURNAL_VERSION) return 'newer';
  const sequence = Number(inner.getBigUint64(16, true));
  return { sequence, words: new Uint32Array(frame.buffer, FRAME_HEADER_BYTES), sizeBytes: frameSize(payloadBytes) };
}
