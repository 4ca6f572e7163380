/**
 * Where the process reaches its own exports: a unix socket in the data folder. It knows nothing of what is exported.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Plane } from '../native/plane.ts';

/** sockaddr_un has room for 108 bytes with the zero at the end. */
const SOCKET_PATH_BYTES_MAX = 107;

export type InternalDoor = {
  /** As a listener's address. */
  readonly address: string;
  /** After the plane's own end. */
  close(): Promise<void>;
};

/** A data folder may be too deep for a socket's address: then it is in a new folder of the system's, for this user alone. */
export async function openInternalDoor(plane: Plane, dataDir: string): Promise<InternalDoor> {
  const near = join(dataDir, 'internal.sock');
  if (Buffer.byteLength(near) <= SOCKET_PATH_BYTES_MAX) {
    await plane.listenInternally(near);
    return { address: `unix:${near}`, async close() {} };
  }
  const folder = await mkdtemp(join(tmpdir(), 'quarry-'));
  const close = () => rm(folder, { recursive: true, force: true });
  try {
    const path = join(folder, 'internal.sock');
    await plane.listenInternally(path);
    return { address: `unix:${path}`, close };
  } catch (error) {
    await close();
    throw error;
  }
}
