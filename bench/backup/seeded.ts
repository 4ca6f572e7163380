/** Random numbers and bytes that a seed decides, so that two runs change the same places in the same way. */
import { createCipheriv, createHash } from 'node:crypto';

const BLOCK_BYTES = 4096;
const LINE = Buffer.from('what a program wrote again, a little changed; ');

export class Seeded {
  readonly #stream;

  constructor(seed: string) {
    const key = createHash('sha256').update(seed).digest();
    this.#stream = createCipheriv('aes-256-ctr', key, Buffer.alloc(16));
  }

  bytes(length: number): Buffer {
    return this.#stream.update(Buffer.alloc(length));
  }

  /** A whole number below `end`. */
  below(end: number): number {
    return Number(this.bytes(6).readUIntBE(0, 6) % end);
  }

  shuffled<T>(items: readonly T[]): T[] {
    const mixed = [...items];
    for (let at = mixed.length - 1; at > 0; at -= 1) {
      const other = this.below(at + 1);
      const [a, b] = [mixed[at] as T, mixed[other] as T];
      mixed[at] = b;
      mixed[other] = a;
    }
    return mixed;
  }

  /** Blocks of which so large a part does not compress, and the rest does well. */
  data(length: number, incompressible: number): Buffer {
    const filled = Buffer.alloc(length, LINE);
    const each = Math.round(BLOCK_BYTES * incompressible);
    const random = this.bytes(Math.ceil(length / BLOCK_BYTES) * each);
    for (let block = 0; block * BLOCK_BYTES < length; block += 1)
      random.copy(filled, block * BLOCK_BYTES, block * each, (block + 1) * each);
    return filled;
  }
}
