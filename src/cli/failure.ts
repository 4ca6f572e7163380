/** From any error to one line on standard error and the exit code that docs/cli.md promises. */
import { FAILURES, Failure } from '../base/errors.ts';
import { ApiError } from './client.ts';

export const EXIT = { done: 0, failed: 1, usage: 2, unusable: 5 } as const;

/** Something was begun and did not succeed; the message says what is left of it and what to do next. */
export class OperationFailed extends Error {
  override readonly name = 'OperationFailed';
  readonly exit: number;

  constructor(message: string, exit: number = EXIT.failed) {
    super(message);
    this.exit = exit;
  }
}

export function exitCodeOf(error: unknown): number {
  if (error instanceof Failure) return FAILURES[error.code].exit;
  if (error instanceof ApiError || error instanceof OperationFailed) return error.exit;
  return EXIT.failed;
}

/** One line on standard error, whatever the message holds; the stack where the error is a bug. Returns the exit code. */
export function reportError(error: unknown): number {
  const message = error instanceof Error ? error.message : String(error);
  process.stderr.write(`quarry: ${message.trim().replace(/\s*\n\s*/g, ' ')}\n`);
  const isExpected = error instanceof Failure || error instanceof ApiError || error instanceof OperationFailed;
  if (!isExpected && process.env['QUARRY_DEBUG'] && error instanceof Error) process.stderr.write(`${error.stack}\n`);
  return exitCodeOf(error);
}
