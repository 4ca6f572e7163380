/**
 * The openstack command line for tests: whole commands, run one after another in one Python process, since starting one
 * takes seconds. It knows nothing of volumes but that their statuses settle.
 */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Output } from './peers.ts';
import type { PythonEnvironment } from './python.ts';

const DRIVER = join(import.meta.dirname, '..', 'clients', 'python', 'osc.py');
/** Only ends what hangs. */
const COMMAND_MS = 60_000;
const SETTLE_MS = 45_000;

export type Json = Record<string, unknown>;

/** One interpreter. Who asks comes with each command, so that one is enough for all users of a test. */
export class OpenstackCli implements AsyncDisposable {
  /** Every command that was run, in the words it was given. */
  readonly history: string[] = [];
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #ended: Promise<void>;
  readonly #waiting: ((output: Output) => void)[] = [];
  #errors = '';

  constructor(python: PythonEnvironment) {
    this.#child = spawn(python.program('python'), [DRIVER], { env: python.env, stdio: 'pipe' });
    const killAtExit = () => this.#child.kill('SIGKILL');
    process.once('exit', killAtExit);
    this.#ended = new Promise((resolve) => this.#child.once('close', () => resolve()));
    this.#ended.finally(() => {
      process.removeListener('exit', killAtExit);
      for (const settle of this.#waiting.splice(0))
        settle({ code: 70, stdout: '', stderr: `the interpreter ended\n${this.#errors}` });
    });
    this.#child.stdin.on('error', () => {});
    this.#child.stderr.on('data', (chunk: Buffer) => {
      this.#errors += chunk.toString();
    });
    createInterface({ input: this.#child.stdout }).on('line', (line) => this.#waiting.shift()?.(JSON.parse(line)));
  }

  async run(args: readonly string[]): Promise<Output> {
    const answer = new Promise<Output>((resolve) => this.#waiting.push(resolve));
    this.#child.stdin.write(`${JSON.stringify(args)}\n`);
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), COMMAND_MS);
    try {
      return await answer;
    } finally {
      clearTimeout(timer);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin.end();
    await this.#ended;
  }
}

/** The command line as one user of one cloud has it. `command` is split at spaces; what has spaces of its own follows. */
export class Osc {
  readonly #cli: OpenstackCli;
  readonly #identity: readonly string[];

  constructor(cli: OpenstackCli, identity: readonly string[]) {
    this.#cli = cli;
    this.#identity = identity;
  }

  /** The same user, who names the microversion for the commands that choose none by themselves. */
  in(microversion: string): Osc {
    return new Osc(this.#cli, [...this.#identity, '--os-volume-api-version', microversion]);
  }

  /** Any exit code is an answer, but a crash of the client is none: it means that it did not understand us. */
  async try(command: string, ...more: string[]): Promise<Output> {
    const words = [...command.split(' '), ...more];
    this.#cli.history.push(words.join(' '));
    const output = await this.#cli.run([...this.#identity, ...words]);
    if (output.stderr.includes('Traceback (most recent call last)') || output.code === 70)
      throw new Error(`openstack ${words.join(' ')} crashed\n${output.stderr}`);
    return output;
  }

  async ok(command: string, ...more: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.try(command, ...more);
    if (code !== 0)
      throw new Error(`openstack ${[command, ...more].join(' ')} ended with exit code ${code}: ${stderr}`);
    return stdout;
  }

  /** One object, as a `show` or `create` prints it. */
  async show(command: string, ...more: string[]): Promise<Json> {
    return JSON.parse(await this.ok(`${command} -f json`, ...more)) as Json;
  }

  async list(command: string, ...more: string[]): Promise<Json[]> {
    return JSON.parse(await this.ok(`${command} -f json`, ...more)) as Json[];
  }

  /** Must be refused. Returns what the user reads. */
  async refused(command: string, ...more: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.try(command, ...more);
    if (code === 0) throw new Error(`openstack ${[command, ...more].join(' ')} was not refused: ${stdout}`);
    return stderr;
  }

  /** Shows it until its status is no longer one that passes by itself. Each look takes its time, so none is waited between. */
  async settled(show: string, ...more: string[]): Promise<Json> {
    const until = Date.now() + SETTLE_MS;
    for (;;) {
      const object = await this.show(show, ...more);
      // Some commands print headings, others the names of fields.
      const status = String(object['status'] ?? object['Status']);
      if (!/ing(-backup)?$|^backing-up$/.test(status)) return object;
      if (Date.now() > until) throw new Error(`openstack ${show} ${more.join(' ')} stays ${status}`);
    }
  }

  /** Shows it until there is nothing to show. */
  async gone(show: string, ...more: string[]): Promise<void> {
    const until = Date.now() + SETTLE_MS;
    for (;;) {
      const { code, stdout, stderr } = await this.try(`${show} -f json`, ...more);
      if (code !== 0) {
        if (/No \w+ found|404|Unable to find|could not be found/i.test(stderr)) return;
        throw new Error(`openstack ${show} ${more.join(' ')}: ${stderr}`);
      }
      if (Date.now() > until) throw new Error(`openstack ${show} ${more.join(' ')} is not gone: ${stdout}`);
    }
  }
}
