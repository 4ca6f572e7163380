/**
 * Rows of transfers: volumes offered to whoever knows a key. An accepted or withdrawn offer has no row.
 */
import { type Listing, listPage } from './listing.ts';
import type { Reader, TransferRow, Writer } from './schema.ts';

export type TransferColumn = 'id' | 'name' | 'volume_id' | 'project_id' | 'created_at';

/** Null when the marker is unknown. */
export async function listTransfers(reader: Reader, listing: Listing<TransferColumn>): Promise<TransferRow[] | null> {
  return listPage(reader, 'transfers', listing);
}

export async function findTransfer(reader: Reader, id: string): Promise<TransferRow | undefined> {
  return reader.selectFrom('transfers').selectAll().where('id', '=', id).executeTakeFirst();
}

export async function insertTransfer(writer: Writer, row: TransferRow): Promise<void> {
  await writer.insertInto('transfers').values(row).execute();
}

export async function removeTransfersOf(writer: Writer, volumeId: string): Promise<void> {
  await writer.deleteFrom('transfers').where('volume_id', '=', volumeId).execute();
}

type Owner = { readonly projectId: string; readonly userId: string; readonly nowUs: number };

export async function moveVolume(writer: Writer, id: string, to: Owner): Promise<void> {
  const changes = { project_id: to.projectId, user_id: to.userId, updated_at: to.nowUs };
  await writer.updateTable('volumes').set(changes).where('id', '=', id).execute();
}

export async function moveSnapshot(writer: Writer, id: string, to: Owner): Promise<void> {
  const changes = { project_id: to.projectId, user_id: to.userId, updated_at: to.nowUs };
  await writer.updateTable('snapshots').set(changes).where('id', '=', id).execute();
}
