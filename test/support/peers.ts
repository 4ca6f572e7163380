/**
 * Programs that are not ours (qemu, libnbd, nbdkit, fio): whether they are here, and running them with a deadline and
 * captured output. A missing peer is a skip that names it, and in CI a failure: there `npm test` had to install it.
 */
import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { describe } from 'vitest';
import known from '../../tools/peers.json' with { type: 'json' };

/** Peers that `npm test` built itself. */
const BUILT = join(import.meta.dirname, '..', '..', '.cache', 'bin');
const SEARCHED = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin', '/usr/local/sbin', BUILT];
/**
 * The distribution's folders first: a peer that is a script (nbdsh) must find the distribution's Python, which has its
 * modules, and not another one that stands earlier in the caller's PATH.
 */
const PATH = ['/usr/bin', '/bin', ...SEARCHED].join(delimiter);
/** Longer than any honest command of a test; only ends what hangs. */
const TIMEOUT_MS = 120_000;

export function hasPeer(command: string): boolean {
  return peerPath(command) !== null;
}

export function peerPath(command: string): string | null {
  const path = SEARCHED.map((folder) => join(folder, command)).find((candidate) => {
    try {
      accessSync(candidate, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
  return path ?? null;
}

/** A `describe` whose tests talk to these peers. Each must stand in tools/peers.json, which is what gets installed. */
export function describeWith(peers: readonly string[], name: string, body: () => void): void {
  for (const peer of peers) {
    if (!known.some((entry) => entry.command === peer)) throw new Error(`${peer} does not stand in tools/peers.json`);
  }
  const missing = peers.filter((peer) => !hasPeer(peer));
  if (missing.length === 0) {
    describe(name, body);
    return;
  }
  if (process.env['CI'] === 'true')
    throw new Error(`missing: ${missing.join(', ')} (tools/peers.json says which package)`);
  describe.skip(`${name} (missing: ${missing.join(', ')})`, body);
}

export type Output = { readonly code: number; readonly stdout: string; readonly stderr: string };

export type RunOptions = {
  readonly input?: string | Buffer;
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  readonly timeoutMs?: number;
};

/** Runs to the end, whatever the exit code. Rejects when the program isn't there or does not end in time. */
export function tryRun(command: string, args: readonly string[], options: RunOptions = {}): Promise<Output> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: options.cwd,
      env: { ...(options.env ?? process.env), PATH },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`${command} ${args.join(' ')} did not end within ${timeoutMs} ms\n${Buffer.concat(stderr)}`));
    }, timeoutMs);
    child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
    child.stdin.on('error', () => {});
    child.stdin.end(options.input ?? '');
    child.on('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      resolve({
        code: code ?? 128,
        stdout: Buffer.concat(stdout).toString(),
        stderr: Buffer.concat(stderr).toString() + (signal === null ? '' : `\nended by ${signal}\n`),
      });
    });
  });
}

/** The same, and a failed command fails the test with what it said. Returns standard output. */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const { code, stdout, stderr } = await tryRun(command, args, options);
  if (code !== 0) throw new Error(`${command} ${args.join(' ')} ended with exit code ${code}\n${stdout}${stderr}`);
  return stdout;
}
