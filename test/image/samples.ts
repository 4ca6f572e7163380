/** Images with known content for tests: seeded bytes with holes of several sizes, as a sparse raw file. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import type { ImageReader } from '../../src/image/image.ts';

/** xorshift32: the same bytes for the same seed on every machine. */
export function seededBytes(seed: number, length: number): Buffer {
  const bytes = Buffer.alloc(Math.ceil(length / 4) * 4);
  let state = seed | 1;
  for (let position = 0; position < bytes.length; position += 4) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes.writeInt32LE(state | 0, position);
  }
  return bytes.subarray(0, length);
}

/** Text compresses, random bytes do not: both kinds of compressed cluster occur. */
function content(index: number, length: number): Buffer {
  return index % 2 === 0 ? seededBytes(index + 7, length) : Buffer.alloc(length, `line ${index} of the sample\n`);
}

/** Data at odd places: within one block, across clusters, at the very end. */
export async function writeSample(path: string, sizeBytes: number): Promise<void> {
  const file = await open(path, 'w');
  await file.truncate(sizeBytes);
  const places: readonly (readonly [offset: number, length: number])[] = [
    [0, 512],
    [65536 - 100, 200],
    [1_000_000, 300_000],
    [3 << 20, 1 << 20],
    [(5 << 20) + 4096, 4096],
    [(6 << 20) + 10_240, 2048],
    [sizeBytes - 5000, 5000],
  ];
  for (const [index, [offset, length]] of places.entries()) await file.write(content(index, length), 0, length, offset);
  await file.close();
}

export async function fileDigest(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk);
  return hash.digest('hex');
}

/** Through the map: what it calls holes is hashed as zeros, so a hole that is none is found. */
export async function imageDigest(image: ImageReader): Promise<string> {
  const hash = createHash('sha256');
  let position = 0;
  for await (const { offset, length, kind } of image.extents()) {
    if (offset !== position) throw new Error(`the map goes from ${position} to ${offset}`);
    for (let done = 0; done < length; done += 1 << 20) {
      const part = Buffer.alloc(Math.min(1 << 20, length - done));
      if (kind === 'data') await image.read(offset + done, part);
      hash.update(part);
    }
    position += length;
  }
  if (position !== image.sizeBytes) throw new Error(`the map ends at ${position} of ${image.sizeBytes}`);
  return hash.digest('hex');
}

/** Without the map, in pieces that respect no boundary. */
export async function readDigest(image: ImageReader): Promise<string> {
  const hash = createHash('sha256');
  for (let offset = 0; offset < image.sizeBytes; offset += 77_777) {
    const part = Buffer.alloc(Math.min(77_777, image.sizeBytes - offset), 0xee);
    await image.read(offset, part);
    hash.update(part);
  }
  return hash.digest('hex');
}
