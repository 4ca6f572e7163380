/** The embedded store: the real engine in its thread, the real addon, clients over a unix socket. */
import { join } from 'node:path';
import { createLocalBackend } from '../../src/backend/local.ts';
import { NbdClient } from '../../src/image/nbd-client.ts';
import { tempFolder } from '../support/temp.ts';
import { backendContract } from './backend.ts';

backendContract('local', async () => {
  const folder = await tempFolder();
  const socket = join(folder.path, 'nbd.sock');
  const backend = await createLocalBackend({
    dataDir: folder.path,
    nbdAddresses: [`unix:${socket}`],
    nbdTls: null,
    nbdLimits: { connectionsMax: 100, exportConnectionsMax: 100 },
    onEvent: () => {},
    onFatal: (error) => {
      throw error;
    },
  });
  const clients = new Set<NbdClient>();
  const connect = async (name: string): Promise<NbdClient> => {
    const client = await NbdClient.connect(`nbd+unix:///${encodeURIComponent(name)}?socket=${socket}`);
    clients.add(client);
    return client;
  };
  const disconnect = async (client: NbdClient): Promise<void> => {
    clients.delete(client);
    await client.close();
  };
  return {
    backend,
    async write(id, offset) {
      const name = `write ${id}`;
      await backend.publish({ name, targetId: id, readOnly: false, description: '', isListed: true });
      const client = await connect(name);
      await client.write(offset, Buffer.alloc(65536, 7));
      await client.flush();
      await disconnect(client);
      await backend.unpublish(name);
    },
    async connect(name) {
      const client = await connect(name);
      return async () => {
        await disconnect(client);
        // The server learns of a closed connection a moment later; ending the export waits for that.
      };
    },
    async close() {
      for (const client of clients) await client.close().catch(() => {});
      await backend.close();
      await folder.remove();
    },
  };
});
