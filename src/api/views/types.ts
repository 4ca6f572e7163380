/** Volume types and what hangs on them, as JSON. What is for administrators is left out for others. */
import type { DefaultTypeRow, TypeEncryptionRow } from '../../catalog/schema.ts';
import { may } from '../../control/policy.ts';
import type { Specs, VolumeType } from '../../control/types.ts';
import type { Asked } from '../asked.ts';
import { type Json, timeOf } from '../views.ts';

/** Extra specs that a user needs to choose a type; the others describe the installation. */
const USER_VISIBLE = ['RESKEY:availability_zones', 'multiattach', 'replication_enabled'];

export function extraSpecsView(asked: Asked, specs: Specs): Specs {
  if (may(asked.caller, 'volume_extension:types_extra_specs:read_sensitive')) return specs;
  return Object.fromEntries(Object.entries(specs).filter(([key]) => isUserVisible(key)));
}

export function isUserVisible(key: string): boolean {
  return USER_VISIBLE.includes(key);
}

/** The answers of a create and an update have fewer fields than what is read. */
export function typeView(asked: Asked, type: VolumeType, form: 'read' | 'created' | 'updated'): Json {
  const showsQos = form === 'read' && may(asked.caller, 'volume_extension:access_types_qos_specs_id');
  return {
    id: type.id,
    name: type.name,
    is_public: type.isPublic,
    description: type.description,
    extra_specs: extraSpecsView(asked, type.extraSpecs),
    ...(form !== 'updated' && { 'os-volume-type-access:is_public': type.isPublic }),
    ...(showsQos && { qos_specs_id: type.qosSpecId }),
  };
}

/** Bare; nothing is an empty object. */
export function encryptionView(row: TypeEncryptionRow | null): Json {
  if (row === null) return {};
  return {
    volume_type_id: row.type_id,
    encryption_id: row.encryption_id,
    provider: row.provider,
    control_location: row.control_location,
    cipher: row.cipher,
    key_size: row.key_size,
    created_at: timeOf(row.created_at),
    updated_at: timeOf(row.updated_at),
    deleted_at: null,
    deleted: false,
  };
}

export function defaultTypeView(row: DefaultTypeRow): Json {
  return { project_id: row.project_id, volume_type_id: row.type_id };
}
