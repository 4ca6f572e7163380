/**
 * Volume types: who sees them, and how they are made, changed and removed. One always exists, so that no volume is
 * without. What hangs on a type (extra specs, access, encryption) is in type-details.ts.
 */
import { Failure } from '../base/errors.ts';
import { forgetLimits, renameLimits } from '../catalog/quotas.ts';
import type { Reader, TypeRow, Writer } from '../catalog/schema.ts';
import {
  extraSpecsOf,
  findDefaultType,
  findType,
  findTypeNamed,
  hasAccess,
  insertType,
  isDefaultOfProjects,
  isTypeInUse,
  listTypes,
  mergeExtraSpecs,
  removeType,
  typesSharedWith,
  updateType as updateRow,
} from '../catalog/types.ts';
import type { Control } from './control.ts';
import { type Caller, enforce } from './policy.ts';
import { resourcesOfType } from './quotas.ts';

export const DEFAULT_TYPE_NAME = '__DEFAULT__';

export type Specs = Readonly<Record<string, string>>;

export type VolumeType = {
  readonly id: string;
  readonly name: string;
  readonly description: string | null;
  readonly isPublic: boolean;
  readonly extraSpecs: Specs;
  readonly qosSpecId: string | null;
  readonly createdAt: number;
  readonly updatedAt: number | null;
};

export async function ensureDefaultType(control: Control): Promise<void> {
  if ((await findTypeNamed(control.catalog.reader, DEFAULT_TYPE_NAME)) !== undefined) return;
  await control.catalog.write(async (writer) => {
    if ((await findTypeNamed(writer, DEFAULT_TYPE_NAME)) !== undefined) return;
    await insertType(writer, {
      id: control.newId(),
      name: DEFAULT_TYPE_NAME,
      description: 'Default Volume Type',
      is_public: 1,
      qos_spec_id: null,
      created_at: control.nowUs(),
      updated_at: null,
    });
  });
}

/** Those that a caller may use: public ones, those shared with the project, and for an administrator all. */
export async function allTypes(control: Control, caller: Caller): Promise<VolumeType[]> {
  const { reader } = control.catalog;
  const specs = new Map<string, [string, string][]>();
  for (const { type_id, key, value } of await extraSpecsOf(reader, null))
    specs.set(type_id, [...(specs.get(type_id) ?? []), [key, value]]);
  const shared = await typesSharedWith(reader, caller.projectId);
  const rows = await listTypes(reader);
  return rows
    .filter((row) => caller.isAdmin || row.is_public === 1 || shared.has(row.id))
    .map((row) => typeOf(row, Object.fromEntries(specs.get(row.id) ?? [])));
}

/** The ids of private types that a project may use. */
export async function sharedTypes(control: Control, projectId: string): Promise<ReadonlySet<string>> {
  return typesSharedWith(control.catalog.reader, projectId);
}

export async function getType(control: Control, caller: Caller, id: string): Promise<VolumeType> {
  const { reader } = control.catalog;
  return withSpecs(reader, await visibleType(reader, caller, id));
}

export async function withSpecs(reader: Reader, row: TypeRow): Promise<VolumeType> {
  return typeOf(row, await specsOf(reader, row.id));
}

export async function specsOf(reader: Reader, typeId: string): Promise<Specs> {
  const specs = await extraSpecsOf(reader, typeId);
  return Object.fromEntries(specs.map(({ key, value }) => [key, value]));
}

/** An extra spec is true when it says this. */
export const IS_TRUE = '<is> True';

/** Whether its volumes may have several attachments. */
export async function isMultiattach(reader: Reader, type: Pick<TypeRow, 'id'>): Promise<boolean> {
  return (await specsOf(reader, type.id))['multiattach'] === IS_TRUE;
}

export async function visibleType(reader: Reader, caller: Caller, id: string): Promise<TypeRow> {
  const row = await findType(reader, id);
  if (row === undefined || !(await mayUse(reader, caller, row)))
    throw new Failure('not_found', { kind: 'Volume type', id });
  return row;
}

async function mayUse(reader: Reader, caller: Caller, row: TypeRow): Promise<boolean> {
  if (caller.isAdmin || row.is_public === 1) return true;
  return hasAccess(reader, { typeId: row.id, projectId: caller.projectId });
}

export async function defaultType(reader: Reader): Promise<TypeRow> {
  const row = await findTypeNamed(reader, DEFAULT_TYPE_NAME);
  if (row === undefined) throw new Error(`the type ${DEFAULT_TYPE_NAME} is missing`);
  return row;
}

/** The project's own default where it has one. */
export async function defaultTypeOf(reader: Reader, projectId: string): Promise<TypeRow> {
  const own = await findDefaultType(reader, projectId);
  const row = own === undefined ? undefined : await findType(reader, own.type_id);
  return row ?? defaultType(reader);
}

/** By name or id. */
export async function requireType(reader: Reader, nameOrId: string): Promise<TypeRow> {
  const row = (await findType(reader, nameOrId)) ?? (await findTypeNamed(reader, nameOrId));
  if (row === undefined) throw new Failure('not_found', { kind: 'Volume type with name', id: nameOrId });
  return row;
}

/** By name or id; one that the caller may not use does not exist for him. */
export async function requireUsableType(reader: Reader, caller: Caller, nameOrId: string): Promise<TypeRow> {
  const row = await requireType(reader, nameOrId);
  if (await mayUse(reader, caller, row)) return row;
  throw new Failure('not_found', { kind: 'Volume type with name', id: nameOrId });
}

function typeOf(row: TypeRow, extraSpecs: Specs): VolumeType {
  return {
    id: row.id,
    name: row.name,
    description: row.description,
    isPublic: row.is_public === 1,
    extraSpecs,
    qosSpecId: row.qos_spec_id,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}

export type NewType = {
  readonly name: string;
  readonly description: string | null;
  readonly isPublic: boolean;
  readonly extraSpecs: Specs;
};

export async function createType(control: Control, caller: Caller, wanted: NewType): Promise<VolumeType> {
  enforce(caller, 'volume_extension:type_create');
  const name = requireName(wanted.name);
  return control.catalog.write(async (writer) => {
    await refuseTaken(writer, name, null);
    const row: TypeRow = {
      id: control.newId(),
      name,
      description: wanted.description,
      is_public: wanted.isPublic ? 1 : 0,
      qos_spec_id: null,
      created_at: control.nowUs(),
      updated_at: null,
    };
    await insertType(writer, row);
    await mergeExtraSpecs(writer, row.id, Object.entries(wanted.extraSpecs));
    return withSpecs(writer, row);
  });
}

export type TypeUpdate = {
  readonly name: string | null;
  readonly description: string | null;
  readonly isPublic: boolean | null;
};

/** Null is: as it is. */
export async function updateType(
  control: Control,
  caller: Caller,
  { id, update }: { id: string; update: TypeUpdate },
): Promise<VolumeType> {
  enforce(caller, 'volume_extension:type_update');
  const { description, isPublic } = update;
  const name = update.name === null ? null : requireName(update.name);
  if (name === null && description === null && isPublic === null) {
    const reason = 'Specify volume type name, description, is_public or a combination thereof.';
    throw new Failure('bad_request', { reason });
  }
  return control.catalog.write(async (writer) => {
    const row = await visibleType(writer, caller, id);
    if (name !== null && name !== row.name) await rename(writer, row, name);
    await updateRow(writer, id, {
      ...(description !== null && { description }),
      ...(isPublic !== null && { is_public: isPublic ? 1 : 0 }),
      updated_at: control.nowUs(),
    });
    return withSpecs(writer, await visibleType(writer, caller, id));
  });
}

/** The limits of the type follow its name. */
async function rename(writer: Writer, row: TypeRow, name: string): Promise<void> {
  if (row.name === DEFAULT_TYPE_NAME) {
    const reason = `Invalid input received: The volume type ${DEFAULT_TYPE_NAME} cannot be renamed: volumes without a type get it by its name.`;
    throw new Failure('bad_request', { reason });
  }
  await refuseTaken(writer, name, row.id);
  const [before, after] = [resourcesOfType(row.name), resourcesOfType(name)];
  for (const [index, resource] of before.entries()) await renameLimits(writer, resource, after[index] ?? resource);
  await updateRow(writer, row.id, { name });
}

async function refuseTaken(writer: Writer, name: string, ownId: string | null): Promise<void> {
  const taken = await findTypeNamed(writer, name);
  if (taken === undefined || taken.id === ownId) return;
  throw new Failure('conflict', { reason: `Volume Type ${name} already exists.` });
}

function requireName(text: string): string {
  const name = text.trim();
  if (name !== '') return name;
  throw new Failure('bad_request', { reason: 'Volume type name can not be empty.' });
}

export async function deleteType(control: Control, caller: Caller, id: string): Promise<void> {
  enforce(caller, 'volume_extension:type_delete');
  await control.catalog.write(async (writer) => {
    const row = await visibleType(writer, caller, id);
    if (row.name === DEFAULT_TYPE_NAME || (await isDefaultOfProjects(writer, id))) {
      const reason = `The volume type ${id} is a default volume type and cannot be deleted.`;
      throw new Failure('bad_request', { reason });
    }
    for (const table of ['volumes', 'snapshots'] as const) {
      if (!(await isTypeInUse(writer, id, table))) continue;
      const reason = `Target volume type is still in use. (There are ${table} of type ${row.name}.)`;
      throw new Failure('wrong_state', { reason });
    }
    await removeType(writer, id);
    await forgetLimits(writer, resourcesOfType(row.name));
  });
}
