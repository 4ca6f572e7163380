/**
 * A client in a process of its own that writes one numbered block after the other and says what a flush promised: libnbd by
 * nbdsh, so that no code of ours judges itself. Of a volume it asks that no promise is broken; of a snapshot, that it shows one
 * moment: every write up to some number, and none after it.
 */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { run } from '../support/peers.ts';

const BLOCKS = 1024;
/** Coprime to BLOCKS: the numbers visit every block, out of order. */
const STRIDE = 397;
/** In front of each block that it writes. */
export const STAMP = Buffer.from('QPWR');

const COMMON = `
blocks, stride, stamp = ${BLOCKS}, ${STRIDE}, b'${STAMP}'
def place(number): return number * stride % blocks
def content(number): return (stamp + number.to_bytes(4, 'big')) * 512
`;

const WRITE = `${COMMON}
import random
number, dice = 0, random.Random(SEED)
while True:
    for _ in range(dice.choice((1, 4, 16, 64))):
        number += 1
        h.pwrite(content(number), place(number) * 4096)
    h.flush()
    print(number, flush=True)
`;

const READ = `${COMMON}
import hashlib
promised, is_moment = PROMISED, IS_MOMENT
digest, found = hashlib.sha256(), {}
for block in range(blocks):
    data = bytes(h.pread(4096, block * 4096))
    digest.update(data)
    number = 0 if data == bytes(4096) else int.from_bytes(data[4:8], 'big')
    assert number == 0 or data == content(number), f'block {block} is a third thing: {data[:16]}'
    assert number == 0 or place(number) == block, f'block {block} has write {number} of another block'
    found[block] = number
newest = max(found.values())
for number in range(1, promised + 1):
    assert found[place(number)] >= number, f'block {place(number)} has write {found[place(number)]}, but {number} was flushed'
if is_moment:
    for number in range(max(1, newest - blocks + 1), newest + 1):
        assert found[place(number)] >= number, f'it has write {newest}, but not {number}, which was answered before'
print(digest.hexdigest())
`;

export class PrefixWriter {
  readonly #ended: Promise<void>;
  /** The last write that a flush covered. */
  promised = 0;
  #flushes = 0;
  #onFlush = (): void => {};

  constructor(uri: string, seed: number) {
    const child = spawn('nbdsh', ['-u', uri, '-c', WRITE.replace('SEED', String(seed))], {
      stdio: ['ignore', 'pipe', 'ignore'],
      env: { ...process.env, PATH: `/usr/bin:${process.env['PATH'] ?? ''}` },
    });
    this.#ended = new Promise((resolve) => child.once('close', () => resolve()));
    createInterface({ input: child.stdout }).on('line', (line) => {
      this.promised = Number(line);
      this.#flushes += 1;
      this.#onFlush();
    });
  }

  /** Resolves after this many flushes. */
  flushed(count: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#onFlush = () => {
        if (this.#flushes >= count) resolve();
      };
      this.#onFlush();
      this.#ended.then(() => reject(new Error(`the writer ended after ${this.#flushes} flushes`)));
    });
  }

  ended(): Promise<void> {
    return this.#ended;
  }
}

/** Fails if what is there breaks the promise; else says what it was. */
export async function contentOf(uri: string, promise: { promised: number; isMoment: boolean }): Promise<string> {
  const script = READ.replace('PROMISED', String(promise.promised)).replace(
    'IS_MOMENT',
    promise.isMoment ? 'True' : 'False',
  );
  return (await run('nbdsh', ['-u', uri, '-c', script])).trim();
}
