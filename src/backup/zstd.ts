/**
 * Zstandard for chunks, where its library is installed: it is compiled at installation and optional, and whoever neither
 * writes nor reads such chunks never loads it. Node has its own from version 22.15; this project runs on 20 too.
 */
import { createRequire } from 'node:module';
import { Failure } from '../base/errors.ts';

/** The fastest of the usual levels: about a tenth smaller than LZ4. */
const LEVEL = 1;
const MODULE = 'zstd-napi/binding.js';

export type Zstd = {
  compress(plain: Buffer): Buffer;
  /** Fails unless the frame has exactly so many bytes: memory is never taken by a number out of the frame. */
  decompress(packed: Buffer, plainBytes: number): Buffer;
};

/** The part of the library that is used here: its own types may be absent with it. */
type Binding = {
  compressBound(bytes: number): number;
  /** Bytes written to the first argument; both throw where it does not fit. */
  compress(target: Uint8Array, source: Uint8Array, level: number): number;
  decompress(target: Uint8Array, source: Uint8Array): number;
};

let loaded: Zstd | null = null;

export function loadZstd(): Zstd {
  loaded ??= zstdOf(load());
  return loaded;
}

function load(): Binding {
  try {
    return createRequire(import.meta.url)(MODULE) as Binding;
  } catch {
    const reason =
      'Backups compressed by zstd need the optional package zstd-napi, which is not installed: run npm install with a C++ compiler at hand, or use lz4.';
    throw new Failure('not_supported', { reason });
  }
}

function zstdOf(binding: Binding): Zstd {
  return {
    compress(plain) {
      const packed = Buffer.allocUnsafe(binding.compressBound(plain.length));
      return packed.subarray(0, binding.compress(packed, plain, LEVEL));
    },
    decompress(packed, plainBytes) {
      const plain = Buffer.allocUnsafe(plainBytes);
      const length = binding.decompress(plain, packed);
      if (length !== plainBytes) throw new Error(`a frame of ${length} bytes instead of ${plainBytes}`);
      return plain;
    },
  };
}
