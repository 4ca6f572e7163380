/** Bytes that pools out there have. If one of these fails, old pools cannot be read: raise a version (docs/format.md), do not change the bytes. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { decodeCheckpoint } from '../../src/format/checkpoint.ts';
import { decodeFrame } from '../../src/format/frame.ts';
import { openPage } from '../../src/format/page.ts';
import { decodePoolHeader } from '../../src/format/pool-header.ts';
import { decodeRecords } from '../../src/format/record.ts';
import { CHECKPOINT, CHECKPOINT_1, FRAME_SEQUENCE, HEADER, RECORDS, RECORDS_1, SAMPLES } from './samples.ts';

function golden(name: string): Uint8Array {
  return Uint8Array.from(readFileSync(join(import.meta.dirname, name)));
}

describe('the format', () => {
  it.each(Object.keys(SAMPLES))('is written to the byte as in %s', (name) => {
    expect(Buffer.compare(SAMPLES[name]?.() ?? new Uint8Array(), golden(name))).toBe(0);
  });

  it('is read: the pool header', () => {
    expect(decodePoolHeader(golden('header.bin'))).toEqual(HEADER);
  });

  it('is read: a checkpoint', () => {
    expect(decodeCheckpoint(golden('checkpoint.bin'))).toEqual(CHECKPOINT);
  });

  it('is read: a frame with every record', () => {
    const frame = decodeFrame(golden('frame.bin'), 0);
    if (typeof frame === 'string') throw new Error(frame);
    expect(frame.sequence).toBe(FRAME_SEQUENCE);
    expect(decodeRecords(frame.words)).toEqual(RECORDS);
  });

  it('is read as version 1 had it: a checkpoint without sums', () => {
    expect(decodeCheckpoint(golden('checkpoint-1.bin'))).toEqual(CHECKPOINT_1);
  });

  it('is read as version 1 had it: a frame', () => {
    const frame = decodeFrame(golden('frame-1.bin'), 0);
    if (typeof frame === 'string') throw new Error(frame);
    expect(decodeRecords(frame.words)).toEqual(RECORDS_1);
  });

  it.each(['leaf', 'inner', 'references', 'sums'] as const)('is read: a page of type %s', (type) => {
    const page = openPage(golden(`${type}.bin`), 77, 9);
    if (typeof page === 'string') throw new Error(page);
    expect(page).toMatchObject({ id: 77, type, owner: 7 });
    expect([...page.words.subarray(0, 5)]).toEqual([16384, 0x7ffe, 0, 0, 5]);
    if (type === 'leaf') expect([page.bases[0], page.masks[0]]).toEqual([32770, 0x8001]);
  });
});
