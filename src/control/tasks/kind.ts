/**
 * What a kind of task consists of. Its name and the shape of its arguments are kept in the catalog and must go on
 * being readable; its steps are idempotent, because a crash after any of them repeats them.
 */
import type { Static, TSchema } from 'typebox';
import { Check } from 'typebox/value';
import type { FailureCode } from '../../base/errors.ts';
import type { Writer } from '../../catalog/schema.ts';
import type { Control } from '../control.ts';

/** What a task changes, and what it needs to stay as it is; never the same id in both. */
export type Locks = { readonly writes: readonly string[]; readonly reads: readonly string[] };

export interface TaskKind<Args = unknown> {
  /** It moves the bytes of a whole volume: few of those run at a time, and none keeps a short task waiting. */
  readonly isLong: boolean;
  decode(plain: unknown): Args;
  locks(args: Args): Locks;
  /** The work outside the catalog. */
  run(control: Control, args: Args): Promise<void>;
  /** Its end in the catalog, in the commit that removes the task. */
  done(control: Control, writer: Writer, args: Args): Promise<void>;
  /** Without a code it failed for a reason nobody thought of. */
  failed(
    control: Control,
    writer: Writer,
    args: Args,
    reason: string,
    requestId: string | null,
    code: FailureCode | null,
  ): Promise<void>;
  /** What follows from the end and is repeated at every start anyway. */
  after(control: Control, args: Args): Promise<void>;
}

/** A kind whose arguments have this shape. Erases the shape, so that all kinds fit one table. */
export function taskKind<Schema extends TSchema>(
  schema: Schema,
  kind: Omit<TaskKind<Static<Schema>>, 'decode' | 'isLong'> & { readonly isLong?: boolean },
): TaskKind {
  const decoded = (plain: unknown): Static<Schema> => {
    if (!Check(schema, plain))
      throw new Error(`a task's arguments are not what this version writes: ${JSON.stringify(plain)}`);
    return plain;
  };
  return {
    isLong: kind.isLong === true,
    decode: decoded,
    locks: (args) => kind.locks(decoded(args)),
    run: (control, args) => kind.run(control, decoded(args)),
    done: (control, writer, args) => kind.done(control, writer, decoded(args)),
    failed: (control, writer, args, reason, requestId, code) =>
      kind.failed(control, writer, decoded(args), reason, requestId, code),
    after: (control, args) => kind.after(control, decoded(args)),
  };
}
