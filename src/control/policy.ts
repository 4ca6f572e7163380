/**
 * Who may do what: the one table of rules, and the one place that refuses. Rules bear Cinder's names, because the
 * refusals quote them and operators know them. Whether an object is visible at all is not decided here: another
 * project's object does not exist for anybody but an administrator.
 */
import { Failure } from '../base/errors.ts';

/** Each includes those before it. */
export type Role = 'reader' | 'member' | 'admin';

/** Who asks. */
export type Caller = {
  readonly projectId: string;
  readonly userId: string;
  readonly role: Role;
  /** `role` is `admin`. */
  readonly isAdmin: boolean;
  /** The request came with a valid service token: another OpenStack service acts for the user. */
  readonly isService: boolean;
};

/** The least role that may. What is not in the table is not a rule: a misspelt one does not compile. */
export const POLICY = {
  'volume_extension:volume_admin_actions:reset_status': 'admin',
  'volume_extension:volume_admin_actions:force_delete': 'admin',
  'volume_extension:snapshot_admin_actions:reset_status': 'admin',
  'volume_extension:snapshot_admin_actions:force_delete': 'admin',
  'volume_extension:quotas:update': 'admin',
} as const satisfies Record<string, Role>;
export type Rule = keyof typeof POLICY;

const RANK: Readonly<Record<Role, number>> = { reader: 0, member: 1, admin: 2 };

export function enforce(caller: Caller, rule: Rule): void {
  if (RANK[caller.role] >= RANK[POLICY[rule]]) return;
  throw new Failure('forbidden', { reason: `Policy doesn't allow ${rule} to be performed.` });
}
