/** What every client command gets out of the global flags and the environment: a client, a printer, whether to wait. */
import type { Command } from 'commander';
import { Failure } from '../base/errors.ts';
import { ApiClient } from './client.ts';
import { connect } from './connection.ts';
import { type Format, Printer } from './print.ts';

export type Context = {
  readonly client: ApiClient;
  readonly printer: Printer;
  readonly shouldWait: boolean;
  /** Aborted by Ctrl-C: what was begun is cleaned up and the exit code is 130. */
  readonly signal: AbortSignal;
};

type GlobalFlags = { url?: string; token?: string; cacert?: string; output: Format; column?: string[]; wait: boolean };

/** Runs a client command. A second Ctrl-C ends the process at once, whatever it still cleans up. */
export async function withContext(command: Command, action: (context: Context) => Promise<void>): Promise<void> {
  const flags = command.optsWithGlobals<GlobalFlags>();
  const client = new ApiClient(await connect(flags, process.env));
  const controller = new AbortController();
  const onSignal = () => {
    if (controller.signal.aborted) process.exit(130);
    controller.abort();
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  try {
    const printer = new Printer({ format: flags.output, columns: flags.column ?? [] });
    await action({ client, printer, shouldWait: flags.wait, signal: controller.signal });
  } finally {
    process.removeListener('SIGINT', onSignal);
    process.removeListener('SIGTERM', onSignal);
    await client.close();
  }
}

/** `KEY=VALUE`, repeatable: a collector for commander. */
export function collectPair(pair: string, pairs: Record<string, string> = {}): Record<string, string> {
  const at = pair.indexOf('=');
  if (at < 1) throw new Failure('bad_request', { reason: `"${pair}" is not KEY=VALUE.` });
  return { ...pairs, [pair.slice(0, at)]: pair.slice(at + 1) };
}

export function collect(value: string, values: string[] = []): string[] {
  return [...values, value];
}
