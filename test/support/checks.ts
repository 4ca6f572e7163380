/**
 * Client programs in other languages as tests: a program names its checks when asked to `list` them, reports each as a
 * line of JSON when asked to `run` them, and each becomes a test of that name. What they check is theirs.
 */
import { beforeAll, expect, it } from 'vitest';
import { type RunOptions, run, tryRun } from './peers.ts';

export type Program = {
  readonly command: string;
  readonly args: readonly string[];
  readonly areas: readonly string[];
  readonly options: RunOptions;
};

type Result = { readonly name: string; readonly reason: string | null };

/** Only ends what hangs. */
const RUN_MS = 240_000;

/** `environment` is asked when everything that the program needs is running. */
export async function testChecks(program: Program, environment: () => Record<string, string>): Promise<void> {
  const { command, args, areas, options } = program;
  const names: string[] = JSON.parse(await run(command, [...args, 'list', ...areas], options));
  if (names.length === 0) throw new Error(`${command} ${args.join(' ')} has no checks of ${areas.join(', ')}`);
  const results = new Map<string, string | null>();
  let end = '';

  beforeAll(async () => {
    const env = { ...(options.env ?? process.env), ...environment() };
    const output = await tryRun(command, [...args, 'run', ...areas], { ...options, env, timeoutMs: RUN_MS });
    end = `the program ended with exit code ${output.code} before this check\n${output.stderr}`;
    for (const line of output.stdout.split('\n').filter((text) => text !== '')) {
      const { name, reason } = JSON.parse(line) as Result;
      results.set(name, reason);
    }
  }, RUN_MS + 10_000);

  it.each(names)('%s', (name) => {
    const reason = results.get(name);
    expect(reason === undefined ? end : reason).toBeNull();
  });
}
