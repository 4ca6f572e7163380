/**
 * Backups that come from elsewhere or are to go there: records for another catalog, and the repository itself, which
 * alone is enough to have every backup back.
 */
import { Type } from 'typebox';
import { Check } from 'typebox/value';
import { manifestKey, manifestPrefix, parseKey, VOLUMES } from '../backup/keys.ts';
import { Failure } from '../base/errors.ts';
import { findBackup, insertBackup } from '../catalog/backups.ts';
import { mergeMetadata } from '../catalog/details.ts';
import type { BackupRow } from '../catalog/schema.ts';
import type { Manifest } from '../format/backup-manifest.ts';
import { type Backup, getBackup } from './backups.ts';
import { type Control, GIB } from './control.ts';
import type { Caller } from './policy.ts';
import { visibleBackup } from './states.ts';

const SERVICE = 'quarry.backup';
const RecordSchema = Type.Object({
  backup: Type.String({ pattern: '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' }),
  volume: Type.String({ pattern: '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' }),
  repository: Type.String(),
});

export type BackupRecord = { readonly service: string; readonly url: string };

export async function exportRecord(control: Control, caller: Caller, id: string): Promise<BackupRecord> {
  const row = await visibleBackup(control.catalog.reader, caller, id);
  if (row.status !== 'available') {
    const reason = `Invalid backup: Backup status must be available and not ${row.status}.`;
    throw new Failure('wrong_state', { reason });
  }
  const { id: repository } = await control.backups.repository();
  const record = { backup: id, volume: row.volume_id, repository };
  return { service: SERVICE, url: Buffer.from(JSON.stringify(record)).toString('base64') };
}

export async function importRecord(control: Control, caller: Caller, record: BackupRecord): Promise<Backup> {
  const refuse = (why: string) => new Failure('bad_request', { reason: `Invalid input received: ${why}` });
  if (record.service !== SERVICE) throw refuse(`backup_service is '${record.service}', but must be '${SERVICE}'.`);
  let plain: unknown = null;
  try {
    plain = JSON.parse(Buffer.from(record.url, 'base64').toString());
  } catch {
    // Refused below, like any other text that is no record.
  }
  if (!Check(RecordSchema, plain)) throw refuse("Can't parse backup record.");
  const repository = await control.backups.repository();
  if (plain.repository !== repository.id)
    throw refuse(`The record is of repository ${plain.repository}, this is ${repository.id}.`);
  if ((await findBackup(control.catalog.reader, plain.backup)) !== undefined)
    throw refuse(`Backup ${plain.backup} already exists in the catalog.`);
  const manifest = await repository.manifest(plain.volume, plain.backup);
  if (manifest === null) throw refuse(`There is no backup ${plain.backup} in ${control.backups.container}.`);
  const row = await insertFrom(control, manifest, { projectId: caller.projectId, userId: caller.userId });
  if (row === null) throw refuse(`Backup ${plain.backup} already exists in the catalog.`);
  return getBackup(control, caller, row.id);
}

export type Rescan = {
  readonly imported: readonly string[];
  readonly known: number;
  readonly unreadable: readonly string[];
};

/** Brings into the catalog what the repository has and the catalog does not: after the loss of the catalog, everything. */
export async function rescan(control: Control): Promise<Rescan> {
  const repository = await control.backups.repository();
  const imported: string[] = [];
  const unreadable: string[] = [];
  let known = 0;
  for (const volume of await repository.objects.folders(VOLUMES)) {
    for await (const { key } of repository.objects.list(manifestPrefix(volume))) {
      const parsed = parseKey(volume, key);
      if (parsed.kind !== 'manifest') continue;
      if ((await findBackup(control.catalog.reader, parsed.backup)) !== undefined) {
        known += 1;
        continue;
      }
      try {
        const manifest = await repository.manifest(volume, parsed.backup);
        const { project_id: projectId, user_id: userId } = manifest?.about ?? { project_id: '', user_id: '' };
        if (manifest !== null && (await insertFrom(control, manifest, { projectId, userId })) !== null)
          imported.push(parsed.backup);
      } catch (error) {
        if (!(error instanceof Failure && (error.code === 'corrupt' || error.code === 'newer_format'))) throw error;
        control.log.error({ key, reason: error.message }, 'a manifest cannot be read');
        unreadable.push(manifestKey(volume, parsed.backup));
      }
    }
  }
  return { imported, known, unreadable };
}

/** Null when it has come into the catalog meanwhile. */
async function insertFrom(
  control: Control,
  manifest: Manifest,
  owner: { projectId: string; userId: string },
): Promise<BackupRow | null> {
  const { about } = manifest;
  const own = [...manifest.packs, ...manifest.indexes].filter(([, writer]) => writer === manifest.backup);
  return control.catalog.write(async (writer) => {
    if ((await findBackup(writer, manifest.backup)) !== undefined) return null;
    const row = await insertBackup(writer, {
      id: manifest.backup,
      project_id: owner.projectId,
      user_id: owner.userId,
      volume_id: manifest.volume,
      snapshot_id: about.snapshot_id,
      parent_id: manifest.parent,
      name: about.name,
      description: about.description,
      size_gib: Math.ceil(manifest.size_bytes / GIB),
      status: 'available',
      previous_status: null,
      failure: null,
      container: control.backups.container,
      availability_zone: control.settings.availabilityZone,
      object_count: own.length + 1,
      added_bytes: manifest.added_bytes,
      stored_bytes: manifest.stored_bytes,
      root: manifest.root,
      base_id: null,
      verified: null,
      data_timestamp: timeOf(control, manifest.data_timestamp),
      created_at: timeOf(control, manifest.created_at),
      updated_at: null,
    });
    await mergeMetadata(writer, { id: row.id, scope: 'user' }, Object.entries(about.metadata));
    return row;
  });
}

function timeOf(control: Control, text: string): number {
  const milliseconds = Date.parse(text);
  return Number.isNaN(milliseconds) ? control.nowUs() : milliseconds * 1000;
}
