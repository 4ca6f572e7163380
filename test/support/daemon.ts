/**
 * The real daemon for tests: the built program in a process of its own, on a temporary folder, ended by any signal a
 * test wants and started again on the same data. It trusts nothing but what docs/cli.md promises: the ready line, the exit code.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Client } from 'undici';
import { tempFolder } from './temp.ts';

const MAIN = join(import.meta.dirname, '..', '..', 'dist', 'cli', 'main.js');
/** Only ends what hangs: recovery after a crash of the largest test takes a few seconds on a busy machine. */
const READY_MS = 60_000;
const STOP_MS = 30_000;
/** How much of the daemon's log a failure message shows. */
const LOG_CHARS = 8_000;

export type DaemonOptions = {
  /** Kept when given; else a temporary folder, removed by `stop()`. */
  readonly dataDir?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** More flags of `quarry serve`. */
  readonly args?: readonly string[];
  /** `unix` (a socket in the data folder's parent) or `tcp` (a free port of loopback). */
  readonly api?: 'unix' | 'tcp';
  /** Instead of the built program: one that understands `serve` in the same way. */
  readonly program?: string;
  /** PEM of the authority that `request` trusts, where the API is HTTPS. */
  readonly authority?: string;
};

export type ApiReply = {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: unknown;
};

type Ready = { readonly api: readonly string[]; readonly nbd: readonly string[]; readonly version: string };

type Running = {
  readonly child: ChildProcess;
  readonly ready: Ready;
  readonly ended: Promise<Ended>;
  readonly client: Client;
};

export type Ended = { readonly code: number | null; readonly signal: NodeJS.Signals | null };

export class Daemon implements AsyncDisposable {
  readonly dataDir: string;
  readonly #folder: string;
  readonly #options: DaemonOptions;
  readonly #removeFolder: () => Promise<void>;
  #log = '';
  #running: Running | null = null;

  constructor(options: DaemonOptions, folder: { path: string; remove(): Promise<void> }) {
    this.#options = options;
    this.#folder = folder.path;
    this.#removeFolder = folder.remove;
    this.dataDir = options.dataDir ?? join(folder.path, 'data');
  }

  /** As `--url` and QUARRY_URL take it. */
  get url(): string {
    const url = this.#alive().ready.api[0];
    if (url === undefined) throw new Error('the ready line names no API address');
    return url;
  }

  /** Path of the NBD unix socket. */
  get nbdSocket(): string {
    const unix = this.#alive().ready.nbd.find((address) => address.startsWith('unix:'));
    if (unix === undefined)
      throw new Error(`the ready line names no NBD socket: ${this.#alive().ready.nbd.join(', ')}`);
    return unix.slice('unix:'.length);
  }

  get pid(): number {
    const { pid } = this.#alive().child;
    if (pid === undefined) throw new Error('the daemon has no process id');
    return pid;
  }

  /** Everything it wrote on standard error since the first start. */
  get log(): string {
    return this.#log;
  }

  /** The NBD URI of an export by this name. */
  uri(name: string): string {
    return `nbd+unix:///${encodeURIComponent(name)}?socket=${this.nbdSocket}`;
  }

  /** One request; any status is an answer. */
  async request(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<ApiReply> {
    const { client } = this.#alive();
    const reply = await client.request({
      path,
      method: method as 'GET',
      headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
      body: body === undefined ? null : JSON.stringify(body),
    });
    const text = await reply.body.text();
    const plain: Record<string, string> = {};
    for (const [name, value] of Object.entries(reply.headers)) plain[name] = String(value);
    return { status: reply.statusCode, headers: plain, body: text === '' ? null : parsed(text) };
  }

  async start(): Promise<void> {
    if (this.#running !== null) throw new Error('the daemon runs already');
    if (!existsSync(MAIN)) throw new Error(`${MAIN} is not there: run \`npm run build\``);
    const api = this.#options.api === 'tcp' ? '127.0.0.1:0' : `unix:${join(this.#folder, 'api.sock')}`;
    const nbd = `unix:${join(this.#folder, 'nbd.sock')}`;
    const args = [
      this.#options.program ?? MAIN,
      'serve',
      '--data',
      this.dataDir,
      '--api',
      api,
      '--nbd',
      nbd,
      ...(this.#options.args ?? []),
    ];
    const child = spawn(process.execPath, args, {
      env: { ...process.env, ...this.#options.env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const ended = new Promise<Ended>((resolve) => child.once('close', (code, signal) => resolve({ code, signal })));
    child.stderr?.on('data', (chunk: Buffer) => {
      this.#log += chunk.toString();
    });
    // A test that dies must not leave its daemon behind.
    const killAtExit = () => child.kill('SIGKILL');
    process.once('exit', killAtExit);
    ended.finally(() => process.removeListener('exit', killAtExit));
    const ready = await readyLine(child, ended, () => this.#log.slice(-LOG_CHARS));
    const url = ready.api[0] ?? '';
    const { authority } = this.#options;
    const client = url.startsWith('unix:')
      ? new Client('http://localhost', { socketPath: url.slice('unix:'.length) })
      : new Client(url, authority === undefined ? {} : { connect: { ca: authority } });
    this.#running = { child, ready, ended, client };
  }

  /** Sends a signal and waits for the end. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<Ended> {
    const { child, ended, client } = this.#alive();
    this.#running = null;
    child.kill(signal);
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
    const result = await ended;
    clearTimeout(timer);
    await client.destroy();
    if (signal !== 'SIGKILL' && result.signal === 'SIGKILL') {
      throw new Error(`the daemon did not end within ${STOP_MS} ms of ${signal}\n${this.#log.slice(-LOG_CHARS)}`);
    }
    return result;
  }

  /** Waits for an end that the test provoked by other means. */
  async end(): Promise<Ended> {
    const { ended, client } = this.#alive();
    const result = await ended;
    this.#running = null;
    await client.destroy();
    return result;
  }

  /** Ends it by `signal` and starts it on the same folder with the same flags. */
  async restart(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.#running !== null) await this.kill(signal);
    await this.start();
  }

  /** A clean end, which must exit 0, and the temporary folder is gone. */
  async stop(): Promise<void> {
    try {
      if (this.#running === null) return;
      const { code, signal } = await this.kill('SIGTERM');
      if (code !== 0)
        throw new Error(`SIGTERM ended the daemon with ${signal ?? code}\n${this.#log.slice(-LOG_CHARS)}`);
    } finally {
      await this.#removeFolder();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  #alive(): Running {
    if (this.#running === null) throw new Error(`the daemon does not run\n${this.#log.slice(-LOG_CHARS)}`);
    return this.#running;
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function readyLine(child: ChildProcess, ended: Promise<Ended>, log: () => string): Promise<Ready> {
  return new Promise((resolve, reject) => {
    let text = '';
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`no ready line within ${READY_MS} ms\n${log()}`));
    }, READY_MS);
    const settle = (action: () => void) => {
      clearTimeout(timer);
      action();
    };
    child.stdout?.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      const line = text.split('\n', 1)[0] ?? '';
      if (!text.includes('\n')) return;
      try {
        const ready: Ready & { ready?: boolean } = JSON.parse(line);
        if (ready.ready !== true) throw new Error('not ready');
        settle(() => resolve(ready));
      } catch {
        settle(() => reject(new Error(`the first line on standard output is no ready line: ${line}`)));
      }
    });
    child.once('error', (error) => settle(() => reject(error)));
    ended.then(({ code, signal }) =>
      settle(() =>
        reject(new Error(`the daemon ended (${signal ?? `exit code ${code}`}) before it was ready\n${log()}`)),
      ),
    );
  });
}

/** `await using daemon = await startDaemon()`: serving when it returns, stopped and removed at the end of the block. */
export async function startDaemon(options: DaemonOptions = {}): Promise<Daemon> {
  const folder = await tempFolder();
  const daemon = new Daemon(options, folder);
  try {
    await daemon.start();
  } catch (error) {
    await folder.remove();
    throw error;
  }
  return daemon;
}
