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
  /** Of a volume that is being filled: what is written goes only where something is still to come. */
  fill<T>(targetId: string, use: (writer: BlockWriter) => Promise<T>): Promise<T>;
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
    return this.#with((name) => this.#publish(name, { targetId, readOnly: true }), use);
  }

  write<T>(targetId: string, use: (writer: BlockWriter) => Promise<T>): Promise<T> {
    return this.#with((name) => this.#publish(name, { targetId, readOnly: false }), use);
  }

  fill<T>(targetId: string, use: (writer: BlockWriter) => Promise<T>): Promise<T> {
    return this.#with((name) => this.#backend.publishFill({ name, targetId }), use);
  }

  #publish(name: string, target: { targetId: string; readOnly: boolean }): Promise<void> {
    const mode = { description: 'a backup or restore', isListed: false, isInternal: true };
    return this.#backend.publish({ ...target, ...mode, name });
  }

  async #with<T>(publish: (name: string) => Promise<void>, use: (client: NbdClient) => Promise<T>): Promise<T> {
    const name = `backup-${randomUUID()}`;
    await publish(name);
    try {
      await using client = await NbdClient.connect(this.#uriOf(name));
      return await use(client);
    } finally {
      await this.#backend.unpublish(name);
    }
  }
}
