/** The fio jobs, and what a server must have gone through before each. They say what is measured and run nothing. */

export type Job = {
  readonly name: string;
  readonly fio: readonly string[];
  /** The whole volume was written before: overwrites and reads, no first touches. */
  readonly isFilled: boolean;
  /** So many snapshots were taken after that, with a few writes between: every write meets shared space. */
  readonly snapshots: number;
  /** Used at once, one fio job each; each of the whole size. */
  readonly volumes: number;
  readonly unit: 'IOPS' | 'MiB/s';
  readonly transport: Transport;
};

/** How the client reaches the server: a unix socket, TCP on this machine, or TLS on that. */
export type Transport = 'unix' | 'tcp' | 'tls';

function job(name: string, fio: readonly string[], more: Partial<Omit<Job, 'name' | 'fio'>> = {}): Job {
  return { name, fio, isFilled: true, snapshots: 0, volumes: 1, unit: 'IOPS', transport: 'unix', ...more };
}

const random = (kind: string, ...more: string[]) => [`--rw=${kind}`, '--bs=4k', ...more];
const throughput = { unit: 'MiB/s' } as const;

export const JOBS: readonly Job[] = [
  job('fresh-randwrite-4k-qd32', random('randwrite', '--iodepth=32'), { isFilled: false }),
  job('randread-4k-qd1', random('randread', '--iodepth=1')),
  job('randread-4k-qd32', random('randread', '--iodepth=32')),
  job('randread-4k-qd32x4', random('randread', '--iodepth=32', '--numjobs=4')),
  job('randread-4k-zipf-qd32', random('randread', '--iodepth=32', '--random_distribution=zipf:1.1')),
  job('randread-4k-8volumes', random('randread', '--iodepth=8'), { volumes: 8 }),
  job('randwrite-4k-qd1', random('randwrite', '--iodepth=1')),
  job('randwrite-4k-qd32', random('randwrite', '--iodepth=32')),
  job('randwrite-4k-qd32x4', random('randwrite', '--iodepth=32', '--numjobs=4')),
  job('randwrite-4k-8volumes', random('randwrite', '--iodepth=8'), { volumes: 8 }),
  job('randrw-4k-qd32', random('randrw', '--rwmixread=70', '--iodepth=32')),
  job('randwrite-4k-fsync32', random('randwrite', '--iodepth=32', '--fsync=32')),
  // Each write waits for its own flush: how many a second one client gets, and whether four share them.
  job('syncwrite-4k-qd1', random('randwrite', '--iodepth=1', '--fsync=1')),
  job('syncwrite-4k-qd1x4', random('randwrite', '--iodepth=1', '--fsync=1', '--numjobs=4')),
  job('randread-16k-qd32', ['--rw=randread', '--bs=16k', '--iodepth=32']),
  job('randwrite-16k-qd32', ['--rw=randwrite', '--bs=16k', '--iodepth=32']),
  job('randread-64k-qd16', ['--rw=randread', '--bs=64k', '--iodepth=16'], throughput),
  job('randwrite-64k-qd16', ['--rw=randwrite', '--bs=64k', '--iodepth=16'], throughput),
  job('seqread-1m-qd8', ['--rw=read', '--bs=1m', '--iodepth=8'], throughput),
  job('seqwrite-1m-qd8', ['--rw=write', '--bs=1m', '--iodepth=8'], throughput),
  // First touches only: 8,192 writes over the shared extents of 1 GiB; more would no longer be copy-on-write.
  job('cow-randwrite-4k-qd32', random('randwrite', '--iodepth=32', '--time_based=0', '--io_size=32m'), {
    snapshots: 1,
  }),
  ...[1, 100, 1000].map((snapshots) =>
    job(`randread-4k-qd32-${snapshots}snapshots`, random('randread', '--iodepth=32'), { snapshots }),
  ),
  ...(['tcp', 'tls'] as const).flatMap((transport) => [
    job(`randread-4k-qd32-${transport}`, random('randread', '--iodepth=32'), { transport }),
    job(`randwrite-4k-qd32-${transport}`, random('randwrite', '--iodepth=32'), { transport }),
    job(`seqread-1m-qd8-${transport}`, ['--rw=read', '--bs=1m', '--iodepth=8'], { ...throughput, transport }),
    job(`seqwrite-1m-qd8-${transport}`, ['--rw=write', '--bs=1m', '--iodepth=8'], { ...throughput, transport }),
  ]),
];
