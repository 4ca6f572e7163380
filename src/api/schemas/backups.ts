/** The shapes of bodies about backups. */
import { Type } from 'typebox';
import { DEPTHS, type Depth } from '../../backup/verify.ts';
import { Boolish, closed, Description, Id, IdOrNull, MetadataOrNull, Name, oneOf } from '../schemas.ts';

const METADATA_SINCE = 43;
const ZONE_SINCE = 51;

const CREATE = {
  volume_id: Id,
  name: Type.Optional(Name),
  description: Type.Optional(Description),
  container: Type.Optional(Name),
  incremental: Type.Optional(Boolish),
  force: Type.Optional(Boolish),
  snapshot_id: Type.Optional(IdOrNull),
};
const metadata = Type.Optional(MetadataOrNull);
const availability_zone = Type.Optional(Name);
/** By microversion: 3.43 brought metadata, 3.51 the zone. */
export const CREATE_BACKUP_FORMS = [
  closed({ backup: closed(CREATE) }),
  closed({ backup: closed({ ...CREATE, metadata }) }),
  closed({ backup: closed({ ...CREATE, metadata, availability_zone }) }),
] as const;

/** With the fields that the microversion has. */
export function createBackupSchema(minor: number): (typeof CREATE_BACKUP_FORMS)[2] {
  // The smaller forms lack optional fields only: their values are values of the largest.
  if (minor < METADATA_SINCE) return CREATE_BACKUP_FORMS[0] as unknown as (typeof CREATE_BACKUP_FORMS)[2];
  return minor < ZONE_SINCE
    ? (CREATE_BACKUP_FORMS[1] as unknown as (typeof CREATE_BACKUP_FORMS)[2])
    : CREATE_BACKUP_FORMS[2];
}

const UPDATE = { name: Type.Optional(Name), description: Type.Optional(Description) };
const ONE_AT_LEAST = { additionalProperties: false, minProperties: 1 } as const;
const UpdateBackupBefore43 = closed({ backup: Type.Object(UPDATE, ONE_AT_LEAST) });
export const UpdateBackup = closed({ backup: Type.Object({ ...UPDATE, metadata }, ONE_AT_LEAST) });

export function updateBackupSchema(minor: number): typeof UpdateBackup {
  return minor < METADATA_SINCE ? (UpdateBackupBefore43 as unknown as typeof UpdateBackup) : UpdateBackup;
}

export const RestoreBackup = closed({
  restore: closed({ volume_id: Type.Optional(IdOrNull), name: Type.Optional(Name) }),
});

/** With a word of our own: served at once, filled meanwhile. */
export const RestoreOwn = closed({
  restore: closed({
    volume_id: Type.Optional(IdOrNull),
    name: Type.Optional(Name),
    instant: Type.Optional(Type.Boolean()),
  }),
});

const Text = Type.Unsafe<string>({ type: 'string', minLength: 1, maxLength: 4096 });
export const BackupRecord = closed({ 'backup-record': closed({ backup_service: Text, backup_url: Text }) });

/** What an administrator may say of a backup: the other statuses belong to work under way. */
export const ResetBackup = closed({ status: oneOf(['available', 'error']) });

export const VerifyBackup = closed({ depth: Type.Optional(Type.Unsafe<Depth>({ enum: [...DEPTHS] })) });

/** Of what takes nothing. */
export const NoFields = closed({});
