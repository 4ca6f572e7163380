/**
 * The exports of attachments: each has a name nobody can guess, which is in the catalog as long as it is published. A
 * name is published before its row is committed and withdrawn before its row is removed, so a crash in between leaves
 * what was there before: names without a row end with the process, rows are published again at each start. Whoever
 * changes the connections of a volume has its turn (`control.turns`).
 */
import { Failure } from '../base/errors.ts';
import { connectionsOf } from '../catalog/attachments.ts';
import type { AttachmentRow, ConnectionRow, Reader, VolumeRow } from '../catalog/schema.ts';
import type { Control } from './control.ts';
import { nbdUri } from './exports.ts';
import { qosOf } from './limits.ts';

/** What a client says of the machine on which it will use a volume. */
export type Connector = Readonly<Record<string, unknown>>;

const NAME_PREFIX = 'att-';

export function connectionName(control: Control): string {
  return `${NAME_PREFIX}${control.newSecret()}`;
}

export function textOf(connector: Connector, key: string): string | null {
  const value = connector[key];
  return typeof value === 'string' && value !== '' ? value : null;
}

/** Publishes while `commit` makes it lasting; if that fails, nothing of it is left. */
export async function published<T>(
  control: Control,
  connection: Pick<ConnectionRow, 'name' | 'volume_id' | 'read_only'>,
  commit: () => Promise<T>,
): Promise<T> {
  await control.exports.publishConnection(connection);
  return committed(commit, () => control.exports.withdrawName(connection.name), control);
}

/** Ends these exports and their clients, then commits that; if that fails, they are published again. */
export async function withdrawn<T>(
  control: Control,
  connections: readonly ConnectionRow[],
  commit: () => Promise<T>,
): Promise<T> {
  const republish = async (): Promise<void> => {
    for (const connection of connections) await control.exports.publishConnection(connection);
  };
  return committed(
    async () => {
      for (const { name } of connections) await control.exports.withdrawName(name);
      return commit();
    },
    republish,
    control,
  );
}

/** The same name with another mode; its clients are cut off, since they were promised something else. */
export async function switched<T>(
  control: Control,
  connection: ConnectionRow,
  { readOnly, commit }: { readOnly: boolean; commit: () => Promise<T> },
): Promise<T> {
  const wanted = { ...connection, read_only: readOnly ? 1 : 0 };
  return committed(
    async () => {
      await control.exports.publishConnection(wanted);
      return commit();
    },
    () => control.exports.publishConnection(connection),
    control,
  );
}

async function committed<T>(work: () => Promise<T>, undo: () => Promise<void>, control: Control): Promise<T> {
  try {
    return await work();
  } catch (error) {
    await undo().catch((reason: unknown) =>
      control.log.error({ err: reason }, 'an export of an attachment is not as the catalog says until the next start'),
    );
    throw error;
  }
}

/** While somebody was given an export, its volume can be neither deleted nor changed under them. */
export async function refuseWhileConnectable(
  reader: Reader,
  about: { id: string; code: 'wrong_state' | 'conflict' },
): Promise<void> {
  const connections = await connectionsOf(reader, about.id);
  const [first] = connections;
  if (first === undefined) return;
  const whose = first.attachment_id === null ? `host '${first.host}'` : `attachment ${first.attachment_id}`;
  const reason = `Invalid volume: Volume ${about.id} is exported to ${whose}. Detach or terminate the connection first.`;
  throw new Failure(about.code, { reason });
}

export type ConnectionInfo = {
  readonly name: string;
  readonly volumeId: string;
  readonly attachmentId: string | null;
  readonly readOnly: boolean;
  readonly uri: string;
  /** Who does not speak it is turned away. */
  readonly tls: boolean;
  readonly tcp: readonly { readonly host: string; readonly port: number }[];
  readonly unixSocket: string | null;
  readonly qosSpecs: Readonly<Record<string, string>> | null;
  readonly enforceMultipath: boolean;
};

/** How a client reaches the export, by the addresses of today. */
export async function connectionInfo(
  control: Control,
  volume: VolumeRow,
  connection: ConnectionRow,
): Promise<ConnectionInfo> {
  const { tcp, unixSocket } = listeners(control);
  const [first] = tcp;
  const address = first === undefined ? `unix:${unixSocket ?? ''}` : `${bracketed(first.host)}:${first.port}`;
  const connector = JSON.parse(connection.connector) as Connector;
  const tls = control.backend.nbdRequiresTls === true;
  return {
    name: connection.name,
    volumeId: connection.volume_id,
    attachmentId: connection.attachment_id,
    readOnly: connection.read_only === 1,
    uri: nbdUri(address, connection.name, tls ? 'nbds' : 'nbd'),
    tls,
    tcp,
    unixSocket,
    qosSpecs: (await qosOf(control, volume)).frontEnd,
    enforceMultipath: connector['enforce_multipath'] === true,
  };
}

type Listeners = { readonly tcp: { host: string; port: number }[]; readonly unixSocket: string | null };

function listeners({ backend, settings }: Control): Listeners {
  const tcp: { host: string; port: number }[] = [];
  let unixSocket: string | null = null;
  for (const address of backend.nbdAddresses) {
    if (address.startsWith('unix:')) {
      unixSocket ??= address.slice('unix:'.length);
      continue;
    }
    const colon = address.lastIndexOf(':');
    const host = address.slice(0, colon).replace(/^\[(.*)\]$/, '$1');
    tcp.push({
      host: settings.nbdPublicHost ?? reachable(host, settings.host),
      port: Number(address.slice(colon + 1)),
    });
  }
  return { tcp, unixSocket };
}

/** Who listens on every address has to be called by a name. */
function reachable(host: string, name: string): string {
  return host === '0.0.0.0' || host === '::' ? name : host;
}

function bracketed(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}

/** Of the volume's attachments, as far as it decides what a new export may do. */
export function isReadOnly(volume: VolumeRow, attachments: readonly AttachmentRow[]): boolean {
  if (volume.read_only === 1) return true;
  const attached = attachments.filter(({ status }) => status === 'attached');
  return attached.length > 0 && attached.every(({ mode }) => mode === 'ro');
}
