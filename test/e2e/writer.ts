/**
 * A client in a process of its own that writes numbered blocks and remembers what a flush promised: libnbd by nbdsh, so
 * that no code of ours judges itself.
 */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { run } from '../support/peers.ts';

/** Where it writes, and how many blocks of 4 KiB. */
const START = 3 * 2 ** 30;
const BLOCKS = 2048;
const WRITES_PER_FLUSH = 16;

const WRITE = `
import sys
start, blocks, per_flush = ${START}, ${BLOCKS}, ${WRITES_PER_FLUSH}
number = 0
while True:
    for _ in range(per_flush):
        number += 1
        h.pwrite(number.to_bytes(8, 'big') * 512, start + (number * 7919) % blocks * 4096)
    h.flush()
    print(number, flush=True)
`;

/** Each block has the last number that was flushed for it, or a later one; and never a mix of two. */
function verification(promised: number): string {
  return `
start, blocks, promised = ${START}, ${BLOCKS}, ${promised}
last = {}
for number in range(1, promised + 1):
    last[(number * 7919) % blocks] = number
for block, number in last.items():
    data = h.pread(4096, start + block * 4096)
    found = int.from_bytes(data[:8], 'big')
    assert bytes(data) == found.to_bytes(8, 'big') * 512, f'block {block} is a mix, first {found}'
    assert found >= number, f'block {block} has write {found}, but {number} was flushed'
    assert (found * 7919) % blocks == block, f'block {block} has write {found} of another block'
print('verified', len(last))
`;
}

export type Writer = {
  /** Resolves after this many flushes. */
  flushed(count: number): Promise<void>;
  /** Waits for its end and returns the last number that was flushed. */
  end(): Promise<number>;
  verify(uri: string, promised: number): Promise<void>;
};

export async function startWriter(uri: string): Promise<Writer> {
  const child = spawn('nbdsh', ['-u', uri, '-c', WRITE], {
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { ...process.env, PATH: `/usr/bin:${process.env['PATH'] ?? ''}` },
  });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  let promised = 0;
  let flushes = 0;
  let onFlush = (): void => {};
  createInterface({ input: child.stdout }).on('line', (line) => {
    promised = Number(line);
    flushes += 1;
    onFlush();
  });
  return {
    flushed: (count) =>
      new Promise((resolve, reject) => {
        onFlush = () => {
          if (flushes >= count) resolve();
        };
        onFlush();
        ended.then(() => reject(new Error(`the writer ended after ${flushes} flushes`)));
      }),
    async end() {
      await ended;
      return promised;
    },
    async verify(target, number) {
      await run('nbdsh', ['-u', target, '-c', verification(number)]);
    },
  };
}
