/**
 * Specs of quality of service: made, changed, associated with volume types. After every change that may concern volumes
 * their limits are looked at again.
 */
import { Failure } from '../base/errors.ts';
import {
  findQosSpec,
  findQosSpecNamed,
  insertQosSpec,
  listQosSpecs,
  mergeQosValues,
  qosValuesOf,
  removeQosSpec,
  removeQosValues,
  typesOfQosSpec,
  updateQosSpec as updateRow,
  volumeIdsOfTypes,
} from '../catalog/qos-specs.ts';
import type { QosSpecRow, Reader, TypeRow, Writer } from '../catalog/schema.ts';
import { updateType } from '../catalog/types.ts';
import type { Control } from './control.ts';
import { CONSUMERS, complaintAbout } from './limit-rules.ts';
import { type Caller, enforce } from './policy.ts';
import { type Specs, visibleType } from './types.ts';

export const QOS_KEYS_MAX = 256;
const DEFAULT_CONSUMER = 'back-end';

export type QosSpec = { readonly row: QosSpecRow; readonly specs: Specs };

export async function allQosSpecs(control: Control, caller: Caller): Promise<QosSpec[]> {
  enforce(caller, 'volume_extension:qos_specs_manage:get_all');
  const { reader } = control.catalog;
  const specs = new Map<string, [string, string][]>();
  for (const { spec_id, key, value } of await qosValuesOf(reader, null))
    specs.set(spec_id, [...(specs.get(spec_id) ?? []), [key, value]]);
  return (await listQosSpecs(reader)).map((row) => ({ row, specs: Object.fromEntries(specs.get(row.id) ?? []) }));
}

export async function getQosSpec(control: Control, caller: Caller, id: string): Promise<QosSpec> {
  enforce(caller, 'volume_extension:qos_specs_manage:get');
  return withValues(control.catalog.reader, await requireSpec(control.catalog.reader, id));
}

/** Null: as it is, or the default. */
export type QosChanges = { readonly consumer: string | null; readonly specs: Specs };

export async function createQosSpec(
  control: Control,
  caller: Caller,
  wanted: QosChanges & { readonly name: string },
): Promise<QosSpec> {
  enforce(caller, 'volume_extension:qos_specs_manage:create');
  requireSound(wanted);
  const name = wanted.name.trim();
  if (name === '') throw invalid('the name is empty');
  return control.catalog.write(async (writer) => {
    if ((await findQosSpecNamed(writer, name)) !== undefined)
      throw new Failure('conflict', { reason: `QoS Specs ${name} already exists.` });
    const row: QosSpecRow = {
      id: control.newId(),
      name,
      consumer: wanted.consumer ?? DEFAULT_CONSUMER,
      created_at: control.nowUs(),
      updated_at: null,
    };
    await insertQosSpec(writer, row);
    return changed(writer, row, wanted.specs);
  });
}

export async function updateQosSpec(
  control: Control,
  caller: Caller,
  { id, changes }: { id: string; changes: QosChanges },
): Promise<void> {
  enforce(caller, 'volume_extension:qos_specs_manage:update');
  requireSound(changes);
  await changeAndApply(control, id, async (writer, row) => {
    const { consumer } = changes;
    await updateRow(writer, id, { ...(consumer !== null && { consumer }), updated_at: control.nowUs() });
    await changed(writer, row, changes.specs);
  });
}

/** All of them or, where one is missing, none. */
export async function deleteQosKeys(
  control: Control,
  caller: Caller,
  { id, keys }: { id: string; keys: readonly string[] },
): Promise<void> {
  enforce(caller, 'volume_extension:qos_specs_manage:delete');
  await changeAndApply(control, id, async (writer, row) => {
    const { specs } = await withValues(writer, row);
    const missing = keys.find((key) => !Object.hasOwn(specs, key));
    if (missing !== undefined) throw new Failure('not_found', { kind: `QoS spec ${id}: key`, id: missing });
    await removeQosValues(writer, id, keys);
    await updateRow(writer, id, { updated_at: control.nowUs() });
  });
}

export async function deleteQosSpec(
  control: Control,
  caller: Caller,
  { id, force }: { id: string; force: boolean },
): Promise<void> {
  enforce(caller, 'volume_extension:qos_specs_manage:delete');
  await changeAndApply(control, id, async (writer, row) => {
    const types = await typesOfQosSpec(writer, id);
    if (types.length > 0 && !force) {
      const names = types.map((type) => type.name).join(', ');
      const reason = `Qos specs still in use. (${row.name} is associated with ${names}; force=true disassociates it.)`;
      throw new Failure('wrong_state', { reason });
    }
    await removeQosSpec(writer, id);
  });
}

export async function associationsOf(control: Control, caller: Caller, id: string): Promise<TypeRow[]> {
  enforce(caller, 'volume_extension:qos_specs_manage:get_all');
  await requireSpec(control.catalog.reader, id);
  return typesOfQosSpec(control.catalog.reader, id);
}

type Association = { readonly id: string; readonly typeId: string };

export async function associateQosSpec(control: Control, caller: Caller, { id, typeId }: Association): Promise<void> {
  enforce(caller, 'volume_extension:qos_specs_manage:update');
  await changeAndApply(control, id, async (writer) => {
    const type = await visibleType(writer, caller, typeId);
    if (type.qos_spec_id === id) return;
    if (type.qos_spec_id !== null) {
      const reason = `Invalid volume type: Type ${typeId} is already associated with another qos specs: ${type.qos_spec_id}`;
      throw new Failure('bad_request', { reason });
    }
    await updateType(writer, typeId, { qos_spec_id: id });
  });
}

export async function disassociateQosSpec(
  control: Control,
  caller: Caller,
  { id, typeId }: Association,
): Promise<void> {
  enforce(caller, 'volume_extension:qos_specs_manage:update');
  await changeAndApply(control, id, async (writer) => {
    const type = await visibleType(writer, caller, typeId);
    if (type.qos_spec_id === id) await updateType(writer, typeId, { qos_spec_id: null });
  });
}

export async function disassociateAll(control: Control, caller: Caller, id: string): Promise<void> {
  enforce(caller, 'volume_extension:qos_specs_manage:update');
  await changeAndApply(control, id, async (writer) => {
    for (const type of await typesOfQosSpec(writer, id)) await updateType(writer, type.id, { qos_spec_id: null });
  });
}

/** One change of a spec that exists; the volumes of every type that had it before or has it now follow. */
async function changeAndApply(
  control: Control,
  id: string,
  change: (writer: Writer, row: QosSpecRow) => Promise<void>,
): Promise<void> {
  const concerned = await control.catalog.write(async (writer) => {
    const row = await requireSpec(writer, id);
    const before = await typesOfQosSpec(writer, id);
    await change(writer, row);
    const after = await typesOfQosSpec(writer, id);
    return volumeIdsOfTypes(writer, [...new Set([...before, ...after].map((type) => type.id))]);
  });
  control.limits.refresh(concerned);
}

async function requireSpec(reader: Reader, id: string): Promise<QosSpecRow> {
  const row = await findQosSpec(reader, id);
  if (row === undefined) throw new Failure('not_found', { kind: 'QoS spec', id });
  return row;
}

async function withValues(reader: Reader, row: QosSpecRow): Promise<QosSpec> {
  const values = await qosValuesOf(reader, row.id);
  return { row, specs: Object.fromEntries(values.map(({ key, value }) => [key, value])) };
}

async function changed(writer: Writer, row: QosSpecRow, specs: Specs): Promise<QosSpec> {
  await mergeQosValues(writer, row.id, Object.entries(specs));
  const spec = await withValues(writer, row);
  const count = Object.keys(spec.specs).length;
  if (count > QOS_KEYS_MAX) throw invalid(`${count} keys, but at most ${QOS_KEYS_MAX} are allowed`);
  return spec;
}

function requireSound({ consumer, specs }: QosChanges): void {
  if (consumer !== null && !CONSUMERS.some((word) => word === consumer))
    throw invalid(`consumer is '${consumer}', but must be one of ${CONSUMERS.join(', ')}`);
  for (const [key, value] of Object.entries(specs)) {
    const complaint = complaintAbout(key, value);
    if (complaint !== null) throw invalid(complaint);
  }
}

function invalid(what: string): Failure {
  return new Failure('bad_request', { reason: `Invalid qos specs: ${what}.` });
}
