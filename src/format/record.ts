/**
 * Journal records as bytes. Little-endian u32 words; a record is
 *
 *   word 0   type | (number of words that follow) << 8
 *   word 1…  payload, by type below
 *
 * 64-bit numbers are two words, low first. Numbers name objects and files inside the engine; UUIDs are the users' names.
 */

import { unreachable } from '../base/assert.ts';
import { CHANGE_WORDS } from '../native/plane.ts';

export type ObjectKind = 'volume' | 'snapshot';

export type EngineRecord =
  | {
      readonly type: 'create';
      readonly number: number;
      readonly kind: ObjectKind;
      readonly sizeBytes: number;
      /** Whose map it shares; 0: it begins empty. */
      readonly sourceNumber: number;
      readonly id: string;
    }
  /** Entries that now have these values (CHANGE_WORDS words each, see src/native/plane.ts). */
  | { readonly type: 'changes'; readonly number: number; readonly changes: Uint32Array }
  | { readonly type: 'resize'; readonly number: number; readonly sizeBytes: number }
  | { readonly type: 'revert'; readonly number: number; readonly sourceNumber: number }
  | { readonly type: 'delete'; readonly number: number }
  /** Take this many steps of the drop list; 0: the page that comes next is taken last. */
  | { readonly type: 'drop'; readonly steps: number }
  | { readonly type: 'file-create'; readonly fileNumber: number; readonly owner: number }
  | { readonly type: 'file-remove'; readonly fileNumber: number }
  /** Pairs of an extent's address and the CRC-32 of its 64 KiB, which nobody changes from now on; sum 0: it may change again. */
  | { readonly type: 'sums'; readonly pairs: Uint32Array }
  /** The bytes of these extents are known to be wrong, or right again. */
  | { readonly type: 'damage'; readonly isDamaged: boolean; readonly addresses: Uint32Array };

const TYPE = {
  create: 1,
  changes: 2,
  resize: 3,
  revert: 4,
  delete: 5,
  drop: 6,
  'file-create': 7,
  'file-remove': 8,
  sums: 9,
  damage: 10,
} as const;

const WORD = 2 ** 32;
export const UUID_WORDS = 4;

export function uuidToWords(id: string): number[] {
  const hex = id.replaceAll('-', '');
  return [0, 8, 16, 24].map((at) => Number.parseInt(hex.slice(at, at + 8), 16));
}

export function wordsToUuid(words: readonly number[]): string {
  const hex = words.map((word) => word.toString(16).padStart(8, '0')).join('');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}

export function encodeRecord(record: EngineRecord): Uint32Array {
  const payload = payloadOf(record);
  const words = new Uint32Array(1 + payload.length);
  words[0] = TYPE[record.type] | (payload.length << 8);
  words.set(payload, 1);
  return words;
}

function payloadOf(record: EngineRecord): ArrayLike<number> {
  switch (record.type) {
    case 'create': {
      const kind = record.kind === 'volume' ? 0 : 1;
      return [record.number, kind, ...sizeWords(record.sizeBytes), record.sourceNumber, ...uuidToWords(record.id)];
    }
    case 'changes': {
      const words = new Uint32Array(1 + record.changes.length);
      words[0] = record.number;
      words.set(record.changes, 1);
      return words;
    }
    case 'resize':
      return [record.number, ...sizeWords(record.sizeBytes)];
    case 'revert':
      return [record.number, record.sourceNumber];
    case 'delete':
      return [record.number];
    case 'drop':
      return [record.steps];
    case 'file-create':
      return [record.fileNumber, record.owner];
    case 'file-remove':
      return [record.fileNumber];
    case 'sums':
      return record.pairs;
    case 'damage':
      return [record.isDamaged ? 1 : 0, ...record.addresses];
    default:
      return unreachable(record);
  }
}

function sizeWords(bytes: number): [number, number] {
  return [bytes % WORD, Math.floor(bytes / WORD)];
}

/** All records of a frame's payload; null when they do not add up (a frame whose checksum holds always does). */
export function decodeRecords(words: Uint32Array): EngineRecord[] | null {
  const records: EngineRecord[] = [];
  for (let at = 0; at < words.length; ) {
    const header = words[at] ?? 0;
    const end = at + 1 + (header >>> 8);
    if (end > words.length) return null;
    const record = decodeRecord(header & 0xff, words.subarray(at + 1, end));
    if (record === null) return null;
    records.push(record);
    at = end;
  }
  return records;
}

function decodeRecord(type: number, words: Uint32Array): EngineRecord | null {
  const [first = 0, second = 0, third = 0, fourth = 0, fifth = 0] = words;
  const has = (count: number): boolean => words.length === count;
  switch (type) {
    case TYPE.create: {
      if (!has(5 + UUID_WORDS) || second > 1) return null;
      const kind = second === 0 ? 'volume' : 'snapshot';
      const id = wordsToUuid([...words.subarray(5)]);
      return { type: 'create', number: first, kind, sizeBytes: third + fourth * WORD, sourceNumber: fifth, id };
    }
    case TYPE.changes:
      if (words.length < 1 || (words.length - 1) % CHANGE_WORDS !== 0) return null;
      return { type: 'changes', number: first, changes: words.subarray(1) };
    case TYPE.resize:
      return has(3) ? { type: 'resize', number: first, sizeBytes: second + third * WORD } : null;
    case TYPE.revert:
      return has(2) ? { type: 'revert', number: first, sourceNumber: second } : null;
    case TYPE.delete:
      return has(1) ? { type: 'delete', number: first } : null;
    case TYPE.drop:
      return has(1) ? { type: 'drop', steps: first } : null;
    case TYPE['file-create']:
      return has(2) ? { type: 'file-create', fileNumber: first, owner: second } : null;
    case TYPE['file-remove']:
      return has(1) ? { type: 'file-remove', fileNumber: first } : null;
    case TYPE.sums:
      return words.length % 2 === 0 ? { type: 'sums', pairs: words } : null;
    case TYPE.damage:
      if (words.length < 1 || first > 1) return null;
      return { type: 'damage', isDamaged: first === 1, addresses: words.subarray(1) };
    default:
      return null;
  }
}
