/**
 * Snapshots of two volumes at one instant, with a client that is not ours: it writes numbers to the first volume, then to the second,
 * each after the write before was answered. Whatever a pair of snapshots shows must be a moment of that.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { expect, it } from 'vitest';
import { createLocalBackend } from '../../src/backend/local.ts';
import { describeWith, run } from '../support/peers.ts';
import { tempFolder } from '../support/temp.ts';

const MIB = 2 ** 20;
const PAIRS = 40;
/** Each pair comes after this many more stamps, so that the pairs lie inside the writing. */
const STAMPS_BETWEEN = 20;

const writer = (first: string, second: string) => `
first, second = nbd.NBD(), nbd.NBD()
first.connect_uri('${first}')
second.connect_uri('${second}')
stamp = 0
while True:
    stamp += 1
    # To ever other places too, so that the frozen entries are of all kinds.
    for volume in (first, second):
        volume.pwrite(stamp.to_bytes(8, 'big') * 512, 65536 * (1 + stamp % 200))
        volume.pwrite(stamp.to_bytes(8, 'big'), 512)
    if stamp % ${STAMPS_BETWEEN} == 0:
        print(stamp, flush=True)
`;

describeWith(['nbdsh'], 'snapshots of two volumes that one client writes in order', () => {
  it(`never have the second ahead, nor the first by more than one, in ${PAIRS} pairs`, async () => {
    await using folder = await tempFolder();
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
    const uri = (id: string) => `nbd+unix:///${id}?socket=${socket}`;
    const publish = (id: string) =>
      backend.publish({ name: id, targetId: id, readOnly: false, description: '', isListed: false });
    const volumes = [randomUUID(), randomUUID()] as const;
    for (const id of volumes) {
      await backend.createVolume({ id, sizeBytes: 64 * MIB, sourceId: null });
      await publish(id);
    }
    const child: ChildProcess = spawn('nbdsh', ['-c', writer(uri(volumes[0]), uri(volumes[1]))], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, PATH: `/usr/bin:${process.env['PATH'] ?? ''}` },
    });
    const ended = new Promise((resolve) => child.once('close', resolve));
    try {
      if (child.stdout === null) throw new Error('the writer has no output');
      const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
      const pairs: (readonly [string, string])[] = [];
      while (pairs.length < PAIRS) {
        const { done } = await lines.next();
        if (done) throw new Error('the writer ended');
        const pair = [randomUUID(), randomUUID()] as const;
        const wanted = pair.map((id, at) => ({ id, volumeId: volumes[at as 0 | 1] }));
        await backend.createSnapshots(pairs.length % 2 === 0 ? wanted : wanted.reverse());
        pairs.push(pair);
      }
      const snapshots = pairs.flat();
      for (const id of snapshots) await publish(id);
      const script = `
for uri in ${JSON.stringify(snapshots.map(uri))}:
    h = nbd.NBD()
    h.connect_uri(uri)
    stamp = int.from_bytes(h.pread(8, 512), 'big')
    # The place that was written before the stamp has it, since places come again after 200 stamps only.
    found = int.from_bytes(h.pread(8, 65536 * (1 + stamp % 200)), 'big')
    assert found == stamp, (found, stamp)
    h.shutdown()
    print(stamp)
`;
      const output = await run('nbdsh', ['-c', script]);
      const stamps = output.trim().split('\n').map(Number);
      expect(stamps).toHaveLength(2 * PAIRS);
      let newest = 0;
      for (let at = 0; at < stamps.length; at += 2) {
        const [ahead, behind] = stamps.slice(at, at + 2) as [number, number];
        expect(ahead - behind, `${ahead} and ${behind}`).toBeGreaterThanOrEqual(0);
        expect(ahead - behind, `${ahead} and ${behind}`).toBeLessThanOrEqual(1);
        expect(ahead).toBeGreaterThanOrEqual(newest);
        newest = ahead;
      }
      expect(newest).toBeGreaterThan(PAIRS);
    } finally {
      child.kill('SIGKILL');
      await ended;
      await backend.close();
    }
  });
});
