/**
 * A page: one slot of the file `pages`.
 *
 *   offset  size
 *        0     4  magic "QPAG"
 *        4     2  format version
 *        6     1  type: 1 leaf, 2 inner, 3 extent references, 4 sums
 *        7     1  zero
 *        8     4  page id
 *       12     4  owner: number of the object (leaf, inner) or extent file (references, sums) it was made for
 *       16     8  generation: number of the checkpoint that wrote it
 *       24     4  CRC-32 (ISO-HDLC) of the whole slot with this field as 0
 *       28    36  zero
 *       64  8128  payload
 *
 * Payload of a leaf: the 7,168 bytes of src/native/plane.ts with all flags 0. Of an inner page: 1,024 page ids (u32, 0 = none). Of
 * references: the counts of 1,024 extents (u32). Of sums: the CRC-32 of 2,032 sealed extents (u32, 0 = not sealed).
 */

import { crc32 } from 'node:zlib';
import { LEAF_BASES_OFFSET, LEAF_BYTES, LEAF_ENTRIES, LEAF_MASKS_OFFSET } from '../native/plane.ts';
import { PAGE_VERSION } from './version.ts';

export const SLOT_BYTES = 8192;
export const INNER_CHILDREN = 1024;
export const REFERENCES_PER_PAGE = 1024;
export const SUMS_PER_PAGE = 2032;
const HEADER_BYTES = 64;
const CRC_OFFSET = 24;
const MAGIC = 0x47415051;

export type PageType = 'leaf' | 'inner' | 'references' | 'sums';
const TYPES: readonly PageType[] = ['leaf', 'inner', 'references', 'sums'];

/** A page in memory: its slot's bytes, and views of the payload. */
export type Page = {
  readonly id: number;
  readonly type: PageType;
  readonly owner: number;
  /** The whole slot. */
  readonly bytes: Uint8Array;
  /** Payload as words: entries of a leaf (two words each), children of an inner page, reference counts, sums. */
  readonly words: Uint32Array;
  /** Of a leaf. */
  readonly bases: Uint32Array;
  readonly masks: Uint16Array;
};

function pageOver(bytes: Uint8Array, id: number, type: PageType, owner: number): Page {
  const payload = bytes.byteOffset + HEADER_BYTES;
  return {
    id,
    type,
    owner,
    bytes,
    words: new Uint32Array(bytes.buffer, payload, type === 'sums' ? SUMS_PER_PAGE : INNER_CHILDREN),
    bases: new Uint32Array(bytes.buffer, payload + LEAF_BASES_OFFSET, LEAF_ENTRIES),
    masks: new Uint16Array(bytes.buffer, payload + LEAF_MASKS_OFFSET, LEAF_ENTRIES),
  };
}

export function newPage(id: number, type: PageType, owner: number): Page {
  return pageOver(new Uint8Array(SLOT_BYTES), id, type, owner);
}

/** What a page of sums holds for an extent with these bytes: 0 says that it has none, so a CRC-32 of 0 stands as 1. */
export function extentSum(bytes: Uint8Array): number {
  return crc32(bytes) || 1;
}

/** The leaf's payload as the plane takes it; a view, not a copy. */
export function leafPayload(page: Page): Uint8Array {
  return page.bytes.subarray(HEADER_BYTES, HEADER_BYTES + LEAF_BYTES);
}

/** Fills in the header; the bytes can then be written. */
export function sealPage(page: Page, generation: number): Uint8Array {
  const view = new DataView(page.bytes.buffer, page.bytes.byteOffset, SLOT_BYTES);
  view.setUint32(0, MAGIC, true);
  view.setUint16(4, PAGE_VERSION, true);
  view.setUint8(6, TYPES.indexOf(page.type) + 1);
  view.setUint32(8, page.id, true);
  view.setUint32(12, page.owner, true);
  view.setBigUint64(16, BigInt(generation), true);
  view.setUint32(CRC_OFFSET, 0, true);
  view.setUint32(CRC_OFFSET, crc32(page.bytes), true);
  return page.bytes;
}

/** Takes over `bytes` (a whole slot). A string says what is wrong with them. */
export function openPage(bytes: Uint8Array, id: number, generationMax: number): Page | string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, SLOT_BYTES);
  if (view.getUint32(0, true) !== MAGIC) return 'no page magic';
  const crc = view.getUint32(CRC_OFFSET, true);
  view.setUint32(CRC_OFFSET, 0, true);
  if (crc32(bytes) !== crc) return 'checksum mismatch';
  const version = view.getUint16(4, true);
  if (version > PAGE_VERSION) return `format version ${version} is newer than this program`;
  const type = TYPES[view.getUint8(6) - 1];
  if (type === undefined) return `unknown page type ${view.getUint8(6)}`;
  const found = view.getUint32(8, true);
  if (found !== id) return `page ${found} stands where page ${id} should`;
  // Written after the root that names it: the root is an old one, and its slot was used again.
  const generation = Number(view.getBigUint64(16, true));
  if (generation > generationMax) return `generation ${generation} is newer than the checkpoint (${generationMax})`;
  return pageOver(bytes, id, type, view.getUint32(12, true));
}
