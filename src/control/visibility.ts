/**
 * Which rows exist for whom: those of the caller's project, and all for an administrator. What is another project's is
 * as good as absent, so that its existence is not told.
 */
import { Failure } from '../base/errors.ts';
import type { Caller } from './policy.ts';

type Owned = { readonly project_id: string };

export function isVisible<Row extends Owned>(caller: Caller, row: Row | undefined): row is Row {
  return row !== undefined && (caller.isAdmin || row.project_id === caller.projectId);
}

export function requireVisible<Row extends Owned>(
  caller: Caller,
  row: Row | undefined,
  about: { kind: string; id: string },
): Row {
  if (isVisible(caller, row)) return row;
  throw new Failure('not_found', about);
}
