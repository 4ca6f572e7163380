/**
 * Volumes whose speed is limited, judged by fio: the rate that it sees, a change under way, and the neighbours. The bounds are wide
 * enough for a machine that does other things too; docs/performance.md has what was measured on a quiet one.
 */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import type { VolumeLimits } from '../../src/backend/backend.ts';
import { createLocalBackend, type LocalBackend } from '../../src/backend/local.ts';
import { describeWith, run } from '../support/peers.ts';
import { type TempFolder, tempFolder } from '../support/temp.ts';

const MIB = 2 ** 20;
const SECONDS = 3;
/** More than a client gets in this time if the limit is a tenth too high, the start included. */
const ABOVE = 1.2;
/** Less than it gets if the limit works and the machine is half asleep. */
const BELOW = 0.5;

type Side = { readonly iops: number; readonly bytes: number };
type Measured = { readonly read: Side; readonly write: Side };

describeWith(['fio'], 'a volume whose speed is limited', () => {
  let folder: TempFolder;
  let backend: LocalBackend;
  let id: string;

  beforeAll(async () => {
    folder = await tempFolder();
    backend = await createLocalBackend({
      dataDir: folder.path,
      nbdAddresses: [`unix:${join(folder.path, 'nbd.sock')}`],
      nbdTls: null,
      nbdLimits: { connectionsMax: 100, exportConnectionsMax: 100 },
      onEvent: () => {},
      onFatal: (error) => {
        throw error;
      },
    });
  });
  afterAll(async () => {
    await backend.close();
    await folder.remove();
  });
  const createVolume = async (): Promise<string> => {
    const created = randomUUID();
    await backend.createVolume({ id: created, sizeBytes: 64 * MIB, sourceId: null });
    await backend.publish({ name: created, targetId: created, readOnly: false, description: '', isListed: false });
    return created;
  };
  beforeEach(async () => {
    id = await createVolume();
  });

  const fio = async (volumeId: string, ...args: string[]): Promise<Measured> => {
    const uri = `nbd+unix:///${volumeId}?socket=${join(folder.path, 'nbd.sock')}`;
    const job = ['--name=job', '--ioengine=nbd', `--uri=${uri}`, '--size=64m', '--output-format=json', ...args];
    const output = await run('fio', job, { cwd: folder.path });
    // Its NBD engine says a word before the document.
    const found: { jobs: Record<'read' | 'write', { iops: number; bw_bytes: number }>[] } = JSON.parse(
      output.slice(output.indexOf('{')),
    );
    const side = (name: 'read' | 'write'): Side => ({
      iops: found.jobs.reduce((sum, one) => sum + one[name].iops, 0),
      bytes: found.jobs.reduce((sum, one) => sum + one[name].bw_bytes, 0),
    });
    return { read: side('read'), write: side('write') };
  };
  const timed = ['--time_based', `--runtime=${SECONDS}`];
  const expectNear = (found: number, limit: number): void => {
    expect(found).toBeLessThan(limit * ABOVE);
    expect(found).toBeGreaterThan(limit * BELOW);
  };
  const limit = (limits: VolumeLimits | null, volumeId = id) => backend.setLimits({ id: volumeId, limits });

  it.each([1, 32])('gets its operations per second and no more at depth %i', async (depth) => {
    await limit({ totalIopsSec: 400 });
    const { read, write } = await fio(id, ...timed, '--rw=randrw', '--bs=4k', `--iodepth=${depth}`);
    expectNear(read.iops + write.iops, 400);
    const [usage] = await backend.usage([id]);
    // It waited most of the time.
    expect(usage?.throttledSeconds).toBeGreaterThan(SECONDS / 3);
    expect(usage?.throttledSeconds).toBeLessThan(SECONDS * 2);
  });

  it('gets its bytes per second over four connections together', async () => {
    await limit({ writeBytesSec: 8 * MIB });
    const { write } = await fio(id, ...timed, '--rw=randwrite', '--bs=64k', '--iodepth=4', '--numjobs=4');
    expectNear(write.bytes, 8 * MIB);
  });

  it('is limited by direction: reads go on while writes wait', async () => {
    await limit({ writeIopsSec: 50 });
    const [writer, reader] = await Promise.all([
      fio(id, ...timed, '--rw=randwrite', '--bs=4k'),
      fio(id, ...timed, '--rw=randread', '--bs=4k'),
    ]);
    expectNear(writer.write.iops, 50);
    expect(reader.read.iops).toBeGreaterThan(500);
  });

  it('may burst, for as long as was agreed', async () => {
    await limit({ totalIopsSec: 100, totalIopsSecMax: 1000, totalIopsSecMaxLength: 60 });
    const { write } = await fio(id, ...timed, '--rw=randwrite', '--bs=4k', '--iodepth=8');
    expectNear(write.iops, 1000);
  });

  it('follows a change at once, on connections that are open and waiting', async () => {
    await limit({ totalIopsSec: 1 });
    const job = fio(id, '--rw=randwrite', '--bs=4k', '--number_ios=1000', '--iodepth=16');
    const throttled = async () => (await backend.usage([id]))[0]?.throttledSeconds;
    await expect.poll(throttled, { timeout: 30_000, interval: 100 }).toBeGreaterThan(0);
    // A thousand seconds at this rate.
    await limit(null);
    expect((await job).write.iops).toBeGreaterThan(10);
  });

  it('does not slow its neighbours, on whom no limit is set', async () => {
    const neighbour = await createVolume();
    await limit({ totalIopsSec: 20 });
    const [slow, free] = await Promise.all([
      fio(id, ...timed, '--rw=randwrite', '--bs=4k', '--iodepth=8', '--numjobs=4'),
      fio(neighbour, ...timed, '--rw=randwrite', '--bs=4k', '--iodepth=4'),
    ]);
    expect(slow.write.iops).toBeLessThan(20 * 2);
    expect(free.write.iops).toBeGreaterThan(1000);
  });

  it('is snapshotted while its writes wait', async () => {
    await limit({ writeIopsSec: 1 });
    const job = fio(id, '--rw=randwrite', '--bs=4k', '--number_ios=20', '--iodepth=16');
    const connections = async () => (await backend.usage([id]))[0]?.connections;
    await expect.poll(connections, { timeout: 30_000, interval: 50 }).toBeGreaterThan(0);
    await backend.createSnapshot({ id: randomUUID(), volumeId: id });
    await limit(null);
    await job;
  });
});
