/** The socket through which the daemon reaches volumes itself: where it is, and that it goes with the daemon. */
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { expect, it } from 'vitest';
import { createLocalBackend, type LocalBackend } from '../../src/backend/local.ts';
import { nbdUri } from '../../src/control/exports.ts';
import { NbdClient } from '../../src/image/nbd-client.ts';
import { tempFolder } from '../support/temp.ts';

const ID = '00000000-0000-4000-8000-000000000001';

async function open(dataDir: string): Promise<LocalBackend> {
  return await createLocalBackend({
    dataDir,
    nbdAddresses: [],
    nbdTls: null,
    nbdLimits: { connectionsMax: 8, exportConnectionsMax: 8 },
    onEvent: () => {},
    onFatal: (error) => {
      throw error;
    },
  });
}

async function writeThrough(backend: LocalBackend): Promise<void> {
  await backend.createVolume({ id: ID, sizeBytes: 1 << 30, sourceId: null });
  const target = { targetId: ID, readOnly: false, description: '', isListed: false };
  await backend.publish({ ...target, name: 'own', isInternal: true });
  await backend.publish({ ...target, name: 'theirs' });
  {
    await using client = await NbdClient.connect(nbdUri(backend.internalAddress, 'own'));
    await client.write(0, Buffer.from('bytes'));
    const read = Buffer.alloc(5);
    await client.read(0, read);
    expect(read.toString()).toBe('bytes');
  }
  await expect(NbdClient.connect(nbdUri(backend.internalAddress, 'theirs'))).rejects.toThrow(/no such export/);
}

it('it is in the data folder', async () => {
  await using folder = await tempFolder();
  const backend = await open(folder.path);
  expect(backend.internalAddress).toBe(`unix:${join(folder.path, 'internal.sock')}`);
  await writeThrough(backend);
  await backend.close();
  expect(existsSync(join(folder.path, 'internal.sock'))).toBe(false);
});

it('it is elsewhere, for this user alone, where the data folder is too deep for the address of a socket', async () => {
  await using folder = await tempFolder();
  const deep = join(folder.path, 'd'.repeat(120));
  await mkdir(deep);
  const backend = await open(deep);
  const path = backend.internalAddress.slice('unix:'.length);
  expect(path.startsWith(deep)).toBe(false);
  await writeThrough(backend);
  await backend.close();
  expect(existsSync(dirname(path))).toBe(false);
});
