/** The command line as a user runs it: the built program in a process of its own. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { Daemon } from './daemon.ts';
import { type Output, type RunOptions, tryRun } from './peers.ts';

export const MAIN = join(import.meta.dirname, '..', '..', 'dist', 'cli', 'main.js');

/** Without a daemon, or with one given by `--url`. Nothing of the caller's environment points it elsewhere. */
export async function quarry(args: readonly string[], options: RunOptions = {}): Promise<Output> {
  if (!existsSync(MAIN)) throw new Error(`${MAIN} is not there: run \`npm run build\``);
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('OS_'));
  const env = { ...Object.fromEntries(inherited), QUARRY_URL: '', QUARRY_TOKEN: '', ...options.env };
  return await tryRun(process.execPath, [MAIN, ...args], { ...options, env });
}

/** A client command against a daemon, which must exit 0. Returns standard output. */
export async function quarryOn(daemon: Daemon, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await quarry(['--url', daemon.url, ...args]);
  if (code !== 0) throw new Error(`quarry ${args.join(' ')} ended with exit code ${code}: ${stderr}`);
  return stdout;
}

/** The same as parsed JSON. */
export async function quarryJson(daemon: Daemon, ...args: string[]): Promise<unknown> {
  return JSON.parse(await quarryOn(daemon, '-o', 'json', ...args));
}

/** A client command that is to fail: it prints nothing but on standard error. */
export async function quarryFailing(daemon: Daemon, ...args: string[]): Promise<{ code: number; stderr: string }> {
  const { code, stdout, stderr } = await quarry(['--url', daemon.url, ...args]);
  expect(stdout).toBe('');
  return { code, stderr };
}
