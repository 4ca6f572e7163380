/** One of each structure with every field set, whose bytes lie beside this file. A change of them is a change of the format. */

import { encodeCheckpoint, REFERENCE_PAGES_PER_FILE, SUM_PAGES_PER_FILE } from '../../src/format/checkpoint.ts';
import { encodeFrame } from '../../src/format/frame.ts';
import { newPage, type PageType, sealPage } from '../../src/format/page.ts';
import { encodePoolHeader } from '../../src/format/pool-header.ts';
import { type EngineRecord, encodeRecord } from '../../src/format/record.ts';

export const POOL_ID = '01234567-89ab-4cde-8f01-23456789abcd';
export const OBJECT_ID = 'fedcba98-7654-4321-8fed-cba987654321';

export const HEADER = { poolId: POOL_ID, journalHalfBytes: 16 * 2 ** 20 };

export const RECORDS: readonly EngineRecord[] = [
  { type: 'create', number: 7, kind: 'volume', sizeBytes: 5 * 2 ** 32 + 4096, sourceNumber: 3, id: OBJECT_ID },
  { type: 'create', number: 8, kind: 'snapshot', sizeBytes: 4096, sourceNumber: 0, id: POOL_ID },
  { type: 'changes', number: 7, changes: Uint32Array.of(511, 16384, 0x8001_7ffe, 32770, 512, 0, 0, 0) },
  { type: 'resize', number: 7, sizeBytes: 64 * 2 ** 40 },
  { type: 'revert', number: 7, sourceNumber: 8 },
  { type: 'delete', number: 8 },
  { type: 'drop', steps: 16 },
  { type: 'drop', steps: 0 },
  { type: 'file-create', fileNumber: 2, owner: 7 },
  { type: 'file-remove', fileNumber: 2 },
  { type: 'sums', pairs: Uint32Array.of(32769, 0xcafe_f00d, 32770, 0) },
  { type: 'damage', isDamaged: true, addresses: Uint32Array.of(32769, 32771) },
  { type: 'damage', isDamaged: false, addresses: Uint32Array.of(32769) },
];
/** Those that version 1 of the journal knew. */
export const RECORDS_1 = RECORDS.slice(0, 10);
export const FRAME_SEQUENCE = 2 ** 33 + 5;

export const CHECKPOINT = {
  number: 9,
  sequence: 2 ** 33 + 1,
  poolId: POOL_ID,
  nextObjectNumber: 12,
  objects: [
    {
      number: 7,
      kind: 'volume',
      sizeBytes: 5 * 2 ** 32,
      root: 1,
      height: 2,
      mapped: 33,
      sourceNumber: 3,
      createdAt: 17,
      id: OBJECT_ID,
    },
    {
      number: 8,
      kind: 'snapshot',
      sizeBytes: 4096,
      root: 0,
      height: 1,
      mapped: 0,
      sourceNumber: 7,
      createdAt: 2 ** 33,
      id: POOL_ID,
    },
  ],
  files: [
    {
      fileNumber: 2,
      owner: 7,
      used: 33,
      references: Uint32Array.from({ length: REFERENCE_PAGES_PER_FILE }, (_, index) => (index === 5 ? 4 : 0)),
      sums: Uint32Array.from({ length: SUM_PAGES_PER_FILE }, (_, index) => (index === 2 ? 5 : 0)),
    },
  ],
  drops: [3, 2],
  damaged: [32769, 40000],
  slots: Uint32Array.of(0, 5, 6, 1, 9, 10),
  references: Uint32Array.of(0, 1, 2, 1, 1, 1),
} as const;

/** What version 1 of it held. */
export const CHECKPOINT_1 = {
  ...CHECKPOINT,
  files: CHECKPOINT.files.map((file) => ({ ...file, sums: new Uint32Array(SUM_PAGES_PER_FILE) })),
  damaged: [],
  slots: CHECKPOINT.slots.slice(0, 5),
  references: CHECKPOINT.references.slice(0, 5),
};

function page(type: PageType): Uint8Array {
  const made = newPage(77, type, 7);
  made.words.set([16384, 0x7ffe, 0, 0, 5]);
  if (type === 'leaf') {
    made.bases[0] = 32770;
    made.masks[0] = 0x8001;
  }
  made.words[1015] = 0xabcdef01;
  return Uint8Array.from(sealPage(made, 9));
}

/** By name of the file with its bytes. */
export const SAMPLES: Readonly<Record<string, () => Uint8Array>> = {
  'header.bin': () => encodePoolHeader(HEADER),
  'checkpoint.bin': () => encodeCheckpoint(CHECKPOINT),
  'frame.bin': () => encodeFrame(FRAME_SEQUENCE, RECORDS.map(encodeRecord)),
  'leaf.bin': () => page('leaf'),
  'inner.bin': () => page('inner'),
  'references.bin': () => page('references'),
  'sums.bin': () => page('sums'),
};
