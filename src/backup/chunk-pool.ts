/**
 * Threads for what costs processor time: the main thread serves the API meanwhile. Jobs hand their bytes over and get
 * them back; nothing is shared. It knows jobs, not why they are done.
 */
import { Worker } from 'node:worker_threads';
import { type Failure, failureFrom } from '../base/errors.ts';
import type { Compression } from '../format/backup-pack.ts';

export type ChunkKeys = { readonly dataKey: Uint8Array; readonly hashKey: Uint8Array };

export type EncodeJob = {
  readonly kind: 'encode';
  /** Whole chunks; handed over. */
  readonly bytes: Buffer;
  readonly firstChunk: number;
  readonly chunkBytes: number;
  /** The 16 bytes of the volume's id. */
  readonly volume: Uint8Array;
  /** Per chunk the hash that needs no storing again, zeros where there is none. */
  readonly knownHashes: Uint8Array | null;
  readonly compression: Compression;
  readonly keys: ChunkKeys | null;
};
export type EncodedChunk =
  | { readonly kind: 'zeros' }
  | { readonly kind: 'same' }
  | {
      readonly kind: 'data';
      readonly offset: number;
      readonly storedBytes: number;
      readonly flags: number;
      readonly hash: Uint8Array;
    };
export type Encoded = { readonly chunks: EncodedChunk[]; readonly stored: Buffer };

export type DecodeJob = {
  readonly kind: 'decode';
  /** Part of a pack. */
  readonly bytes: Buffer;
  readonly chunkBytes: number;
  readonly volume: Uint8Array;
  readonly chunks: readonly {
    readonly chunk: number;
    readonly at: number;
    readonly storedBytes: number;
    readonly flags: number;
    readonly hash: Uint8Array;
    readonly keys: ChunkKeys | null;
  }[];
  /** Or only a look at whether they are right. */
  readonly wantsBytes: boolean;
};
export type Decoded = {
  /** One after the other, in the order of the job. */
  readonly plain: Buffer;
  readonly damaged: readonly { readonly chunk: number; readonly reason: string }[];
};

export type HashJob = { readonly kind: 'hash'; readonly bytes: Buffer; readonly dataBytes: number };
export type Hashed = { readonly bytes: Buffer; readonly blake3: Buffer };

type Job = EncodeJob | DecodeJob | HashJob;
export type PoolRequest = { readonly id: number; readonly job: Job };
export type PoolReply = {
  readonly id: number;
  readonly value?: Encoded | Decoded | Hashed;
  /** What somebody can do something about, and what is a bug. */
  readonly failure?: ReturnType<Failure['toJSON']>;
  readonly error?: string;
};

type Waiting = { readonly resolve: (value: never) => void; readonly reject: (error: Error) => void };
type Thread = { readonly worker: Worker; readonly waiting: Map<number, Waiting> };

export class ChunkPool {
  readonly #threads: Thread[] = [];
  readonly #threadsMax: number;
  #lastId = 0;
  #isClosed = false;

  /** Threads start when there is work for them. */
  constructor(options: { threadsMax: number }) {
    this.#threadsMax = options.threadsMax;
  }

  // A Buffer arrives from another thread as a plain array of bytes.
  async encode(job: Omit<EncodeJob, 'kind'>): Promise<Encoded> {
    const encoded = await this.#run<Encoded>({ kind: 'encode', ...job });
    return { ...encoded, stored: asBuffer(encoded.stored) };
  }

  async decode(job: Omit<DecodeJob, 'kind'>): Promise<Decoded> {
    const decoded = await this.#run<Decoded>({ kind: 'decode', ...job });
    return { ...decoded, plain: asBuffer(decoded.plain) };
  }

  async hash(job: Omit<HashJob, 'kind'>): Promise<Hashed> {
    const hashed = await this.#run<Hashed>({ kind: 'hash', ...job });
    return { bytes: asBuffer(hashed.bytes), blake3: asBuffer(hashed.blake3) };
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all(this.#threads.map(({ worker }) => worker.terminate()));
  }

  async #run<Value>(job: Job): Promise<Value> {
    const thread = this.#idlest();
    this.#lastId += 1;
    const id = this.#lastId;
    const value = await new Promise<Value>((resolve, reject) => {
      thread.waiting.set(id, { resolve, reject });
      thread.worker.postMessage({ id, job } satisfies PoolRequest, [job.bytes.buffer as ArrayBuffer]);
    });
    return value;
  }

  #idlest(): Thread {
    if (this.#isClosed) throw new Error('the threads have ended');
    const idle = this.#threads.find(({ waiting }) => waiting.size === 0);
    if (idle !== undefined) return idle;
    if (this.#threads.length < this.#threadsMax) return this.#start();
    return this.#threads.reduce((best, thread) => (thread.waiting.size < best.waiting.size ? thread : best));
  }

  #start(): Thread {
    const file = import.meta.url.endsWith('.ts') ? '../../dist/backup/chunk-worker.js' : './chunk-worker.js';
    const worker = new Worker(new URL(file, import.meta.url), { name: 'backup' });
    const thread: Thread = { worker, waiting: new Map() };
    worker.on('message', ({ id, value, failure, error }: PoolReply) => {
      const waiting = thread.waiting.get(id);
      thread.waiting.delete(id);
      if (failure !== undefined) waiting?.reject(failureFrom(failure));
      else if (error === undefined) waiting?.resolve(value as never);
      else waiting?.reject(new Error(`a backup thread failed: ${error}`));
    });
    const ended = (reason: string) => {
      const at = this.#threads.indexOf(thread);
      if (at >= 0) this.#threads.splice(at, 1);
      for (const { reject } of thread.waiting.values()) reject(new Error(`a backup thread ended: ${reason}`));
      thread.waiting.clear();
    };
    worker.on('error', (error) => ended(String(error)));
    worker.on('exit', (code) => ended(`exit code ${code}`));
    // Idle threads do not keep the process alive; one at work is awaited by whoever gave it work.
    worker.unref();
    this.#threads.push(thread);
    return thread;
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
