/**
 * Rows of attachments (who has a volume, or is about to) and of connections (the exports made for them). Which names are
 * published at the moment is not known here.
 */
import { type Listing, listPage } from './listing.ts';
import { manyByIds, parts } from './many.ts';
import type { AttachmentRow, ConnectionRow, Reader, Writer } from './schema.ts';

export type AttachmentColumn =
  | 'id'
  | 'volume_id'
  | 'instance_id'
  | 'status'
  | 'mode'
  | 'host_name'
  | 'project_id'
  | 'attached_at'
  | 'created_at'
  | 'updated_at';

export async function findAttachment(reader: Reader, id: string): Promise<AttachmentRow | undefined> {
  return reader.selectFrom('attachments').selectAll().where('id', '=', id).executeTakeFirst();
}

/** Null when the marker is unknown. */
export async function listAttachments(
  reader: Reader,
  listing: Listing<AttachmentColumn>,
): Promise<AttachmentRow[] | null> {
  return listPage(reader, 'attachments', listing);
}

/** Oldest first. */
export async function attachmentsOf(reader: Reader, volumeId: string): Promise<AttachmentRow[]> {
  return reader
    .selectFrom('attachments')
    .selectAll()
    .where('volume_id', '=', volumeId)
    .orderBy('created_at')
    .orderBy('id')
    .execute();
}

export async function attachmentsOfAll(
  reader: Reader,
  volumeIds: readonly string[],
): Promise<Map<string, AttachmentRow[]>> {
  const found = new Map<string, AttachmentRow[]>();
  for (const row of await attachmentRows(reader, volumeIds)) {
    const known = found.get(row.volume_id);
    if (known === undefined) found.set(row.volume_id, [row]);
    else known.push(row);
  }
  return found;
}

const attachmentRows = manyByIds((reader, ids) =>
  reader.selectFrom('attachments').selectAll().where('volume_id', 'in', ids).orderBy('created_at').orderBy('id'),
);

export async function insertAttachment(writer: Writer, row: AttachmentRow): Promise<void> {
  await writer.insertInto('attachments').values(row).execute();
}

export type AttachmentChanges = Partial<
  Pick<AttachmentRow, 'instance_id' | 'host_name' | 'device' | 'mode' | 'status' | 'attached_at' | 'updated_at'>
>;

export async function updateAttachment(writer: Writer, id: string, changes: AttachmentChanges): Promise<void> {
  await writer.updateTable('attachments').set(changes).where('id', '=', id).execute();
}

/** Its connection is gone already, or goes with it. */
export async function removeAttachment(writer: Writer, id: string): Promise<void> {
  await writer.deleteFrom('connections').where('attachment_id', '=', id).execute();
  await writer.deleteFrom('attachments').where('id', '=', id).execute();
}

export async function connectionsOf(reader: Reader, volumeId: string): Promise<ConnectionRow[]> {
  return reader
    .selectFrom('connections')
    .selectAll()
    .where('volume_id', '=', volumeId)
    .orderBy('created_at')
    .orderBy('name')
    .execute();
}

export async function connectionsOfAttachments(
  reader: Reader,
  attachmentIds: readonly string[],
): Promise<Map<string, ConnectionRow>> {
  const found = new Map<string, ConnectionRow>();
  for (const row of await connectionRows(reader, attachmentIds))
    if (row.attachment_id !== null) found.set(row.attachment_id, row);
  return found;
}

const connectionRows = manyByIds((reader, ids) =>
  reader.selectFrom('connections').selectAll().where('attachment_id', 'in', ids),
);

export async function allConnections(reader: Reader): Promise<ConnectionRow[]> {
  return reader.selectFrom('connections').selectAll().orderBy('created_at').execute();
}

export async function insertConnection(writer: Writer, row: ConnectionRow): Promise<void> {
  await writer.insertInto('connections').values(row).execute();
}

export type ConnectionChanges = Partial<Pick<ConnectionRow, 'attachment_id' | 'host' | 'connector' | 'read_only'>>;

export async function updateConnection(writer: Writer, name: string, changes: ConnectionChanges): Promise<void> {
  await writer.updateTable('connections').set(changes).where('name', '=', name).execute();
}

export async function removeConnections(writer: Writer, names: readonly string[]): Promise<void> {
  for (const some of parts(names)) await writer.deleteFrom('connections').where('name', 'in', some).execute();
}
