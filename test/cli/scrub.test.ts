import { join } from 'node:path';
import { expect, test } from 'vitest';
import { flipBit } from '../support/bit-rot.ts';
import { startDaemon } from '../support/daemon.ts';
import { run, tryRun } from '../support/peers.ts';
import { quarry, quarryJson, quarryOn } from '../support/quarry.ts';
import { tempFolder } from '../support/temp.ts';

const MIB = 2 ** 20;

test('quarry scrub finds the bit that the disk flipped, names who shows it, and qemu reads an error instead of it', async () => {
  await using folder = await tempFolder();
  const dataDir = join(folder.path, 'data');
  await using daemon = await startDaemon({ dataDir });
  await quarryOn(daemon, 'volume', 'create', 'one', '--size', '1');
  const uri = (await quarryOn(daemon, 'volume', 'uri', 'one')).split('\n', 1).join();
  await run('qemu-io', ['-f', 'raw', '-c', `write -P 7 0 ${4 * MIB}`, '-c', 'flush', uri]);
  await quarryOn(daemon, 'snapshot', 'create', 'one', 'kept');
  expect(await quarryJson(daemon, 'scrub', '--status')).toMatchObject({ state: 'never' });
  expect(await quarryJson(daemon, 'scrub')).toMatchObject({ state: 'done', sealed_bytes: 4 * MIB, findings: [] });

  // The slots of a fresh file are in the order of the writes.
  await flipBit(join(dataDir, 'pool', 'extents', '0000001.dat'), 5 * 65536 + 12_345);
  const found = await quarry(['--url', daemon.url, 'scrub', '-o', 'json']);
  expect(found.code).toBe(1);
  expect(found.stderr).toMatch(/has changed what it held: 1 place,/);
  const [finding] = JSON.parse(found.stdout).findings;
  expect(finding).toMatchObject({ path: 'pool/extents/0000001.dat', reason: expect.stringMatching(/^slot 5:/) });
  expect(finding.shown.map(({ kind }: { kind: string }) => kind).sort()).toEqual(['snapshot', 'volume']);
  const { offset } = finding.shown[0];

  const read = await tryRun('qemu-io', ['-f', 'raw', '-c', `read -P 7 ${offset} 4k`, uri]);
  expect(read.stdout + read.stderr).toMatch(/Input\/output error/);
  await run('qemu-io', ['-f', 'raw', '-c', `read -P 7 ${offset + 65536} 4k`, uri]);
  await run('qemu-io', ['-f', 'raw', '-c', `write -P 8 ${offset} 64k`, '-c', `read -P 8 ${offset} 64k`, uri]);
});
