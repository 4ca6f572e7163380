/**
 * How a backup reaches the bytes of a volume or snapshot: for a while, under a name that is found through the
 * process's own door alone, whatever clients have to do. It knows the NBD door of a backend, not what is read or written through it.
 */
import { randomUUID } from 'node:crypto';
import type { VolumeBackend } from '../backend/backend.ts';
import { NbdClient } from '../image/nbd-client.ts';
import type { BlockReader } from './create.ts';
import type { BlockWriter } from './restore.ts';

export interface DataAccess {
  read<T>(targetId: string, use: (reader: BlockReader) => Promise<T>): Promise<T>;
  write<T>(targetId: string, use: (writer: BlockWriter) => Promise<T>): Promise<T>;
}

export class NbdData implements DataAccess {
  readonly #backend: VolumeBackend;
  /** For the name of a publication, the URI under which it is reached. */
  readonly #uriOf: (name: string) => string;

  constructor(backend: VolumeBackend, uriOf: (name: string) => string) {
    this.#backend = backend;
    this.#uriOf = uriOf;
  }

  read<T>(targetId: string, use: (reader: BlockReader) => Promise<T>): Promise<T> {
    return this.#with({ targetId, readOnly: true }, use);
  }

  write<T>(targetId: string, use: (writer: BlockWriter) => Promise<T>): Promise<T> {
    return this.#with({ targetId, readOnly: false }, use);
  }

  async #with<T>(target: { targetId: string; readOnly: boolean }, use: (client: NbdClient) => Promise<T>): Promise<T> {
    const name = `backup-${randomUUID()}`;
    const mode = { description: 'a backup or restore', isListed: false, isInternal: true };
    await this.#backend.publish({ ...target, ...mode, name });
    try {
      await using client = await NbdClient.connect(this.#uriOf(name));
      return await use(client);
    } finally {
      await this.#backend.unpublish(name);
    }
  }
}
