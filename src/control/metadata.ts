/**
 * Metadata of volumes and snapshots, and the image metadata of volumes: free keys with text values.
 */
import { Failure } from '../base/errors.ts';
import {
  type Metadata,
  type MetadataScope,
  mergeMetadata,
  metadataOf,
  removeMetadata,
  replaceMetadata,
} from '../catalog/details.ts';
import type { Reader, Writer } from '../catalog/schema.ts';
import { updateSnapshot } from '../catalog/snapshots.ts';
import { updateVolume } from '../catalog/volumes.ts';
import type { Control } from './control.ts';
import type { Caller } from './policy.ts';
import { requireStatus, visibleSnapshot, visibleVolume } from './states.ts';
import { requireFewKeys } from './volumes.ts';

export type Owner = { readonly kind: 'volume' | 'snapshot'; readonly id: string; readonly scope: MetadataScope };

export async function getMetadata(control: Control, caller: Caller, owner: Owner): Promise<Metadata> {
  const { reader } = control.catalog;
  await requireOwner(reader, caller, owner);
  return metadataOf(reader, owner.id, owner.scope);
}

export async function getMetadataValue(
  control: Control,
  caller: Caller,
  { owner, key }: { owner: Owner; key: string },
): Promise<string> {
  const value = (await getMetadata(control, caller, owner)).get(key);
  if (value === undefined) throw missing(owner, key);
  return value;
}

/** All of it afterwards. */
export async function changeMetadata(
  control: Control,
  caller: Caller,
  change: { owner: Owner; entries: Metadata; replace: boolean },
): Promise<Metadata> {
  const { owner, entries } = change;
  return control.catalog.write(async (writer) => {
    await requireChangeable(writer, caller, owner);
    if (change.replace) await replaceMetadata(writer, owner, entries);
    else await mergeMetadata(writer, owner, entries);
    const all = await metadataOf(writer, owner.id, owner.scope);
    requireFewKeys(all.size);
    await touch(control, writer, owner);
    return all;
  });
}

export async function deleteMetadata(
  control: Control,
  caller: Caller,
  { owner, key }: { owner: Owner; key: string },
): Promise<void> {
  await control.catalog.write(async (writer) => {
    await requireChangeable(writer, caller, owner);
    if (!(await removeMetadata(writer, { ...owner, key }))) throw missing(owner, key);
    await touch(control, writer, owner);
  });
}

async function requireOwner(reader: Reader, caller: Caller, owner: Owner): Promise<void> {
  if (owner.kind === 'volume') await visibleVolume(reader, caller, owner.id);
  else await visibleSnapshot(reader, caller, owner.id);
}

async function requireChangeable(writer: Writer, caller: Caller, owner: Owner): Promise<void> {
  if (owner.kind === 'snapshot') await visibleSnapshot(writer, caller, owner.id);
  else requireStatus(await visibleVolume(writer, caller, owner.id), 'change metadata');
}

async function touch(control: Control, writer: Writer, owner: Owner): Promise<void> {
  const changes = { updated_at: control.nowUs() };
  if (owner.kind === 'volume') await updateVolume(writer, owner.id, changes);
  else await updateSnapshot(writer, owner.id, changes);
}

function missing(owner: Owner, key: string): Failure {
  const what = owner.kind === 'volume' ? 'Volume' : 'Snapshot';
  return new Failure('not_found', { kind: `${what} ${owner.id} has no metadata with key`, id: `${key}: it` });
}
