/**
 * Python clients of others, in their pinned environments: a `describe` that has one, and running a program of it. Where
 * no environment can be made for want of Python that is a skip which names it, and in CI a failure.
 */
import { join } from 'node:path';
import { describe } from 'vitest';
import { missingPython, pythonEnvironment } from '../../tools/python.mjs';
import { run } from './peers.ts';

/** One of tools/python/NAME.txt. */
export type PythonEnvironment = {
  readonly folder: string;
  /** Absolute path of a program of this environment. */
  program(name: string): string;
  /** What a Python program started by us gets: nothing of the caller's Python reaches it. */
  readonly env: NodeJS.ProcessEnv;
};

export async function openPython(name: string): Promise<PythonEnvironment> {
  const folder = await pythonEnvironment(name);
  const { PYTHONPATH: _path, PYTHONHOME: _home, PYTHONSTARTUP: _startup, ...inherited } = process.env;
  // Clients read OS_*: what stands in the caller's shell must not point them at another cloud.
  const kept = Object.entries(inherited).filter(([key]) => !key.startsWith('OS_'));
  return {
    folder,
    program: (program) => join(folder, 'bin', program),
    env: { ...Object.fromEntries(kept), PYTHONWARNINGS: 'ignore', PYTHONDONTWRITEBYTECODE: '1', PYTHONNOUSERSITE: '1' },
  };
}

/** Awaited at the top of a file, since an environment that is not there yet takes longer to make than a hook may. */
export async function describeWithPython(
  environment: string,
  name: string,
  body: (python: PythonEnvironment) => void | Promise<void>,
): Promise<void> {
  const missing = missingPython();
  if (missing === null) {
    const python = await openPython(environment);
    describe(name, () => body(python));
    return;
  }
  if (process.env['CI'] === 'true') throw new Error(`missing: ${missing}`);
  describe.skip(`${name} (missing: ${missing})`, () => {});
}

/** Runs to the end, which must be a success. Returns standard output. */
export async function runPython(
  python: PythonEnvironment,
  args: readonly string[],
  options: { readonly env?: NodeJS.ProcessEnv; readonly input?: string; readonly timeoutMs?: number } = {},
): Promise<string> {
  return await run(python.program('python'), args, { ...options, env: { ...python.env, ...options.env } });
}
