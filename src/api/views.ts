/**
 * From what control knows to the JSON of the Block Storage API; the only place that spells its field names in answers.
 * Fields that a microversion does not have are left out: clients check for surplus ones.
 */
import type { FastifyRequest } from 'fastify';
import type { AttachmentRow, VolumeRow } from '../catalog/schema.ts';
import type { QuotaUse } from '../control/quotas.ts';
import type { Snapshot } from '../control/snapshots.ts';
import type { Volume } from '../control/volumes.ts';
import type { Asked } from './asked.ts';
import { PAGE_MAX } from './query.ts';

export type Json = Readonly<Record<string, unknown>>;

/** The second that was put into words last: the rows of a page are often of few seconds, and a date costs a microsecond. */
let lastSecond = { second: 0, text: '1970-01-01T00:00:00' };

/** UTC, six decimals, no zone: some clients parse exactly that. */
export function timeOf(microseconds: number | null): string | null {
  if (microseconds === null) return null;
  const second = Math.floor(microseconds / 1_000_000);
  if (second !== lastSecond.second) lastSecond = { second, text: new Date(second * 1000).toISOString().slice(0, 19) };
  return `${lastSecond.text}.${String(microseconds % 1_000_000).padStart(6, '0')}`;
}

export function linksOf(asked: Asked, collection: string, id: string): Json[] {
  const path = `${asked.urlProject === null ? '' : `/${encodeURIComponent(asked.urlProject)}`}/${collection}/${id}`;
  return [
    { rel: 'self', href: `${asked.root}/v3${path}` },
    { rel: 'bookmark', href: `${asked.root}${path}` },
  ];
}

export function volumeSummary(asked: Asked, row: VolumeRow): Json {
  return { id: row.id, name: row.name, links: linksOf(asked, 'volumes', row.id) };
}

/** The words under which other services know this daemon's store. */
export type Place = { readonly host: string; readonly serviceUuid: string };

export type VolumeView = { readonly place: Place; readonly form: 'full' | 'created' };

/** `created`: the answer of a create or update, which lacks what is for administrators. */
export function volumeView(asked: Asked, volume: Volume, { place, form }: VolumeView): Json {
  const { row } = volume;
  const { minor } = asked;
  const isAdmin = asked.caller.isAdmin;
  const isFull = form === 'full';
  return {
    id: row.id,
    status: row.status,
    size: row.size_gib,
    availability_zone: row.availability_zone,
    created_at: timeOf(row.created_at),
    updated_at: timeOf(row.updated_at),
    name: row.name,
    description: row.description,
    volume_type: volume.typeName,
    ...(minor >= 63 && { volume_type_id: row.type_id }),
    snapshot_id: row.snapshot_id,
    source_volid: row.source_volume_id,
    metadata: shownMetadata(volume),
    links: linksOf(asked, 'volumes', row.id),
    user_id: row.user_id,
    bootable: row.bootable === 1 ? 'true' : 'false',
    encrypted: false,
    replication_status: null,
    consistencygroup_id: null,
    multiattach: row.multiattach === 1,
    attachments: attached(volume).map((attachment) => attachedView(attachment, { isAdmin })),
    ...(isAdmin && { migration_status: null }),
    ...(isFull && { 'os-vol-tenant-attr:tenant_id': row.project_id }),
    ...(isFull &&
      isAdmin && {
        'os-vol-host-attr:host': place.host,
        'os-vol-mig-status-attr:migstat': null,
        'os-vol-mig-status-attr:name_id': null,
      }),
    ...(isFull && volume.imageMetadata.size > 0 && { volume_image_metadata: Object.fromEntries(volume.imageMetadata) }),
    ...(minor >= 13 && { group_id: row.group_id }),
    ...(minor >= 21 && isAdmin && { provider_id: null }),
    ...(minor >= 48 && { shared_targets: false, service_uuid: place.serviceUuid }),
    ...(minor >= 61 && isAdmin && { cluster_name: null }),
    ...(minor >= 65 && { consumes_quota: true }),
  };
}

/** Those that are about to be are shown by the attachments themselves. */
function attached({ attachments }: Volume): AttachmentRow[] {
  return attachments.filter(({ status }) => status === 'attached');
}

function shownMetadata(volume: Volume): Json {
  const { row, metadata } = volume;
  const shown = new Map(metadata);
  if (row.read_only !== null) shown.set('readonly', row.read_only === 1 ? 'True' : 'False');
  const [attachment] = attached(volume);
  if (attachment !== undefined) shown.set('attached_mode', attachment.mode);
  return Object.fromEntries(shown);
}

function attachedView(row: AttachmentRow, { isAdmin }: { isAdmin: boolean }): Json {
  return {
    // The volume's id, and not the attachment's: that is how clients know it.
    id: row.volume_id,
    attachment_id: row.id,
    volume_id: row.volume_id,
    server_id: row.instance_id,
    host_name: isAdmin ? row.host_name : null,
    device: row.device,
    attached_at: timeOf(row.attached_at),
  };
}

/** `brief`: in the list that is not in detail, which never got the fields of later versions. `created`: lacks what `full` has. */
export type SnapshotForm = 'brief' | 'created' | 'full';

export function snapshotView(asked: Asked, { row, metadata }: Snapshot, form: SnapshotForm): Json {
  const minor = form === 'brief' ? 0 : asked.minor;
  return {
    id: row.id,
    created_at: timeOf(row.created_at),
    updated_at: timeOf(row.updated_at),
    name: row.name,
    description: row.description,
    volume_id: row.volume_id,
    status: row.status,
    size: row.size_gib,
    metadata: Object.fromEntries(metadata),
    ...(minor >= 14 && { group_snapshot_id: row.group_snapshot_id }),
    ...(minor >= 41 && { user_id: row.user_id }),
    ...(minor >= 65 && { consumes_quota: true }),
    ...(form === 'full' && {
      'os-extended-snapshot-attributes:progress': row.progress,
      'os-extended-snapshot-attributes:project_id': row.project_id,
    }),
  };
}

/** A link to the next page, where this one is full. */
export function nextLink(
  request: FastifyRequest,
  page: { collection: string; linksKey?: string; limit: number; items: readonly { readonly id?: unknown }[] },
): Json {
  const last = page.items.at(-1);
  if (page.limit === 0 || last === undefined || page.items.length < Math.min(page.limit, PAGE_MAX)) return {};
  const [path, query = ''] = request.url.split('?', 2);
  const parameters = new URLSearchParams(query);
  parameters.delete('offset');
  parameters.set('marker', String(last.id));
  const href = `${request.asked.root}${path}?${parameters}`;
  return { [page.linksKey ?? `${page.collection}_links`]: [{ rel: 'next', href }] };
}

export function quotaView(limits: ReadonlyMap<string, number>): Json {
  return Object.fromEntries(limits);
}

export function quotaUseView(uses: ReadonlyMap<string, QuotaUse>): Json {
  const shown = [...uses].map(([resource, { limit, inUse, reserved }]) => [
    resource,
    { limit, in_use: inUse, reserved },
  ]);
  return Object.fromEntries(shown);
}

export function limitsView(uses: ReadonlyMap<string, QuotaUse>): Json {
  const limit = (resource: string): number => uses.get(resource)?.limit ?? -1;
  const used = (resource: string): number => uses.get(resource)?.inUse ?? 0;
  return {
    maxTotalVolumes: limit('volumes'),
    maxTotalSnapshots: limit('snapshots'),
    maxTotalVolumeGigabytes: limit('gigabytes'),
    maxTotalBackups: limit('backups'),
    maxTotalBackupGigabytes: limit('backup_gigabytes'),
    totalVolumesUsed: used('volumes'),
    totalGigabytesUsed: used('gigabytes'),
    totalSnapshotsUsed: used('snapshots'),
    totalBackupsUsed: used('backups'),
    totalBackupGigabytesUsed: used('backup_gigabytes'),
  };
}
