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
  /** Of the request, where there is one. */
  readonly requestId?: string;
};

/** The least role that may. What is not in the table is not a rule: a misspelt one does not compile. */
export const POLICY = {
  'volume:create': 'member',
  'volume:update': 'member',
  'volume:delete': 'member',
  'volume:force_delete': 'admin',
  'volume:create_volume_metadata': 'member',
  'volume:update_volume_metadata': 'member',
  'volume:delete_volume_metadata': 'member',
  'volume:extend': 'member',
  'volume:retype': 'member',
  'volume:reimage': 'member',
  'volume:revert_to_snapshot': 'member',
  'volume:update_readonly_flag': 'member',
  'volume:create_snapshot': 'member',
  'volume:update_snapshot': 'member',
  'volume:delete_snapshot': 'member',
  'volume:update_snapshot_metadata': 'member',
  'volume:delete_snapshot_metadata': 'member',
  'volume_extension:volume_actions:attach': 'member',
  'volume_extension:volume_actions:detach': 'member',
  'volume:attachment_create': 'member',
  'volume:attachment_update': 'member',
  'volume:attachment_complete': 'member',
  'volume:attachment_delete': 'member',
  'volume_extension:volume_actions:reserve': 'member',
  'volume_extension:volume_actions:unreserve': 'member',
  'volume_extension:volume_actions:begin_detaching': 'member',
  'volume_extension:volume_actions:roll_detaching': 'member',
  'volume_extension:volume_actions:upload_image': 'member',
  'volume_extension:volume_image_metadata:set': 'member',
  'volume_extension:volume_image_metadata:show': 'reader',
  'volume_extension:volume_image_metadata:remove': 'member',
  'volume_extension:volume_actions:initialize_connection': 'member',
  'volume_extension:volume_actions:terminate_connection': 'member',
  'volume_extension:volume_admin_actions:force_detach': 'admin',
  'volume_extension:volume_admin_actions:migrate_volume': 'admin',
  'volume_extension:volume_admin_actions:migrate_volume_completion': 'admin',
  'volume_extension:volume_manage': 'admin',
  'volume_extension:volume_unmanage': 'admin',
  'volume_extension:list_manageable': 'admin',
  'snapshot_extension:snapshot_manage': 'admin',
  'snapshot_extension:snapshot_unmanage': 'admin',
  'snapshot_extension:list_manageable': 'admin',
  'snapshot_extension:snapshot_actions:update_snapshot_status': 'member',
  'volume_extension:volume_admin_actions:reset_status': 'admin',
  'volume_extension:volume_admin_actions:force_delete': 'admin',
  'volume_extension:volume_admin_actions:extend_volume_completion': 'admin',
  'volume_extension:snapshot_admin_actions:reset_status': 'admin',
  'volume_extension:snapshot_admin_actions:force_delete': 'admin',
  /** Of the own project; of others only an administrator. */
  'volume_extension:quotas:show': 'reader',
  'volume_extension:backup_admin_actions:reset_status': 'admin',
  'volume_extension:backup_admin_actions:force_delete': 'admin',
  'backup:export-import': 'admin',
  'backup:create': 'member',
  'backup:update': 'member',
  'backup:delete': 'member',
  'backup:restore': 'member',
  'volume_extension:quotas:update': 'admin',
  'volume_extension:quotas:delete': 'admin',
  'volume_extension:quota_classes:get': 'admin',
  'volume_extension:quota_classes:update': 'admin',
  'volume_extension:type_create': 'admin',
  'volume_extension:type_update': 'admin',
  'volume_extension:type_delete': 'admin',
  'volume_extension:access_types_qos_specs_id': 'admin',
  'volume_extension:types_extra_specs:read_sensitive': 'admin',
  'volume_extension:types_extra_specs:create': 'admin',
  'volume_extension:types_extra_specs:update': 'admin',
  'volume_extension:types_extra_specs:delete': 'admin',
  'volume_extension:volume_type_access:addProjectAccess': 'admin',
  'volume_extension:volume_type_access:removeProjectAccess': 'admin',
  'volume_extension:volume_type_access:get_all_for_type': 'admin',
  'volume_extension:volume_type_encryption:create': 'admin',
  'volume_extension:volume_type_encryption:get': 'admin',
  'volume_extension:volume_type_encryption:update': 'admin',
  'volume_extension:volume_type_encryption:delete': 'admin',
  'volume_extension:default_set_or_update': 'admin',
  'volume_extension:default_get': 'admin',
  'volume_extension:default_get_all': 'admin',
  'volume_extension:default_unset': 'admin',
  'volume_extension:qos_specs_manage:create': 'admin',
  'volume_extension:qos_specs_manage:get': 'admin',
  'volume_extension:qos_specs_manage:get_all': 'admin',
  'volume_extension:qos_specs_manage:update': 'admin',
  'volume_extension:qos_specs_manage:delete': 'admin',
  'volume_extension:services:index': 'admin',
  'volume_extension:services:update': 'admin',
  'volume:freeze_host': 'admin',
  'volume:thaw_host': 'admin',
  'volume:failover_host': 'admin',
  'scheduler_extension:scheduler_stats:get_pools': 'admin',
  'volume_extension:capabilities': 'admin',
  'volume_extension:hosts': 'admin',
  'clusters:get_all': 'admin',
  'workers:cleanup': 'admin',
  /** Ours: they show what belongs to no project. */
  'quarry:status': 'admin',
  'quarry:scrub': 'admin',
  'quarry:metrics': 'admin',
  'quarry:backup_schedules:get': 'reader',
  'quarry:backup_schedules:change': 'member',
  'volume:create_transfer': 'member',
  'volume:get_transfer': 'reader',
  'volume:get_all_transfers': 'reader',
  'volume:delete_transfer': 'member',
  'volume:accept_transfer': 'member',
  'group:create': 'member',
  'group:update': 'member',
  'group:get': 'reader',
  'group:get_all': 'reader',
  'group:delete': 'member',
  'group:reset_status': 'admin',
  'group:group_project_attribute': 'admin',
  'group:create_group_snapshot': 'member',
  'group:delete_group_snapshot': 'member',
  'group:get_group_snapshot': 'reader',
  'group:get_all_group_snapshots': 'reader',
  'group:reset_group_snapshot_status': 'admin',
  'group:group_snapshot_project_attribute': 'admin',
  'group:group_types:create': 'admin',
  'group:group_types:update': 'admin',
  'group:group_types:delete': 'admin',
  'group:group_types_specs:get': 'admin',
  'group:group_types_specs:get_all': 'admin',
  'group:group_types_specs:create': 'admin',
  'group:group_types_specs:update': 'admin',
  'group:group_types_specs:delete': 'admin',
  'message:get_all': 'reader',
  'message:get': 'reader',
  'message:delete': 'member',
} as const satisfies Record<string, Role>;
export type Rule = keyof typeof POLICY;

const RANK: Readonly<Record<Role, number>> = { reader: 0, member: 1, admin: 2 };

export function isAllowed(caller: Caller, role: Role): boolean {
  return RANK[caller.role] >= RANK[role];
}

/** For what is answered with less instead of being refused. */
export function may(caller: Caller, rule: Rule): boolean {
  return isAllowed(caller, POLICY[rule]);
}

export function enforce(caller: Caller, rule: Rule): void {
  if (!isAllowed(caller, POLICY[rule])) throw refusal(rule);
}

/** For what belongs to a project as a whole: another's is for administrators only. */
export function enforceInProject(caller: Caller, rule: Rule, projectId: string): void {
  enforce(caller, rule);
  if (!caller.isAdmin && caller.projectId !== projectId) throw refusal(rule);
}

/** `what` is a rule, or what was asked for where no rule has a name of its own. */
export function refusal(what: string): Failure {
  return new Failure('forbidden', { reason: `Policy doesn't allow ${what} to be performed.` });
}
