/**
 * SIGKILL at random points of a mixed load: writers that remember what was flushed, snapshots, clones and deletions by the
 * API beside them. After each start every promise is looked at, and after the last one the stopped folder is checked.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { startWriter } from '../e2e/writer.ts';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { describeWith, run } from '../support/peers.ts';
import { MAIN, quarryOn } from '../support/quarry.ts';

const ROUNDS = process.env['QUARRY_SOAK'] === '1' ? 40 : 4;
const TIMEOUT_MS = 900_000;

type Created = { readonly id: string };

/** xorshift32: a seed says when each round is killed. */
function random(seed: number): () => number {
  let state = seed | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

async function post(daemon: Daemon, path: string, body: unknown): Promise<unknown> {
  const headers = { 'openstack-api-version': 'volume 3.71' };
  return (await daemon.request('POST', path, body, headers)).body;
}

/** Snapshots, clones and deletions until the daemon is gone. */
async function disturb(daemon: Daemon, volumeId: string): Promise<void> {
  try {
    for (let count = 0; ; count += 1) {
      const { snapshot } = (await post(daemon, '/v3/snapshots', {
        snapshot: { volume_id: volumeId, name: `s${count}`, force: undefined },
      })) as { snapshot: Created };
      const { volume } = (await post(daemon, '/v3/volumes', {
        volume: { snapshot_id: snapshot.id, name: `clone-${count}` },
      }).catch(() => ({ volume: null }))) as { volume: Created | null };
      if (count % 2 === 0) await daemon.request('DELETE', `/v3/snapshots/${snapshot.id}`);
      if (volume && count % 3 !== 0) await daemon.request('DELETE', `/v3/volumes/${volume.id}`);
    }
  } catch {
    // Killed: the request in flight broke.
  }
}

async function statuses(daemon: Daemon): Promise<string[]> {
  const volumes = (await daemon.request('GET', '/v3/volumes/detail')).body as { volumes: { status: string }[] };
  const snapshots = (await daemon.request('GET', '/v3/snapshots/detail')).body as { snapshots: { status: string }[] };
  return [...volumes.volumes, ...snapshots.snapshots].map(({ status }) => status);
}

describeWith(['nbdsh'], 'SIGKILL under load', () => {
  it(
    'loses nothing that was flushed, leaves nothing stuck, and the pool passes its check',
    async () => {
      const seed = Number(process.env['QUARRY_SEED'] ?? 20261124);
      const next = random(seed);
      await using daemon = await startDaemon();
      await quarryOn(daemon, 'volume', 'create', 'busy', '--size', '4');
      const volumeId = (await quarryOn(daemon, 'volume', 'show', 'busy', '-o', 'value', '-c', 'id')).trim();
      for (let round = 1; round <= ROUNDS; round += 1) {
        const about = `seed ${seed}, round ${round}`;
        const writer = await startWriter(daemon.uri(volumeId));
        await writer.flushed(3);
        const disturbing = disturb(daemon, volumeId);
        // Not a wait for something: the moment of the kill is what the seed decides.
        await sleep(next() * 1500);
        await daemon.kill('SIGKILL');
        const promised = await writer.end();
        await disturbing;
        await daemon.start();
        await writer.verify(daemon.uri(volumeId), promised).catch((error: Error) => {
          throw new Error(`${about}: ${error.message}`);
        });
        await expect
          .poll(async () => (await statuses(daemon)).filter((status) => status !== 'available'), {
            message: about,
            timeout: 30_000,
          })
          .toEqual([]);
      }
      await daemon.kill('SIGKILL');
      await run(process.execPath, [MAIN, 'check', '--data', daemon.dataDir]);
      await daemon.start();
    },
    TIMEOUT_MS,
  );
});
