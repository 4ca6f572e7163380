/**
 * TLS for the NBD client: which certificates it trusts and shows, and the session on a socket whose server agreed to one. It
 * knows nothing of options and requests.
 */
import { readFile } from 'node:fs/promises';
import { isIP, type Socket } from 'node:net';
import { join } from 'node:path';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import { Failure } from '../base/errors.ts';

export type NbdTls = {
  /** A folder as libnbd and qemu want it: `ca-cert.pem`, and `client-cert.pem` with `client-key.pem` if a certificate is to be
   * shown; null: the system's authorities, and nothing to show. */
  readonly folder: string | null;
  /** Whom the server's certificate has to name; null (a unix socket of no name): any that the authorities signed. */
  readonly serverName: string | null;
};

/** Before a connection is made: a folder that lacks something is not the server's fault. */
export async function tlsOptions({ folder, serverName }: NbdTls): Promise<ConnectionOptions> {
  return {
    ...(folder !== null && (await filesOf(folder))),
    ...(serverName === null ? { checkServerIdentity: () => undefined } : { host: serverName }),
    // A name for the server to choose its certificate by: addresses are none.
    ...(serverName !== null && isIP(serverName) === 0 && { servername: serverName }),
  };
}

async function filesOf(folder: string): Promise<Pick<ConnectionOptions, 'ca' | 'cert' | 'key'>> {
  const [ca, cert, key] = await Promise.all(
    ['ca-cert.pem', 'client-cert.pem', 'client-key.pem'].map((name) => readIfThere(join(folder, name))),
  );
  if (ca == null) throw new Failure('bad_request', { reason: `There is no ${join(folder, 'ca-cert.pem')}.` });
  if (cert == null) return { ca };
  if (key == null)
    throw new Failure('bad_request', { reason: `${folder} has a client-cert.pem and no client-key.pem.` });
  return { ca, cert, key };
}

async function readIfThere(path: string): Promise<Buffer | null> {
  try {
    return await readFile(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new Failure('bad_request', { reason: `${path} cannot be read: ${(error as Error).message}` });
  }
}

/** Resolves when the server has shown who it is. */
export function startTls(socket: Socket, options: ConnectionOptions): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const secured = connect({ ...options, socket });
    const closed = () => reject(new Error('the server closed the connection in the TLS handshake'));
    secured.once('error', reject);
    secured.once('close', closed);
    secured.once('secureConnect', () => {
      secured.off('error', reject);
      secured.off('close', closed);
      resolve(secured);
    });
  });
}
