/**
 * Attachments and connections as clients read them. What a libvirt network disk of protocol `nbd` needs (`name`, `hosts`,
 * `ports`) is among it.
 */
import type { AttachmentRow } from '../../catalog/schema.ts';
import type { Attachment } from '../../control/attachments.ts';
import type { ConnectionInfo } from '../../control/connections.ts';
import { isAllowed } from '../../control/policy.ts';
import type { Asked } from '../asked.ts';
import { type Json, timeOf } from '../views.ts';

const DRIVER_VOLUME_TYPE = 'nbd';

export function attachmentSummary(row: AttachmentRow): Json & { readonly id: string } {
  return { id: row.id, status: row.status, instance: row.instance_id, volume_id: row.volume_id };
}

/** Whoever has the name of an export has the data: who may only read about volumes is not told. */
export function attachmentView(asked: Asked, { row, connection }: Attachment): Json & { readonly id: string } {
  return {
    ...attachmentSummary(row),
    attached_at: timeOf(row.attached_at) ?? '',
    // An attachment that ended is gone: there is never one to show.
    detached_at: '',
    attach_mode: row.mode,
    connection_info:
      connection === null || !isAllowed(asked.caller, 'member')
        ? {}
        : {
            ...dataOf(connection),
            driver_volume_type: DRIVER_VOLUME_TYPE,
            attachment_id: row.id,
          },
  };
}

/** For the older call, which keeps the data apart. */
export function connectionView(connection: ConnectionInfo): Json {
  return { driver_volume_type: DRIVER_VOLUME_TYPE, data: dataOf(connection) };
}

function dataOf(connection: ConnectionInfo): Json {
  const [first] = connection.tcp;
  return {
    name: connection.name,
    hosts: connection.tcp.map(({ host }) => host),
    ports: connection.tcp.map(({ port }) => String(port)),
    server: first?.host ?? null,
    port: first?.port ?? null,
    export_name: connection.name,
    uri: connection.uri,
    unix_socket: connection.unixSocket,
    tls: connection.tls,
    volume_id: connection.volumeId,
    device_path: null,
    discard: true,
    logical_block_size: '512',
    physical_block_size: '4096',
    access_mode: connection.readOnly ? 'ro' : 'rw',
    encrypted: false,
    qos_specs: connection.qosSpecs ?? {},
    cacheable: false,
    enforce_multipath: connection.enforceMultipath,
  };
}
