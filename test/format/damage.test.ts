/** Decoders and what is not right: every flipped bit is noticed, nothing is read beyond the end, nothing throws. */

import { crc32 } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { decodeCheckpoint } from '../../src/format/checkpoint.ts';
import { decodeFrame, FRAME_ALIGN, FRAME_HEADER_BYTES, frameSize } from '../../src/format/frame.ts';
import { openPage } from '../../src/format/page.ts';
import { decodePoolHeader } from '../../src/format/pool-header.ts';
import { decodeRecords, encodeRecord, uuidToWords, wordsToUuid } from '../../src/format/record.ts';
import { JOURNAL_VERSION } from '../../src/format/version.ts';
import { POOL_ID, RECORDS, SAMPLES } from '../golden/samples.ts';
import { Random } from '../sim/random.ts';

type Decoder = { readonly name: string; decode(bytes: Uint8Array): unknown; readonly covered: number };

const read = (name: string): Uint8Array => SAMPLES[name]?.() ?? new Uint8Array();
const isGood = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && !('kind' in value) && !('newer' in value);

const DECODERS: readonly Decoder[] = [
  { name: 'header.bin', decode: decodePoolHeader, covered: 4096 },
  { name: 'checkpoint.bin', decode: decodeCheckpoint, covered: read('checkpoint.bin').length },
  {
    name: 'frame.bin',
    decode: (bytes) => decodeFrame(bytes, 0),
    covered: FRAME_HEADER_BYTES + RECORDS.reduce((sum, record) => sum + encodeRecord(record).byteLength, 0),
  },
  { name: 'leaf.bin', decode: (bytes) => openPage(bytes, 77, 9), covered: 8192 },
  { name: 'inner.bin', decode: (bytes) => openPage(bytes, 77, 9), covered: 8192 },
];

describe.each(DECODERS)('$name', ({ name, decode, covered }) => {
  it('is good as it is', () => {
    expect(isGood(decode(read(name)))).toBe(true);
  });

  it('is refused with any bit flipped', () => {
    const random = new Random(1);
    const bytes = read(name);
    const places = Array.from({ length: Math.min(covered, 400) }, (_, index) =>
      index < 100 ? index : random.below(covered),
    );
    for (const place of places) {
      const damaged = Uint8Array.from(bytes);
      damaged[place] = (damaged[place] ?? 0) ^ (1 << random.below(8));
      expect(isGood(decode(damaged)), `byte ${place}`).toBe(false);
    }
  });

  it('is refused when it is cut off anywhere', () => {
    const random = new Random(2);
    for (let round = 0; round < 200; round += 1) {
      const length = random.below(covered);
      // Only pages have a size that the reader sees to.
      if (name === 'leaf.bin' || name === 'inner.bin') return;
      expect(isGood(decode(read(name).slice(0, length))), `${length} bytes`).toBe(false);
    }
  });
});

describe('a frame', () => {
  it('takes multiples of 512 bytes', () => {
    expect([0, 4, FRAME_ALIGN - FRAME_HEADER_BYTES, FRAME_ALIGN].map(frameSize)).toEqual([512, 512, 512, 1024]);
  });

  it('whose length leads beyond the end is damaged, not read', () => {
    const bytes = read('frame.bin');
    new DataView(bytes.buffer).setUint32(8, 0xfffffffc, true);
    expect(decodeFrame(bytes, 0)).toBe('damaged');
  });

  it('of a newer version says so only if its checksum holds', () => {
    const bytes = read('frame.bin');
    const view = new DataView(bytes.buffer);
    view.setUint32(4, JOURNAL_VERSION + 1, true);
    expect(decodeFrame(bytes, 0)).toBe('damaged');
    view.setUint32(12, 0, true);
    view.setUint32(12, crc32(bytes.subarray(0, FRAME_HEADER_BYTES + view.getUint32(8, true))), true);
    expect(decodeFrame(bytes, 0)).toBe('newer');
  });
});

describe('records', () => {
  it('that do not add up are refused as a whole', () => {
    const good = encodeRecord({ type: 'delete', number: 1 });
    const cases: readonly Uint32Array[] = [
      Uint32Array.of(5 | (2 << 8), 1),
      Uint32Array.of(99 | (1 << 8), 1),
      Uint32Array.of(5 | (2 << 8), 1, 2),
      Uint32Array.of(2 | (4 << 8), 1, 2, 3, 4),
      Uint32Array.of(1 | (9 << 8), 1, 2, 0, 0, 0, 0, 0, 0, 0),
      Uint32Array.of(2),
    ];
    for (const words of cases) expect(decodeRecords(Uint32Array.of(...good, ...words))).toBeNull();
    expect(decodeRecords(Uint32Array.of(...good, ...good))).toHaveLength(2);
  });

  it('keep a UUID as it is', () => {
    expect(wordsToUuid(uuidToWords(POOL_ID))).toBe(POOL_ID);
  });
});

describe('a page', () => {
  it('written after the root that names it is not taken for the one that was meant', () => {
    expect(openPage(read('leaf.bin'), 77, 8)).toContain('newer');
  });

  it('of another id is not taken for the one that was meant', () => {
    expect(openPage(read('leaf.bin'), 78, 9)).toContain('page 77');
  });
});
