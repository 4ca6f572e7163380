/**
 * Rows of messages: what users are told of work that failed after it had been accepted.
 */
import { type Listing, listPage } from './listing.ts';
import type { MessageRow, Reader, Writer } from './schema.ts';

export type MessageColumn =
  | 'id'
  | 'event_id'
  | 'message_level'
  | 'resource_type'
  | 'resource_uuid'
  | 'request_id'
  | 'project_id'
  | 'created_at'
  | 'expires_at';

/** Null when the marker is unknown. */
export async function listMessages(reader: Reader, listing: Listing<MessageColumn>): Promise<MessageRow[] | null> {
  return listPage(reader, 'messages', listing);
}

export async function findMessage(reader: Reader, id: string): Promise<MessageRow | undefined> {
  return reader.selectFrom('messages').selectAll().where('id', '=', id).executeTakeFirst();
}

export async function insertMessage(writer: Writer, row: MessageRow): Promise<void> {
  await writer.insertInto('messages').values(row).execute();
}

export async function removeMessage(writer: Writer, id: string): Promise<void> {
  await writer.deleteFrom('messages').where('id', '=', id).execute();
}

/** How many went. */
export async function removeMessagesBefore(writer: Writer, nowUs: number): Promise<number> {
  const gone = await writer.deleteFrom('messages').where('expires_at', '<=', nowUs).executeTakeFirst();
  return Number(gone.numDeletedRows);
}
