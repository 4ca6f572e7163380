/**
 * Volume types. One always exists, so that no volume is without.
 */
import { Failure } from '../base/errors.ts';
import type { Reader, TypeRow } from '../catalog/schema.ts';
import { findType, findTypeNamed, insertType, listTypes } from '../catalog/types.ts';
import type { Control } from './control.ts';

export const DEFAULT_TYPE_NAME = '__DEFAULT__';

export type VolumeType = {
  readonly id: string;
  readonly name: string;
  readonly description: string | null;
  readonly isPublic: boolean;
  readonly extraSpecs: Readonly<Record<string, string>>;
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
      extra_specs: '{}',
      created_at: control.nowUs(),
    });
  });
}

export async function allTypes(control: Control): Promise<VolumeType[]> {
  return (await listTypes(control.catalog.reader)).map(typeOf);
}

export async function getType(control: Control, id: string): Promise<VolumeType> {
  const row = await findType(control.catalog.reader, id);
  if (row === undefined) throw new Failure('not_found', { kind: 'Volume type', id });
  return typeOf(row);
}

export async function defaultType(reader: Reader): Promise<TypeRow> {
  const row = await findTypeNamed(reader, DEFAULT_TYPE_NAME);
  if (row === undefined) throw new Error(`the type ${DEFAULT_TYPE_NAME} is missing`);
  return row;
}

/** By name or id. */
export async function requireType(reader: Reader, nameOrId: string): Promise<TypeRow> {
  const row = (await findTypeNamed(reader, nameOrId)) ?? (await findType(reader, nameOrId));
  if (row === undefined) throw new Failure('not_found', { kind: 'Volume type with name', id: nameOrId });
  return row;
}

export function typeOf(row: TypeRow): VolumeType {
  return {
    id: row.id,
    name: row.name,
    description: row.description,
    isPublic: row.is_public === 1,
    extraSpecs: JSON.parse(row.extra_specs) as Record<string, string>,
  };
}
