/**
 * Moves an image into an NBD export and an export into a sparse file, with a bounded number of requests in flight and
 * nothing written where there is nothing but zeros. It knows neither where the export comes from nor what a volume is.
 */
import { type FileHandle, mkdtemp, open, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { Failure } from '../base/errors.ts';
import type { ImageReader } from './image.ts';
import { NbdClient } from './nbd-client.ts';

/** Bytes per request: large enough that a request's own cost vanishes. */
const CHUNK_BYTES = 1 << 20;
/** Requests in flight: with the chunk, 8 MiB of memory. */
const DEPTH = 8;
/** Zeros are looked for in units of this size: the server's unit of space. */
const ZERO_BYTES = 65536;
const ZEROS = Buffer.alloc(ZERO_BYTES);

export type Progress = (doneBytes: number, totalBytes: number) => void;

export type CopyOptions = { readonly onProgress?: Progress; readonly signal: AbortSignal };

export type Copied = { readonly dataBytes: number; readonly sizeBytes: number };

type Run = { readonly start: number; readonly end: number };

/** The parts of a buffer that are not all zeros, in units of ZERO_BYTES from its start. */
export function dataRuns(bytes: Buffer): Run[] {
  const runs: Run[] = [];
  let start = -1;
  for (let position = 0; position < bytes.length; position += ZERO_BYTES) {
    const end = Math.min(position + ZERO_BYTES, bytes.length);
    const isZero = bytes.compare(ZEROS, 0, end - position, position, end) === 0;
    if (!isZero && start < 0) start = position;
    if (isZero && start >= 0) {
      runs.push({ start, end: position });
      start = -1;
    }
  }
  if (start >= 0) runs.push({ start, end: bytes.length });
  return runs;
}

/** At most DEPTH jobs at a time, each with a buffer of its own. The first failure ends it, after those under way have ended. */
async function inParallel(
  ranges: AsyncGenerator<{ offset: number; length: number }>,
  signal: AbortSignal,
  job: (range: { offset: number; length: number }, buffer: Buffer) => Promise<void>,
): Promise<void> {
  let failure: unknown = null;
  const worker = async () => {
    const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
    while (failure === null) {
      try {
        if (signal.aborted) throw new Failure('cancelled');
        const next = await ranges.next();
        if (next.done) return;
        await job(next.value, buffer);
      } catch (error) {
        failure ??= error;
      }
    }
  };
  await Promise.all(Array.from({ length: DEPTH }, worker));
  await ranges.return(undefined);
  if (failure !== null) throw failure;
}

/** Data ranges cut into chunks at multiples of the chunk size; holes only count as progress. */
async function* chunksOf(
  extents: AsyncIterable<{ offset: number; length: number; kind: 'data' | 'hole' }>,
  passed: (bytes: number) => void,
): AsyncGenerator<{ offset: number; length: number }> {
  for await (const extent of extents) {
    if (extent.kind === 'hole') {
      passed(extent.length);
      continue;
    }
    const end = extent.offset + extent.length;
    let offset = extent.offset;
    while (offset < end) {
      const length = Math.min(CHUNK_BYTES - (offset % CHUNK_BYTES), end - offset);
      yield { offset, length };
      offset += length;
    }
  }
}

/**
 * Writes what an image holds into an export that reads as zeros (a new volume), and flushes. The image's last bytes are
 * filled up with zeros to the export's block size.
 */
export async function importImage(options: CopyOptions & { image: ImageReader; uri: string }): Promise<Copied> {
  const { image, signal } = options;
  await using client = await NbdClient.connect(options.uri);
  if (client.isReadOnly) throw new Failure('read_only', { reason: `${options.uri} is read-only.` });
  if (client.sizeBytes < image.sizeBytes) {
    const reason = `The image has ${image.sizeBytes} bytes, ${options.uri} only ${client.sizeBytes}.`;
    throw new Failure('out_of_range', { reason });
  }
  let done = 0;
  let dataBytes = 0;
  const passed = (bytes: number) => {
    done += bytes;
    options.onProgress?.(done, image.sizeBytes);
  };
  const align = client.blockBytesMin;
  await inParallel(chunksOf(image.extents(), passed), signal, async ({ offset, length }, buffer) => {
    // A hole's edge may lie anywhere (subclusters, a raw file's end), a request only at multiples of the server's block.
    const start = offset - (offset % align);
    const end = Math.ceil((offset + length) / align) * align;
    const bytes = end - start <= buffer.length ? buffer.subarray(0, end - start) : Buffer.allocUnsafe(end - start);
    const known = Math.min(end, image.sizeBytes) - start;
    await image.read(start, bytes.subarray(0, known));
    bytes.fill(0, known);
    for (const run of dataRuns(bytes)) {
      await client.write(start + run.start, bytes.subarray(run.start, run.end));
      dataBytes += run.end - run.start;
    }
    passed(length);
  });
  await client.flush();
  return { dataBytes, sizeBytes: image.sizeBytes };
}

async function writeAll(file: FileHandle, bytes: Buffer, offset: number): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, offset + done);
    done += bytesWritten;
  }
}

/** Refuses what a rename would destroy by surprise. */
async function checkTarget(path: string, overwrite: boolean): Promise<void> {
  const there = await stat(path).catch(() => null);
  if (there === null) return;
  if (!there.isFile()) throw new Failure('bad_request', { reason: `${path} is not a regular file.` });
  if (!overwrite) throw new Failure('conflict', { reason: `${path} exists. Choose another name, or say --overwrite.` });
}

/**
 * Writes an export into a raw file with holes where it has none but zeros. The file appears under its name when it is
 * complete and on disk, and not before.
 */
export async function exportImage(
  options: CopyOptions & { uri: string; path: string; overwrite: boolean },
): Promise<Copied> {
  const path = resolve(options.path);
  await checkTarget(path, options.overwrite);
  await using client = await NbdClient.connect(options.uri);
  const folder = dirname(path);
  const temporary = await mkdtemp(join(folder, `.${basename(path)}.`)).catch((error: Error) => {
    throw new Failure('bad_request', { reason: `${folder} cannot be written to: ${error.message}` });
  });
  try {
    const part = join(temporary, 'part');
    const file = await open(part, 'wx');
    let dataBytes = 0;
    try {
      await file.truncate(client.sizeBytes);
      dataBytes = await copyData(client, file, options);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(part, path);
    const directory = await open(folder, 'r');
    await directory.sync();
    await directory.close();
    return { dataBytes, sizeBytes: client.sizeBytes };
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

async function copyData(client: NbdClient, file: FileHandle, options: CopyOptions): Promise<number> {
  let done = 0;
  let dataBytes = 0;
  const passed = (bytes: number) => {
    done += bytes;
    options.onProgress?.(done, client.sizeBytes);
  };
  const extents = client.extents(0, client.sizeBytes);
  await inParallel(chunksOf(extents, passed), options.signal, async ({ offset, length }, buffer) => {
    const bytes = buffer.subarray(0, length);
    await client.read(offset, bytes);
    for (const run of dataRuns(bytes)) {
      await writeAll(file, bytes.subarray(run.start, run.end), offset + run.start);
      dataBytes += run.end - run.start;
    }
    passed(length);
  });
  return dataBytes;
}
