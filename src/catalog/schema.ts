/**
 * The rows of the catalog: what users see. Booleans are 0 or 1, times are microseconds since 1970, sizes of volumes and
 * snapshots are GiB, what is JSON says so. No rule about volumes is here; those are in `control`.
 */
import type { Insertable, Kysely, Selectable, Transaction } from 'kysely';

type VolumeTable = {
  id: string;
  project_id: string;
  user_id: string;
  name: string | null;
  description: string | null;
  size_gib: number;
  /** Set while an extension is under way: what is charged against the quota. */
  target_size_gib: number | null;
  status: string;
  /** The status to go back to when the work under way ends. */
  previous_status: string | null;
  /** Why the last work on it failed. */
  failure: string | null;
  availability_zone: string;
  type_id: string;
  snapshot_id: string | null;
  source_volume_id: string | null;
  bootable: number;
  /** Null until somebody set it. */
  read_only: number | null;
  /** Comes from the type: it may have several attachments. */
  multiattach: number;
  created_at: number;
  updated_at: number | null;
  group_id: string | null;
};

type SnapshotTable = {
  id: string;
  project_id: string;
  user_id: string;
  volume_id: string;
  type_id: string;
  name: string | null;
  description: string | null;
  size_gib: number;
  status: string;
  previous_status: string | null;
  failure: string | null;
  progress: string;
  availability_zone: string;
  created_at: number;
  updated_at: number | null;
  /** Set: it is part of a snapshot of a group and goes with that. */
  group_snapshot_id: string | null;
};

type MetadataTable = {
  owner_id: string;
  /** `user` is what users set; `image` is what Cinder calls image metadata. */
  scope: 'user' | 'image';
  key: string;
  value: string;
};

type AttachmentTable = {
  id: string;
  volume_id: string;
  project_id: string;
  instance_id: string | null;
  host_name: string | null;
  device: string | null;
  /** `rw`, `ro`, or the word `null` until it is decided. */
  mode: string;
  status: string;
  attached_at: number | null;
  created_at: number;
  updated_at: number | null;
};

/** An export of a volume under a name that only its attachment tells. */
type ConnectionTable = {
  name: string;
  volume_id: string;
  /** Null: made by the old way, in which the attachment comes afterwards. */
  attachment_id: string | null;
  host: string;
  /** JSON object: what the client said of itself. */
  connector: string;
  read_only: number;
  created_at: number;
};

type TypeTable = {
  id: string;
  name: string;
  description: string | null;
  is_public: number;
  qos_spec_id: string | null;
  created_at: number;
  updated_at: number | null;
};

type TypeExtraSpecTable = { type_id: string; key: string; value: string };

/** Projects that may use a private type. */
type TypeAccessTable = { type_id: string; project_id: string };

type TypeEncryptionTable = {
  type_id: string;
  encryption_id: string;
  provider: string;
  control_location: string;
  cipher: string | null;
  key_size: number | null;
  created_at: number;
  updated_at: number | null;
};

type DefaultTypeTable = { project_id: string; type_id: string };

type QosSpecTable = {
  id: string;
  name: string;
  consumer: string;
  created_at: number;
  updated_at: number | null;
};

type QosSpecValueTable = { spec_id: string; key: string; value: string };

/** What an administrator said of a service; one without a row was never spoken of. */
type ServiceTable = {
  binary: string;
  host: string;
  disabled: number;
  disabled_reason: string | null;
  frozen: number;
  updated_at: number;
};

type QuotaTable = {
  /** A project's own limits, or those of a class (`default`: for every project without its own). */
  scope: 'project' | 'class';
  scope_id: string;
  resource: string;
  hard_limit: number;
};

type TaskTable = {
  id: string;
  kind: string;
  /** JSON; its shape is the kind's. */
  args: string;
  /** JSON, or null at the beginning. */
  cursor: string | null;
  attempts: number;
  state: 'running' | 'failed';
  failure: string | null;
  /** The object it works on. */
  subject: string;
  /** Order of acceptance, also across restarts. */
  created_at: number;
  updated_at: number;
  /** The request that asked for it. */
  request_id: string | null;
};

type MessageTable = {
  id: string;
  project_id: string;
  request_id: string | null;
  event_id: string;
  user_message: string;
  message_level: 'ERROR' | 'WARNING' | 'INFO';
  resource_type: string;
  resource_uuid: string;
  created_at: number;
  expires_at: number;
};

type TransferTable = {
  id: string;
  /** Of the donor. */
  project_id: string;
  volume_id: string;
  name: string | null;
  salt: string;
  /** The key itself is nowhere. */
  key_hash: string;
  no_snapshots: number;
  created_at: number;
};

type GroupTypeTable = {
  id: string;
  name: string;
  description: string | null;
  is_public: number;
  /** JSON object of strings. */
  group_specs: string;
  created_at: number;
  updated_at: number | null;
};

type GroupTable = {
  id: string;
  project_id: string;
  user_id: string;
  name: string | null;
  description: string | null;
  status: string;
  previous_status: string | null;
  failure: string | null;
  availability_zone: string;
  group_type_id: string;
  /** What it was made from. */
  group_snapshot_id: string | null;
  source_group_id: string | null;
  created_at: number;
  updated_at: number | null;
};

/** Which volume types a group takes. */
type GroupVolumeTypeTable = { group_id: string; type_id: string };

type GroupSnapshotTable = {
  id: string;
  project_id: string;
  user_id: string;
  group_id: string;
  group_type_id: string;
  name: string | null;
  description: string | null;
  status: string;
  previous_status: string | null;
  failure: string | null;
  created_at: number;
  updated_at: number | null;
};

type BackupTable = {
  id: string;
  project_id: string;
  user_id: string;
  /** May be gone by now. */
  volume_id: string;
  /** The snapshot a user had it made from. */
  snapshot_id: string | null;
  /** The backup it was made as a change of. */
  parent_id: string | null;
  name: string | null;
  description: string | null;
  size_gib: number;
  status: string;
  previous_status: string | null;
  failure: string | null;
  container: string | null;
  availability_zone: string;
  object_count: number;
  added_bytes: number;
  stored_bytes: number;
  /** The hash of its contents, as its manifest has it. */
  root: string | null;
  /** The backend's snapshot that is kept so that the next backup knows what changed; no user sees it. */
  base_id: string | null;
  /** JSON: the report of the last verification. */
  verified: string | null;
  data_timestamp: number;
  created_at: number;
  updated_at: number | null;
  /** The schedule that had it made, while there is that schedule. */
  schedule_id: string | null;
};

type BackupScheduleTable = {
  id: string;
  project_id: string;
  /** In whose name its backups are made. */
  user_id: string;
  name: string;
  /** One volume, or all volumes of a type that the project has. */
  volume_id: string | null;
  type_id: string | null;
  is_enabled: number;
  frequency: 'hourly' | 'daily' | 'weekly' | 'monthly';
  minute: number;
  hour: number;
  weekday: number;
  month_day: number;
  /** Every so many backups of a volume is a full one; 0: only the first. */
  full_every: number;
  keep_last: number;
  keep_hourly: number;
  keep_daily: number;
  keep_weekly: number;
  keep_monthly: number;
  /** When it is due. */
  next_at: number;
  last_at: number | null;
  /** Why its last run did not begin everything it should have. */
  last_failure: string | null;
  created_at: number;
  updated_at: number | null;
};

type FillTable = {
  volume_id: string;
  backup_id: string;
  /** The volume that the backup was made of. */
  source_volume_id: string;
  /** JSON: pairs of offset and length where something may come. Null: not known yet. */
  ranges: string | null;
  /** As stored. */
  total_bytes: number;
  /** Why it does not get on. */
  failure: string | null;
  created_at: number;
};

type AppliedMigrationTable = { name: string; applied_at: number };

export type Schema = {
  volumes: VolumeTable;
  snapshots: SnapshotTable;
  metadata: MetadataTable;
  attachments: AttachmentTable;
  connections: ConnectionTable;
  types: TypeTable;
  type_extra_specs: TypeExtraSpecTable;
  type_access: TypeAccessTable;
  type_encryption: TypeEncryptionTable;
  default_types: DefaultTypeTable;
  qos_specs: QosSpecTable;
  qos_spec_values: QosSpecValueTable;
  services: ServiceTable;
  quotas: QuotaTable;
  tasks: TaskTable;
  backups: BackupTable;
  backup_schedules: BackupScheduleTable;
  fills: FillTable;
  applied_migrations: AppliedMigrationTable;
  messages: MessageTable;
  transfers: TransferTable;
  group_types: GroupTypeTable;
  groups: GroupTable;
  group_volume_types: GroupVolumeTypeTable;
  group_snapshots: GroupSnapshotTable;
};

export type VolumeRow = Readonly<Selectable<VolumeTable>>;
export type SnapshotRow = Readonly<Selectable<SnapshotTable>>;
export type AttachmentRow = Readonly<Selectable<AttachmentTable>>;
export type ConnectionRow = Readonly<Selectable<ConnectionTable>>;
export type TypeRow = Readonly<Selectable<TypeTable>>;
export type TypeEncryptionRow = Readonly<Selectable<TypeEncryptionTable>>;
export type DefaultTypeRow = Readonly<Selectable<DefaultTypeTable>>;
export type QosSpecRow = Readonly<Selectable<QosSpecTable>>;
export type ServiceRow = Readonly<Selectable<ServiceTable>>;
export type TaskRow = Readonly<Selectable<TaskTable>>;
export type MessageRow = Readonly<Selectable<MessageTable>>;
export type TransferRow = Readonly<Selectable<TransferTable>>;
export type GroupTypeRow = Readonly<Selectable<GroupTypeTable>>;
export type GroupRow = Readonly<Selectable<GroupTable>>;
export type GroupSnapshotRow = Readonly<Selectable<GroupSnapshotTable>>;
export type BackupScheduleRow = Readonly<Selectable<BackupScheduleTable>>;
export type BackupRow = Readonly<Selectable<BackupTable>>;
export type FillRow = Readonly<Selectable<FillTable>>;
export type NewBackupRow = Readonly<Insertable<BackupTable>>;
export type NewVolumeRow = Readonly<Insertable<VolumeTable>>;
export type NewSnapshotRow = Readonly<Insertable<SnapshotTable>>;

/** Where rows can be read: the catalog as committed, or as a write under way sees it. */
export type Reader = Kysely<Schema>;
/** Where rows can be changed: inside one write. */
export type Writer = Transaction<Schema>;
