/**
 * By which words a member may filter a list. Administrators may use any; what no object has matches nothing.
 */

export const RESOURCE_FILTERS = {
  volume: [
    'name',
    'status',
    'metadata',
    'bootable',
    'migration_status',
    'availability_zone',
    'group_id',
    'size',
    'created_at',
    'updated_at',
    'consumes_quota',
  ],
  snapshot: ['name', 'status', 'volume_id', 'metadata', 'availability_zone', 'consumes_quota'],
  backup: ['name', 'status', 'volume_id'],
  group: ['name'],
  group_snapshot: ['name', 'status', 'group_id'],
  attachment: ['volume_id', 'status', 'instance_id', 'attach_status'],
  message: ['resource_uuid', 'resource_type', 'event_id', 'request_id', 'message_level'],
  pool: ['name', 'volume_type'],
  volume_type: ['is_public', 'extra_specs'],
} as const satisfies Readonly<Record<string, readonly string[]>>;
export type FilteredResource = keyof typeof RESOURCE_FILTERS;

/** Words that are accepted although `/resource_filters` does not list them. */
export const ALSO_ACCEPTED: Readonly<Partial<Record<FilteredResource, readonly string[]>>> = {
  volume: ['id', 'volume_type_id', 'source_volid', 'snapshot_id', 'glance_metadata', 'host', 'multiattach'],
};
