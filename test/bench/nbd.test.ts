import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { bench } from '../../bench/run.ts';
import { describeWith } from '../support/peers.ts';
import { tempFolder } from '../support/temp.ts';

describeWith(['fio', 'nbdkit', 'qemu-nbd', 'openssl'], 'the benchmark', () => {
  // The limit is compiled first.
  test('measures this project and a peer, and writes what it measured', { timeout: 300_000 }, async () => {
    await using folder = await tempFolder();
    const json = join(folder.path, 'results.json');
    const size = ['--rounds', '1', '--seconds', '1', '--size-mib', '64'];
    const results = await bench([
      ...size,
      '--only',
      'quarry,limit,nbdkit memory',
      '--jobs',
      'randread-4k-qd32',
      '--json',
      json,
    ]);
    for (const peer of ['quarry', 'limit', 'nbdkit memory']) {
      const [measured] = results.get('randread-4k-qd32')?.get(peer) ?? [];
      expect(measured, peer).toBeDefined();
      expect(measured?.iops).toBeGreaterThan(100);
      expect(measured?.cpuUsPerIo).toBeGreaterThan(0);
      expect(measured?.memoryMib).toBeGreaterThan(1);
    }
    const written = JSON.parse(await readFile(json, 'utf8'));
    expect(written.results['randread-4k-qd32']['nbdkit memory']).toHaveLength(1);
    expect(written.machine.cpus).toBeGreaterThan(0);
  });

  test('reaches servers by TCP and under TLS', async () => {
    await using folder = await tempFolder();
    const size = ['--rounds', '1', '--seconds', '1', '--size-mib', '64'];
    const [peers, jobs] = [
      ['quarry', 'nbdkit file', 'qemu-nbd raw'],
      ['randread-4k-qd32-tcp', 'randread-4k-qd32-tls'],
    ];
    const wanted = ['--only', peers.join(','), '--jobs', jobs.join(',')];
    const results = await bench([...size, ...wanted, '--json', join(folder.path, 'results.json')]);
    for (const job of jobs) {
      for (const peer of peers) {
        const [measured] = results.get(job)?.get(peer) ?? [];
        expect(measured?.iops, `${peer}, ${job}`).toBeGreaterThan(100);
      }
    }
  });
});
