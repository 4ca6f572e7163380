/**
 * Unpacking of one compressed qcow2 cluster. The packed bytes are followed by foreign ones up to a sector's end, and what
 * comes out is never longer than a cluster, whatever the bytes say.
 */
import * as zlib from 'node:zlib';
import { Failure } from '../base/errors.ts';

type ZstdDecompress = (packed: Buffer, options: { maxOutputLength: number }) => Buffer;

/** Node has zstd since 22.15; older ones lack the function. */
function zstdDecompress(): ZstdDecompress {
  const candidate: unknown = Reflect.get(zlib, 'zstdDecompressSync');
  if (typeof candidate === 'function') return (packed, options) => Reflect.apply(candidate, zlib, [packed, options]);
  throw new Failure('not_supported', {
    reason: `The image is compressed by zstd, which Node ${process.versions.node} cannot unpack. Use Node 22.15 or newer, or convert the image: qemu-img convert -O raw IMAGE NEW`,
  });
}

const ZSTD_MAGIC = 0xfd2fb528;

/**
 * How long the first zstd frame is, by walking its block headers (RFC 8878, 3.1.1): the decompressor refuses foreign
 * bytes behind it. Null when it is no frame or does not end within the bytes.
 */
export function zstdFrameBytes(packed: Buffer): number | null {
  if (packed.length < 6 || packed.readUInt32LE(0) !== ZSTD_MAGIC) return null;
  const descriptor = packed.readUInt8(4);
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3] ?? 0;
  const sizeBytes = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0;
  let position = 5 + (isSingleSegment ? 0 : 1) + dictionaryBytes + sizeBytes;
  for (;;) {
    if (position + 3 > packed.length) return null;
    const header = packed.readUIntLE(position, 3);
    const isRepeated = ((header >> 1) & 3) === 1;
    position += 3 + (isRepeated ? 1 : header >> 3);
    if ((header & 1) !== 0) break;
  }
  position += (descriptor & 4) !== 0 ? 4 : 0;
  return position <= packed.length ? position : null;
}

function inflateRaw(packed: Buffer, clusterBytes: number): Promise<Buffer | null> {
  return new Promise((resolve) => {
    // Raw deflate ends by itself; the bytes behind are left alone. More than a cluster of output is damage.
    zlib.inflateRaw(
      packed,
      { maxOutputLength: clusterBytes, finishFlush: zlib.constants.Z_SYNC_FLUSH },
      (error, bytes) => resolve(error === null ? bytes : null),
    );
  });
}

/** One whole cluster, or null when the bytes are damaged. With no bytes: only checks that the method is available. */
export async function inflate(
  method: 'zlib' | 'zstd',
  packed: Buffer | null,
  clusterBytes: number,
): Promise<Buffer | null> {
  const zstd = method === 'zstd' ? zstdDecompress() : null;
  if (packed === null) return null;
  let cluster: Buffer | null = null;
  if (zstd === null) cluster = await inflateRaw(packed, clusterBytes);
  else {
    const frameBytes = zstdFrameBytes(packed);
    if (frameBytes === null) return null;
    try {
      cluster = zstd(packed.subarray(0, frameBytes), { maxOutputLength: clusterBytes });
    } catch {
      return null;
    }
  }
  return cluster?.length === clusterBytes ? cluster : null;
}
