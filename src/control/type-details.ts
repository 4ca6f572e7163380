/**
 * What hangs on a volume type: extra specs, the projects that may use a private one, an encryption record, and which
 * type is a project's default.
 */
import { Failure } from '../base/errors.ts';
import type { DefaultTypeRow, Reader, TypeEncryptionRow, Writer } from '../catalog/schema.ts';
import {
  type EncryptionChanges,
  findDefaultType,
  findEncryption,
  hasAccess,
  insertAccess,
  insertEncryption,
  isTypeInUse,
  listDefaultTypes,
  mergeExtraSpecs,
  projectsWithAccess,
  removeAccess,
  removeDefaultType,
  removeEncryption,
  removeExtraSpec,
  setDefaultType as setRow,
  updateEncryption as updateEncryptionRow,
} from '../catalog/types.ts';
import type { Control } from './control.ts';
import { type Caller, enforce } from './policy.ts';
import { IS_TRUE, requireType, type Specs, specsOf, visibleType } from './types.ts';

export const EXTRA_SPECS_MAX = 256;

export async function setExtraSpecs(
  control: Control,
  caller: Caller,
  { id, specs, as }: { id: string; specs: Specs; as: 'create' | 'update' },
): Promise<void> {
  enforce(caller, `volume_extension:types_extra_specs:${as}`);
  await control.catalog.write(async (writer) => {
    await visibleType(writer, caller, id);
    await refuseUsed(writer, id);
    const all = { ...(await specsOf(writer, id)), ...specs };
    if (all['multiattach'] === IS_TRUE && all['cacheable'] === IS_TRUE)
      throw new Failure('bad_request', { reason: 'cacheable cannot be set with multiattach.' });
    const count = Object.keys(all).length;
    if (count > EXTRA_SPECS_MAX) {
      const reason = `Invalid input received: ${count} extra specs, but at most ${EXTRA_SPECS_MAX} are allowed.`;
      throw new Failure('bad_request', { reason });
    }
    await mergeExtraSpecs(writer, id, Object.entries(specs));
  });
}

export async function deleteExtraSpec(
  control: Control,
  caller: Caller,
  { id, key }: { id: string; key: string },
): Promise<void> {
  enforce(caller, 'volume_extension:types_extra_specs:delete');
  await control.catalog.write(async (writer) => {
    await visibleType(writer, caller, id);
    await refuseUsed(writer, id);
    if (!(await removeExtraSpec(writer, id, key))) throw missingSpec(id, key);
  });
}

export function missingSpec(id: string, key: string): Failure {
  return new Failure('not_found', { kind: `Volume Type ${id} extra spec`, id: key });
}

/** A volume was placed by what its type said then. */
async function refuseUsed(reader: Reader, id: string): Promise<void> {
  if (!(await isTypeInUse(reader, id, 'volumes'))) return;
  throw new Failure('bad_request', { reason: `Volume Type is currently in use. (There are volumes of type ${id}.)` });
}

export async function accessOf(control: Control, caller: Caller, id: string): Promise<readonly string[]> {
  enforce(caller, 'volume_extension:volume_type_access:get_all_for_type');
  const { reader } = control.catalog;
  const row = await visibleType(reader, caller, id);
  if (row.is_public === 1) throw new Failure('not_found', { kind: 'Access list of the public volume type', id });
  return projectsWithAccess(reader, id);
}

export async function addAccess(
  control: Control,
  caller: Caller,
  access: { typeId: string; projectId: string },
): Promise<void> {
  enforce(caller, 'volume_extension:volume_type_access:addProjectAccess');
  await control.catalog.write(async (writer) => {
    await requirePrivate(writer, caller, access.typeId);
    if (await hasAccess(writer, access)) {
      const reason = `Volume type access for ${access.typeId} / ${access.projectId} combination already exists.`;
      throw new Failure('conflict', { reason });
    }
    await insertAccess(writer, access);
  });
}

export async function withdrawAccess(
  control: Control,
  caller: Caller,
  access: { typeId: string; projectId: string },
): Promise<void> {
  enforce(caller, 'volume_extension:volume_type_access:removeProjectAccess');
  await control.catalog.write(async (writer) => {
    await requirePrivate(writer, caller, access.typeId);
    if (!(await hasAccess(writer, access)))
      throw new Failure('not_found', {
        kind: 'Volume type access for',
        id: `${access.typeId} / ${access.projectId} combination`,
      });
    await removeAccess(writer, access);
  });
}

async function requirePrivate(writer: Writer, caller: Caller, id: string): Promise<void> {
  const row = await visibleType(writer, caller, id);
  if (row.is_public === 0) return;
  const reason = `Invalid volume type: Type access modification is not applicable to public volume type ${id}.`;
  throw new Failure('bad_request', { reason });
}

export type NewEncryption = Pick<TypeEncryptionRow, 'provider' | 'control_location' | 'cipher' | 'key_size'>;

export async function encryptionOf(control: Control, caller: Caller, id: string): Promise<TypeEncryptionRow | null> {
  enforce(caller, 'volume_extension:volume_type_encryption:get');
  const { reader } = control.catalog;
  await visibleType(reader, caller, id);
  return (await findEncryption(reader, id)) ?? null;
}

export async function createEncryption(
  control: Control,
  caller: Caller,
  { id, encryption }: { id: string; encryption: NewEncryption },
): Promise<TypeEncryptionRow> {
  enforce(caller, 'volume_extension:volume_type_encryption:create');
  return control.catalog.write(async (writer) => {
    await visibleType(writer, caller, id);
    await refuseUsedFor(writer, id, 'create');
    if ((await findEncryption(writer, id)) !== undefined)
      throw new Failure('bad_request', { reason: `Volume type encryption for type ${id} already exists.` });
    const row: TypeEncryptionRow = {
      type_id: id,
      encryption_id: control.newId(),
      ...encryption,
      created_at: control.nowUs(),
      updated_at: null,
    };
    await insertEncryption(writer, row);
    return row;
  });
}

export async function updateEncryption(
  control: Control,
  caller: Caller,
  { id, encryptionId, changes }: { id: string; encryptionId: string; changes: EncryptionChanges },
): Promise<void> {
  enforce(caller, 'volume_extension:volume_type_encryption:update');
  await control.catalog.write(async (writer) => {
    await visibleType(writer, caller, id);
    await refuseUsedFor(writer, id, 'update');
    await requireEncryption(writer, id, encryptionId);
    await updateEncryptionRow(writer, id, { ...changes, updated_at: control.nowUs() });
  });
}

export async function deleteEncryption(
  control: Control,
  caller: Caller,
  { id, encryptionId }: { id: string; encryptionId: string },
): Promise<void> {
  enforce(caller, 'volume_extension:volume_type_encryption:delete');
  await control.catalog.write(async (writer) => {
    await visibleType(writer, caller, id);
    await refuseUsedFor(writer, id, 'delete');
    await requireEncryption(writer, id, encryptionId);
    await removeEncryption(writer, id);
  });
}

/** Clients that never asked for the id name the provider instead, or, as cinderclient does, write `provider`. */
async function requireEncryption(reader: Reader, id: string, named: string): Promise<void> {
  const row = await findEncryption(reader, id);
  if (row !== undefined && [row.encryption_id, row.provider, 'provider'].includes(named)) return;
  throw new Failure('not_found', { kind: `Volume type encryption of type ${id}:`, id: named });
}

async function refuseUsedFor(reader: Reader, id: string, verb: 'create' | 'update' | 'delete'): Promise<void> {
  if (!(await isTypeInUse(reader, id, 'volumes'))) return;
  throw new Failure('bad_request', { reason: `Cannot ${verb} encryption specs. Volume type in use.` });
}

export async function defaultTypes(control: Control, caller: Caller): Promise<DefaultTypeRow[]> {
  enforce(caller, 'volume_extension:default_get_all');
  return listDefaultTypes(control.catalog.reader);
}

export async function getDefaultType(control: Control, caller: Caller, projectId: string): Promise<DefaultTypeRow> {
  enforce(caller, 'volume_extension:default_get');
  const row = await findDefaultType(control.catalog.reader, projectId);
  if (row === undefined) throw new Failure('not_found', { kind: 'Default type for project', id: projectId });
  return row;
}

export async function setDefaultType(
  control: Control,
  caller: Caller,
  { projectId, type }: { projectId: string; type: string },
): Promise<DefaultTypeRow> {
  enforce(caller, 'volume_extension:default_set_or_update');
  return control.catalog.write(async (writer) => {
    const found = await requireType(writer, type).catch((error: unknown) => {
      // Here it is a value of the body that is wrong, not the path.
      if (error instanceof Failure) throw new Failure('bad_request', { reason: error.message });
      throw error;
    });
    const row = { project_id: projectId, type_id: found.id };
    await setRow(writer, row);
    return row;
  });
}

export async function unsetDefaultType(control: Control, caller: Caller, projectId: string): Promise<void> {
  enforce(caller, 'volume_extension:default_unset');
  await control.catalog.write((writer) => removeDefaultType(writer, projectId));
}
