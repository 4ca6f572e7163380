/**
 * A client that stays connected and writes when it is told to: libnbd in a process of its own, one line in, one line out.
 */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

const PROGRAM = `
import sys
print("connected", flush=True)
for line in sys.stdin:
    try:
        h.pwrite(b"x" * 4096, int(line))
        print("ok", flush=True)
    except nbd.Error as error:
        print("failed: " + error.string, flush=True)
`;

export type Client = AsyncDisposable & {
  /** A block at this offset: `ok`, or why not. */
  write(offset: number): Promise<string>;
};

export async function startClient(uri: string): Promise<Client> {
  const child = spawn('nbdsh', ['-u', uri, '-c', PROGRAM], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, PATH: `/usr/bin:${process.env['PATH'] ?? ''}` },
  });
  // A test learns of its end by the answer that does not come.
  child.stdin.on('error', () => {});
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const answer = async (): Promise<string> => {
    const { value, done } = await lines.next();
    return done === true ? 'the client ended' : value;
  };
  const client: Client = {
    async write(offset) {
      child.stdin.write(`${offset}\n`);
      return answer();
    },
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await ended;
    },
  };
  const first = await answer();
  if (first === 'connected') return client;
  await client[Symbol.asyncDispose]();
  throw new Error(`nbdsh did not connect to ${uri}: ${first}`);
}
