/**
 * Messages: why work failed whose request had been answered with 202. They are written in the commit that records the
 * failure and live for 30 days. Event ids and texts are those that clients of this API know; what Cinder has no words
 * for has ids from 900 on. What exactly went wrong stays with the object (`failure`) and in the log: it may name paths.
 */
import { Failure } from '../base/errors.ts';
import type { Listing } from '../catalog/listing.ts';
import {
  findMessage,
  insertMessage,
  listMessages as listRows,
  type MessageColumn,
  removeMessage,
  removeMessagesBefore,
} from '../catalog/messages.ts';
import type { MessageRow, Reader, Writer } from '../catalog/schema.ts';
import type { Control } from './control.ts';
import { type Caller, enforce } from './policy.ts';
import { isVisible } from './visibility.ts';

const LIFETIME_US = 30 * 24 * 3600 * 1e6;
/** Between two removals of expired messages. */
export const MESSAGE_SWEEP_MS = 3600 * 1000;

export type MessageResource = 'VOLUME' | 'VOLUME_SNAPSHOT' | 'VOLUME_BACKUP' | 'VOLUME_GROUP' | 'VOLUME_GROUP_SNAPSHOT';

/** What was being done. */
export const MESSAGE_ACTIONS = {
  schedule_allocate_volume: ['001', 'schedule allocate volume'],
  attach_volume: ['002', 'attach volume'],
  copy_volume_to_image: ['003', 'copy volume to image'],
  update_attachment: ['004', 'update attachment'],
  copy_image_to_volume: ['005', 'copy image to volume'],
  unmanage_volume: ['006', 'unmanage volume'],
  extend_volume: ['007', 'extend volume'],
  create_volume: ['008', 'create volume from backend storage'],
  create_snapshot: ['009', 'create snapshot'],
  delete_snapshot: ['010', 'delete snapshot'],
  update_snapshot: ['011', 'update snapshot'],
  update_snapshot_metadata: ['012', 'update snapshot metadata'],
  create_backup: ['013', 'create backup'],
  delete_backup: ['014', 'delete backup'],
  restore_backup: ['015', 'restore backup'],
  reimage_volume: ['016', 'reimage volume'],
  delete_volume: ['900', 'delete volume'],
  revert_volume: ['901', 'revert volume to snapshot'],
  retype_volume: ['902', 'retype volume'],
  create_group: ['903', 'create group from source'],
  delete_group: ['904', 'delete group'],
  create_group_snapshot: ['905', 'create group snapshot'],
  delete_group_snapshot: ['906', 'delete group snapshot'],
} as const satisfies Record<string, readonly [id: string, text: string]>;
export type MessageAction = keyof typeof MESSAGE_ACTIONS;

/** What came in the way. */
export const MESSAGE_DETAILS = {
  unknown: ['001', 'An unknown error occurred.'],
  driver_not_initialized: ['002', 'Driver is not initialized at present.'],
  no_backend: ['003', 'Could not find any available weighted backend.'],
  upload_failed: ['004', 'Failed to upload volume to image at backend.'],
  attach_mode_invalid: ['005', "Volume's attach mode is invalid."],
  over_quota: ['006', 'Not enough quota resource for operation.'],
  image_too_large: ['007', 'Image used for creating volume exceeds available space.'],
  unmanage_encrypted: ['008', 'Unmanaging encrypted volumes is not supported.'],
  compute_extend_failed: ['009', 'Compute service failed to extend volume.'],
  extend_failed: ['010', 'Volume Driver failed to extend volume.'],
  image_signature: ['011', 'Image signature verification failed.'],
  create_failed: ['012', 'Driver failed to create the volume.'],
  snapshot_create_failed: ['013', 'Snapshot failed to create.'],
  snapshot_metadata_failed: ['014', 'Volume snapshot update metadata failed.'],
  snapshot_busy: ['015', 'Snapshot is busy.'],
  snapshot_delete_failed: ['016', 'Snapshot failed to delete.'],
  backup_invalid_state: ['017', 'Backup status is invalid.'],
  backup_service_down: ['018', 'Backup service is down.'],
  backup_device_failed: ['019', 'Failed to get backup device from the volume service.'],
  backup_create_failed: ['020', 'Backup driver failed to create backup.'],
  attach_failed: ['021', 'Failed to attach volume.'],
  detach_failed: ['022', 'Failed to detach volume.'],
  backup_cleanup_failed: ['023', 'Cleanup of temporary volume/snapshot failed.'],
  backup_schedule_failed: ['024', 'Backup failed to schedule. Service not found for creating backup.'],
  backup_delete_failed: ['025', 'Backup driver failed to delete backup.'],
  backup_restore_failed: ['026', 'Backup driver failed to restore backup.'],
  volume_invalid_state: ['027', 'Volume status is invalid.'],
  reimage_failed: ['028', 'Compute service failed to reimage volume.'],
  image_format: [
    '029',
    'The image disk format must be the same as the volume format for the volume type you are requesting.',
  ],
  incremental_became_full: ['030', 'Incremental backup not possible, forcing full backup.'],
} as const satisfies Record<string, readonly [id: string, text: string]>;
export type MessageDetail = keyof typeof MESSAGE_DETAILS;

export type FailureNote = {
  /** Who may read it: the project of the object. */
  readonly projectId: string;
  readonly resource: MessageResource;
  readonly resourceId: string;
  readonly action: MessageAction;
  readonly detail: MessageDetail;
  /** The request that asked for the work; null where nobody did. */
  readonly requestId: string | null;
  /** `ERROR` where nothing else is said. */
  readonly level?: 'ERROR' | 'WARNING' | 'INFO';
};

/** Part of the write that records the failure itself, so that there is never one without the other. */
export async function noteFailure(control: Control, writer: Writer, note: FailureNote): Promise<void> {
  const [actionId, actionText] = MESSAGE_ACTIONS[note.action];
  const [detailId, detailText] = MESSAGE_DETAILS[note.detail];
  const nowUs = control.nowUs();
  await insertMessage(writer, {
    id: control.newId(),
    project_id: note.projectId,
    request_id: note.requestId,
    event_id: `VOLUME_${note.resource}_${actionId}_${detailId}`,
    user_message: `${actionText}:${detailText}`,
    message_level: note.level ?? 'ERROR',
    resource_type: note.resource,
    resource_uuid: note.resourceId,
    created_at: nowUs,
    expires_at: nowUs + LIFETIME_US,
  });
}

export async function listMessages(
  control: Control,
  caller: Caller,
  listing: Listing<MessageColumn>,
): Promise<MessageRow[]> {
  enforce(caller, 'message:get_all');
  const isCurrent = { kind: 'compare', column: 'expires_at', is: '>', value: control.nowUs() } as const;
  const rows = await listRows(control.catalog.reader, { ...listing, filters: [...listing.filters, isCurrent] });
  if (rows === null) throw new Failure('not_found', { kind: 'Message', id: listing.marker });
  return rows;
}

export async function getMessage(control: Control, caller: Caller, id: string): Promise<MessageRow> {
  enforce(caller, 'message:get');
  return visibleMessage(control, control.catalog.reader, { caller, id });
}

export async function deleteMessage(control: Control, caller: Caller, id: string): Promise<void> {
  enforce(caller, 'message:delete');
  await control.catalog.write(async (writer) => {
    await visibleMessage(control, writer, { caller, id });
    await removeMessage(writer, id);
  });
}

async function visibleMessage(
  control: Control,
  reader: Reader,
  { caller, id }: { caller: Caller; id: string },
): Promise<MessageRow> {
  const row = await findMessage(reader, id);
  if (!isVisible(caller, row) || row.expires_at <= control.nowUs())
    throw new Failure('not_found', { kind: 'Message', id });
  return row;
}

/** Called from time to time; messages past their time are shown to nobody anyway. */
export async function removeExpiredMessages(control: Control): Promise<number> {
  const nowUs = control.nowUs();
  return control.catalog.write((writer) => removeMessagesBefore(writer, nowUs));
}
