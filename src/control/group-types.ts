/**
 * Group types: what volumes have in common that are in one group. One spec means something here: with
 * `consistent_group_snapshot_enabled` a snapshot of the group shows all its volumes at one instant.
 */
import { Failure } from '../base/errors.ts';
import {
  findGroupType,
  findGroupTypeNamed,
  type GroupTypeColumn,
  insertGroupType,
  isGroupTypeUsed,
  listGroupTypes as listRows,
  removeGroupType,
  updateGroupType as updateRow,
} from '../catalog/group-types.ts';
import type { Listing } from '../catalog/listing.ts';
import type { GroupTypeRow, Reader } from '../catalog/schema.ts';
import { type Control, METADATA_KEYS_MAX } from './control.ts';
import { type Caller, enforce } from './policy.ts';

/** Clients expect it to be listed, and that no group can be of it. */
export const RESERVED_TYPE_NAME = 'default_cgsnapshot_type';
const CONSISTENT = 'consistent_group_snapshot_enabled';

export type GroupSpecs = Readonly<Record<string, string | null>>;

export type NewGroupType = {
  readonly name: string;
  readonly description: string | null;
  readonly isPublic: boolean;
  readonly specs: GroupSpecs;
};

export async function ensureReservedGroupType(control: Control): Promise<void> {
  if ((await findGroupTypeNamed(control.catalog.reader, RESERVED_TYPE_NAME)) !== undefined) return;
  await control.catalog.write(async (writer) => {
    if ((await findGroupTypeNamed(writer, RESERVED_TYPE_NAME)) !== undefined) return;
    await insertGroupType(writer, {
      id: control.newId(),
      name: RESERVED_TYPE_NAME,
      description: 'Default group type for migrating cgsnapshot',
      is_public: 1,
      group_specs: JSON.stringify({ [CONSISTENT]: '<is> True' }),
      created_at: control.nowUs(),
      updated_at: null,
    });
  });
}

export function specsOf(row: GroupTypeRow): GroupSpecs {
  return JSON.parse(row.group_specs) as GroupSpecs;
}

export function isConsistent(row: GroupTypeRow): boolean {
  return /^<is>\s*true$/i.test((specsOf(row)[CONSISTENT] ?? '').trim());
}

export async function listGroupTypes(
  control: Control,
  caller: Caller,
  listing: Listing<GroupTypeColumn>,
): Promise<GroupTypeRow[]> {
  const isPublic = { kind: 'compare', column: 'is_public', is: '=', value: 1 } as const;
  const filters = caller.isAdmin ? listing.filters : [...listing.filters, isPublic];
  const rows = await listRows(control.catalog.reader, { ...listing, filters });
  if (rows === null) throw new Failure('not_found', { kind: 'Group type', id: listing.marker });
  return rows;
}

export async function visibleGroupType(reader: Reader, caller: Caller, id: string): Promise<GroupTypeRow> {
  const row = await findGroupType(reader, id);
  if (row === undefined || !(caller.isAdmin || row.is_public === 1))
    throw new Failure('not_found', { kind: 'Group type', id });
  return row;
}

/** By id or name. */
export async function requireGroupType(reader: Reader, caller: Caller, idOrName: string): Promise<GroupTypeRow> {
  const row = (await findGroupType(reader, idOrName)) ?? (await findGroupTypeNamed(reader, idOrName));
  if (row === undefined || !(caller.isAdmin || row.is_public === 1))
    throw new Failure('not_found', { kind: 'Group type', id: idOrName });
  return row;
}

export async function createGroupType(control: Control, caller: Caller, wanted: NewGroupType): Promise<GroupTypeRow> {
  enforce(caller, 'group:group_types:create');
  const row: GroupTypeRow = {
    id: control.newId(),
    name: wanted.name,
    description: wanted.description,
    is_public: wanted.isPublic ? 1 : 0,
    group_specs: JSON.stringify(wanted.specs),
    created_at: control.nowUs(),
    updated_at: null,
  };
  await control.catalog.write(async (writer) => {
    await refuseTaken(writer, wanted.name, null);
    await insertGroupType(writer, row);
  });
  return row;
}

async function refuseTaken(reader: Reader, name: string, exceptId: string | null): Promise<void> {
  const bearer = await findGroupTypeNamed(reader, name);
  if (bearer === undefined || bearer.id === exceptId) return;
  throw new Failure('conflict', { reason: `Group Type ${name} already exists.` });
}

export type GroupTypeUpdate = {
  readonly name?: string;
  readonly description?: string;
  readonly isPublic?: boolean;
};

export async function updateGroupType(
  control: Control,
  caller: Caller,
  { id, update }: { id: string; update: GroupTypeUpdate },
): Promise<GroupTypeRow> {
  enforce(caller, 'group:group_types:update');
  return control.catalog.write(async (writer) => {
    await visibleGroupType(writer, caller, id);
    if (update.name !== undefined) await refuseTaken(writer, update.name, id);
    await updateRow(writer, id, {
      ...(update.name !== undefined && { name: update.name }),
      ...(update.description !== undefined && { description: update.description }),
      ...(update.isPublic !== undefined && { is_public: update.isPublic ? 1 : 0 }),
      updated_at: control.nowUs(),
    });
    return visibleGroupType(writer, caller, id);
  });
}

export async function deleteGroupType(control: Control, caller: Caller, id: string): Promise<void> {
  enforce(caller, 'group:group_types:delete');
  await control.catalog.write(async (writer) => {
    await visibleGroupType(writer, caller, id);
    if (await isGroupTypeUsed(writer, id)) {
      const reason = `Target group type is still in use. Group Type ${id} has groups or group snapshots.`;
      throw new Failure('wrong_state', { reason });
    }
    await removeGroupType(writer, id);
  });
}

export async function getGroupSpecs(control: Control, caller: Caller, id: string): Promise<GroupSpecs> {
  enforce(caller, 'group:group_types_specs:get_all');
  return specsOf(await visibleGroupType(control.catalog.reader, caller, id));
}

export async function getGroupSpec(
  control: Control,
  caller: Caller,
  { id, key }: { id: string; key: string },
): Promise<string | null> {
  enforce(caller, 'group:group_types_specs:get');
  const specs = specsOf(await visibleGroupType(control.catalog.reader, caller, id));
  const value = Object.hasOwn(specs, key) ? specs[key] : undefined;
  if (value === undefined) throw noSuchSpec(id, key);
  return value;
}

/** New keys are added, known ones changed, the others stay. */
export async function mergeGroupSpecs(
  control: Control,
  caller: Caller,
  { id, specs, rule }: { id: string; specs: GroupSpecs; rule: 'create' | 'update' },
): Promise<void> {
  enforce(caller, `group:group_types_specs:${rule}`);
  await control.catalog.write(async (writer) => {
    const merged = { ...specsOf(await visibleGroupType(writer, caller, id)), ...specs };
    if (Object.keys(merged).length > METADATA_KEYS_MAX) {
      const reason = `Invalid input received: Group type ${id} would have more than ${METADATA_KEYS_MAX} specs.`;
      throw new Failure('bad_request', { reason });
    }
    await updateRow(writer, id, { group_specs: JSON.stringify(merged), updated_at: control.nowUs() });
  });
}

export async function deleteGroupSpec(
  control: Control,
  caller: Caller,
  { id, key }: { id: string; key: string },
): Promise<void> {
  enforce(caller, 'group:group_types_specs:delete');
  await control.catalog.write(async (writer) => {
    const specs = specsOf(await visibleGroupType(writer, caller, id));
    if (!Object.hasOwn(specs, key)) throw noSuchSpec(id, key);
    const kept = Object.fromEntries(Object.entries(specs).filter(([known]) => known !== key));
    await updateRow(writer, id, { group_specs: JSON.stringify(kept), updated_at: control.nowUs() });
  });
}

function noSuchSpec(id: string, key: string): Failure {
  return new Failure('not_found', { kind: `Group Type ${id} has no specs with key`, id: `${key}: it` });
}
