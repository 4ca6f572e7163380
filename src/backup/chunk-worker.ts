/**
 * A thread that turns chunks into what is stored and back: zeros found, hashed, compressed, encrypted. It knows bytes
 * and keys, not volumes, packs or objects. Its near side is `chunk-pool.ts`.
 */
import { createCipheriv, createDecipheriv } from 'node:crypto';
import { parentPort } from 'node:worker_threads';
import { Blake3Hasher, blake3 } from '@napi-rs/blake-hash';
import { compressSync, uncompressSync } from 'lz4-napi';
import { Failure } from '../base/errors.ts';
import { CODEC, CODEC_MASK, ENCRYPTED, HASH_BYTES } from '../format/backup-pack.ts';
import type { Decoded, DecodeJob, Encoded, EncodeJob, Hashed, HashJob, PoolReply, PoolRequest } from './chunk-pool.ts';
import { loadZstd } from './zstd.ts';

/** A chunk is stored compressed when that saves at least a sixteenth. */
const WORTH_SHIFT = 4;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const AAD_BYTES = 24;

function hashOf(bytes: Buffer, hashKey: Buffer | null): Buffer {
  if (hashKey === null) return blake3(bytes);
  const hasher = Blake3Hasher.newKeyed(hashKey);
  hasher.update(bytes);
  return hasher.digestBuffer();
}

/** A key encrypts each chunk at most once, so the chunk's number is a nonce that never repeats. */
function nonceOf(chunk: number): Buffer {
  const nonce = Buffer.alloc(NONCE_BYTES);
  nonce.writeBigUInt64LE(BigInt(chunk), 0);
  return nonce;
}

/** Ties the bytes to their place: a chunk moved to another address or volume does not decrypt. */
function aadOf(volume: Buffer, chunk: number): Buffer {
  const aad = Buffer.alloc(AAD_BYTES);
  volume.copy(aad);
  aad.writeBigUInt64LE(BigInt(chunk), 16);
  return aad;
}

function encode(job: EncodeJob): Encoded {
  const bytes = bufferOf(job.bytes);
  const { chunkBytes } = job;
  const zeros = Buffer.alloc(chunkBytes);
  const known = job.knownHashes === null ? null : bufferOf(job.knownHashes);
  const hashKey = job.keys === null ? null : bufferOf(job.keys.hashKey);
  const chunks: Encoded['chunks'] = [];
  // What is stored takes the place of what was read, which it never overtakes: memory is then not the garbage collector's to bound.
  const target =
    job.keys === null ? bytes : Buffer.allocUnsafeSlow(bytes.length + TAG_BYTES * (bytes.length / chunkBytes));
  let offset = 0;
  for (let index = 0; index * chunkBytes < bytes.length; index += 1) {
    const plain = bytes.subarray(index * chunkBytes, (index + 1) * chunkBytes);
    if (plain.equals(zeros)) {
      chunks.push({ kind: 'zeros' });
      continue;
    }
    const hash = hashOf(plain, hashKey);
    if (known?.compare(hash, 0, HASH_BYTES, index * HASH_BYTES, (index + 1) * HASH_BYTES) === 0) {
      chunks.push({ kind: 'same' });
      continue;
    }
    const packed = job.compression === 'zstd' ? loadZstd().compress(plain) : compressSync(plain);
    const isWorth = packed.length <= plain.length - (plain.length >> WORTH_SHIFT);
    let flags: number = isWorth ? CODEC[job.compression] : CODEC.raw;
    let body = isWorth ? packed : plain;
    if (job.keys !== null) {
      const chunk = job.firstChunk + index;
      const cipher = createCipheriv('aes-256-gcm', bufferOf(job.keys.dataKey), nonceOf(chunk));
      cipher.setAAD(aadOf(bufferOf(job.volume), chunk));
      body = Buffer.concat([cipher.update(body), cipher.final(), cipher.getAuthTag()]);
      flags |= ENCRYPTED;
    }
    chunks.push({ kind: 'data', offset, storedBytes: body.length, flags, hash: ownBytes(hash) });
    offset += body.copy(target, offset);
  }
  return { chunks, stored: target.subarray(0, offset) };
}

/** The plain bytes of a chunk, or why they are not what was written. */
function decodeOne(job: DecodeJob, chunk: DecodeJob['chunks'][number], zeros: Buffer): Buffer | string {
  let body = bufferOf(job.bytes).subarray(chunk.at, chunk.at + chunk.storedBytes);
  if (body.length < chunk.storedBytes) return 'its pack is too short';
  const keys = chunk.keys;
  if ((chunk.flags & ENCRYPTED) !== 0) {
    if (keys === null) return 'it is encrypted and no key is known';
    try {
      const decipher = createDecipheriv('aes-256-gcm', bufferOf(keys.dataKey), nonceOf(chunk.chunk));
      decipher.setAAD(aadOf(bufferOf(job.volume), chunk.chunk));
      decipher.setAuthTag(body.subarray(body.length - TAG_BYTES));
      body = Buffer.concat([decipher.update(body.subarray(0, body.length - TAG_BYTES)), decipher.final()]);
    } catch {
      return 'it does not decrypt';
    }
  }
  const codec = chunk.flags & CODEC_MASK;
  if (codec === CODEC.lz4) {
    // The length stands before the block; memory is never taken by a number that was not compared.
    if (body.length < 4 || body.readUInt32LE(0) !== zeros.length) return 'it does not decompress';
    try {
      body = uncompressSync(body);
    } catch {
      return 'it does not decompress';
    }
  } else if (codec === CODEC.zstd) {
    const zstd = loadZstd();
    try {
      body = zstd.decompress(body, zeros.length);
    } catch {
      return 'it does not decompress';
    }
  } else if (codec !== CODEC.raw) return `its codec ${codec} is unknown`;
  if (body.length !== zeros.length) return `it has ${body.length} bytes`;
  const hash = hashOf(body, keys === null ? null : bufferOf(keys.hashKey));
  return hash.equals(bufferOf(chunk.hash)) ? body : 'its hash is another';
}

function decode(job: DecodeJob): Decoded {
  const zeros = Buffer.alloc(job.chunkBytes);
  const plain = Buffer.allocUnsafeSlow(job.wantsBytes ? job.chunks.length * job.chunkBytes : 0);
  const damaged: { chunk: number; reason: string }[] = [];
  job.chunks.forEach((chunk, index) => {
    const result = decodeOne(job, chunk, zeros);
    if (typeof result === 'string') damaged.push({ chunk: chunk.chunk, reason: result });
    else if (job.wantsBytes) result.copy(plain, index * job.chunkBytes);
  });
  return { plain, damaged };
}

function hash(job: HashJob): Hashed {
  const bytes = bufferOf(job.bytes);
  return {
    bytes,
    blake3: ownBytes(blake3(bytes.subarray(0, job.dataBytes))),
  };
}

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** In memory of its own, so that it can be handed over to another thread. */
function ownBytes(bytes: Buffer): Buffer {
  const own = Buffer.allocUnsafeSlow(bytes.length);
  bytes.copy(own);
  return own;
}

const port = parentPort;
if (port === null) throw new Error('this file runs as a worker thread');
port.on('message', ({ id, job }: PoolRequest) => {
  try {
    switch (job.kind) {
      case 'encode': {
        const value = encode(job);
        port.postMessage({ id, value } satisfies PoolReply, [value.stored.buffer as ArrayBuffer]);
        return;
      }
      case 'decode': {
        const value = decode(job);
        port.postMessage({ id, value } satisfies PoolReply, [value.plain.buffer as ArrayBuffer]);
        return;
      }
      case 'hash': {
        const value = hash(job);
        port.postMessage({ id, value } satisfies PoolReply, [value.bytes.buffer as ArrayBuffer]);
        return;
      }
    }
  } catch (error) {
    if (error instanceof Failure) port.postMessage({ id, failure: error.toJSON() } satisfies PoolReply);
    else port.postMessage({ id, error: error instanceof Error ? (error.stack ?? error.message) : String(error) });
  }
});
