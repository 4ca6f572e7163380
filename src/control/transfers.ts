/**
 * Transfers: a volume is offered, whoever knows the key takes it into the own project. The key is shown once and kept
 * only as a salted hash. Volume, snapshots and what they count against both quotas change hands in one commit.
 */
import { randomBytes, scrypt, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';
import { Failure } from '../base/errors.ts';
import { attachmentsOf } from '../catalog/attachments.ts';
import type { Listing } from '../catalog/listing.ts';
import type { Reader, SnapshotRow, TransferRow, VolumeRow, Writer } from '../catalog/schema.ts';
import { snapshotsOf } from '../catalog/snapshots.ts';
import {
  findTransfer,
  insertTransfer,
  listTransfers as listRows,
  moveSnapshot,
  moveVolume,
  removeTransfersOf,
  type TransferColumn,
} from '../catalog/transfers.ts';
import { findType } from '../catalog/types.ts';
import { findVolume } from '../catalog/volumes.ts';
import { refuseWhileConnectable } from './connections.ts';
import { type Control, refuseWhileConnected } from './control.ts';
import { type Caller, enforce } from './policy.ts';
import { charge } from './quotas.ts';
import { begin, tryBegin, visibleVolume } from './states.ts';
import { defaultType } from './types.ts';
import { requireVisible } from './visibility.ts';

/** As long as clients expect: 16 hexadecimal digits. */
const KEY_BYTES = 8;
const SALT_BYTES = 8;
const HASH_BYTES = 32;

const derive = promisify<string, string, number, Buffer>(scrypt);

export type NewTransfer = { readonly volumeId: string; readonly name: string | null; readonly noSnapshots: boolean };

export async function createTransfer(
  control: Control,
  caller: Caller,
  wanted: NewTransfer,
): Promise<{ row: TransferRow; key: string }> {
  enforce(caller, 'volume:create_transfer');
  const { volumeId } = wanted;
  await visibleVolume(control.catalog.reader, caller, volumeId);
  const key = randomBytes(KEY_BYTES).toString('hex');
  const salt = randomBytes(SALT_BYTES).toString('hex');
  const keyHash = (await derive(key, salt, HASH_BYTES)).toString('hex');
  await refuseUsed(control, volumeId, await snapshotsOf(control.catalog.reader, volumeId));
  const row = await control.catalog.write(async (writer) => {
    const volume = await visibleVolume(writer, caller, volumeId);
    if (volume.group_id !== null) {
      const reason = `Invalid volume: Volume ${volumeId} is in group ${volume.group_id}. Remove it from there first.`;
      throw new Failure('wrong_state', { reason });
    }
    await refuseAttached(writer, volumeId);
    const nowUs = control.nowUs();
    await begin(writer, { table: 'volumes', id: volumeId, action: 'offer', nowUs });
    if (!wanted.noSnapshots) refuseBusy(await snapshotsOf(writer, volumeId));
    const transfer: TransferRow = {
      id: control.newId(),
      project_id: volume.project_id,
      volume_id: volumeId,
      name: wanted.name,
      salt,
      key_hash: keyHash,
      no_snapshots: wanted.noSnapshots ? 1 : 0,
      created_at: nowUs,
    };
    // An administrator may have reset the status of a volume that was on offer: that offer is void.
    await removeTransfersOf(writer, volumeId);
    await insertTransfer(writer, transfer);
    return transfer;
  });
  return { row, key };
}

function refuseBusy(snapshots: readonly SnapshotRow[]): void {
  const busy = snapshots.find(({ status }) => status !== 'available');
  if (busy !== undefined) {
    const reason = `Invalid snapshot: snapshot: ${busy.id} status must be available, but is ${busy.status}.`;
    throw new Failure('wrong_state', { reason });
  }
  const grouped = snapshots.find((row) => row.group_snapshot_id !== null);
  if (grouped === undefined) return;
  const reason = `Invalid snapshot: Snapshot ${grouped.id} is part of group snapshot ${grouped.group_snapshot_id}. Delete that first, or transfer the volume without its snapshots.`;
  throw new Failure('wrong_state', { reason });
}

/** A client of the donor would go on reading and writing what is another project's. */
async function refuseUsed(control: Control, volumeId: string, snapshots: readonly SnapshotRow[]): Promise<void> {
  const ids = [volumeId, ...snapshots.map((row) => row.id)];
  await refuseWhileConnected(control, { kind: 'volume', id: volumeId, ids, code: 'wrong_state' });
}

/** An administrator may call a volume available that is attached; whoever has its export would keep it. */
async function refuseAttached(reader: Reader, volumeId: string): Promise<void> {
  await refuseWhileConnectable(reader, { id: volumeId, code: 'wrong_state' });
  const [first] = await attachmentsOf(reader, volumeId);
  if (first === undefined) return;
  const reason = `Invalid volume: Volume ${volumeId} has attachment ${first.id}. Detach it first.`;
  throw new Failure('wrong_state', { reason });
}

export async function getTransfer(control: Control, caller: Caller, id: string): Promise<TransferRow> {
  enforce(caller, 'volume:get_transfer');
  return requireVisible(caller, await findTransfer(control.catalog.reader, id), { kind: 'Transfer', id });
}

export async function listTransfers(
  control: Control,
  caller: Caller,
  listing: Listing<TransferColumn>,
): Promise<TransferRow[]> {
  enforce(caller, 'volume:get_all_transfers');
  const rows = await listRows(control.catalog.reader, listing);
  if (rows === null) throw new Failure('not_found', { kind: 'Transfer', id: listing.marker });
  return rows;
}

export async function deleteTransfer(control: Control, caller: Caller, id: string): Promise<void> {
  enforce(caller, 'volume:delete_transfer');
  await control.catalog.write(async (writer) => {
    const { volume_id } = requireVisible(caller, await findTransfer(writer, id), { kind: 'Transfer', id });
    await removeTransfersOf(writer, volume_id);
    await tryBegin(writer, { table: 'volumes', id: volume_id, action: 'withdraw-offer', nowUs: control.nowUs() });
  });
}

/** Anybody may who knows the key; the volume comes into the caller's project. */
export async function acceptTransfer(
  control: Control,
  caller: Caller,
  { id, key }: { id: string; key: string },
): Promise<TransferRow> {
  enforce(caller, 'volume:accept_transfer');
  const { reader } = control.catalog;
  const found = await findTransfer(reader, id);
  if (found === undefined) throw new Failure('not_found', { kind: 'Transfer', id });
  const hash = await derive(key, found.salt, HASH_BYTES);
  if (!timingSafeEqual(hash, Buffer.from(found.key_hash, 'hex'))) {
    const reason = `Invalid auth key: Attempt to transfer ${id} with invalid auth key.`;
    throw new Failure('bad_request', { reason });
  }
  const moving = found.no_snapshots === 1 ? [] : await snapshotsOf(reader, found.volume_id);
  await refuseUsed(control, found.volume_id, moving);
  await control.catalog.write(async (writer) => {
    // Of two who know the key one finds the offer gone.
    if ((await findTransfer(writer, id)) === undefined) throw new Failure('not_found', { kind: 'Transfer', id });
    await begin(writer, { table: 'volumes', id: found.volume_id, action: 'accept-transfer', nowUs: control.nowUs() });
    const volume = await findVolume(writer, found.volume_id);
    if (volume === undefined) throw new Failure('not_found', { kind: 'Volume', id: found.volume_id });
    await refuseAttached(writer, volume.id);
    const snapshots = found.no_snapshots === 1 ? [] : await snapshotsOf(writer, volume.id);
    refuseBusy(snapshots);
    await handOver(control, writer, { caller, volume, snapshots });
    await removeTransfersOf(writer, volume.id);
  });
  return found;
}

/** Charges and moves one after the other, so that each charge sees what was moved before it. */
async function handOver(
  control: Control,
  writer: Writer,
  { caller, volume, snapshots }: { caller: Caller; volume: VolumeRow; snapshots: readonly SnapshotRow[] },
): Promise<void> {
  const to = { projectId: caller.projectId, userId: caller.userId, nowUs: control.nowUs() };
  const pay = async (what: { typeId: string; volumes: number; snapshots: number; gigabytes: number }) => {
    if (volume.project_id === to.projectId) return;
    const type = (await findType(writer, what.typeId)) ?? (await defaultType(writer));
    const { volumes, gigabytes } = what;
    const volumeGib = volumes === 0 ? null : gigabytes;
    await charge(control, writer, { projectId: to.projectId, type, ...what, volumeGib });
  };
  await pay({ typeId: volume.type_id, volumes: 1, snapshots: 0, gigabytes: volume.size_gib });
  await moveVolume(writer, volume.id, to);
  for (const { id, type_id, size_gib } of snapshots) {
    await pay({ typeId: type_id, volumes: 0, snapshots: 1, gigabytes: size_gib });
    await moveSnapshot(writer, id, to);
  }
}
