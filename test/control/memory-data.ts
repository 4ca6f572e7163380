/**
 * The bytes of a memory backend's volumes, which has none: each block is filled with the number of the write that filled
 * it. So a backup can read them, and a restore that writes them back brings back the same facts.
 */
import type { MemoryBackend } from '../../src/backend/memory.ts';
import type { BlockReader } from '../../src/backup/create.ts';
import type { DataAccess } from '../../src/backup/data.ts';
import type { BlockWriter } from '../../src/backup/restore.ts';

const BLOCK_BYTES = 65536;

export class MemoryData implements DataAccess {
  readonly #backend: MemoryBackend;
  readonly #before: (what: 'read' | 'write') => Promise<void>;

  constructor(backend: MemoryBackend, before: ((what: 'read' | 'write') => Promise<void>) | undefined) {
    this.#backend = backend;
    this.#before = before ?? (async () => {});
  }

  async read<T>(targetId: string, use: (reader: BlockReader) => Promise<T>): Promise<T> {
    const blocks = new Map(this.#backend.blocksOf(targetId));
    return use({
      read: async (offset, target) => {
        await this.#before('read');
        for (let at = 0; at < target.length; at += BLOCK_BYTES) {
          const bytes = Buffer.alloc(8);
          bytes.writeBigUInt64LE(BigInt(blocks.get((offset + at) / BLOCK_BYTES) ?? 0));
          target.fill(bytes, at, at + BLOCK_BYTES);
        }
      },
    });
  }

  async fill<T>(targetId: string, use: (writer: BlockWriter) => Promise<T>): Promise<T> {
    return use({
      write: async (offset, data) => {
        await this.#before('write');
        for (let at = 0; at < data.length; at += BLOCK_BYTES) {
          const block = { index: (offset + at) / BLOCK_BYTES, write: Number(data.readBigUInt64LE(at)) };
          this.#backend.fillBlock(targetId, block);
        }
      },
      writeZeroes: async () => {
        throw new Error('nothing is taken away through here');
      },
      flush: async () => {},
    });
  }

  async write<T>(targetId: string, use: (writer: BlockWriter) => Promise<T>): Promise<T> {
    const set = (index: number, write: number | null) => this.#backend.setBlock(targetId, { index, write });
    return use({
      write: async (offset, data) => {
        await this.#before('write');
        for (let at = 0; at < data.length; at += BLOCK_BYTES)
          set((offset + at) / BLOCK_BYTES, Number(data.readBigUInt64LE(at)));
      },
      writeZeroes: async (offset, length) => {
        await this.#before('write');
        for (let at = 0; at < length; at += BLOCK_BYTES) set((offset + at) / BLOCK_BYTES, null);
      },
      flush: async () => {},
    });
  }
}
