/** The fio jobs, and what a server must have gone through before each. They say what is measured and run nothing. */

export type Job = {
  readonly name: string;
  readonly fio: readonly string[];
  /** The whole volume was written before: overwrites and reads, no first touches. */
  readonly isFilled: boolean;
  /** A snapshot was taken after that: every write meets shared space. */
  readonly hasSnapshot: boolean;
  readonly unit: 'IOPS' | 'MiB/s';
};

function job(
  name: string,
  fio: readonly string[],
  more: Partial<Pick<Job, 'isFilled' | 'hasSnapshot' | 'unit'>> = {},
): Job {
  return { name, fio, isFilled: true, hasSnapshot: false, unit: 'IOPS', ...more };
}

const random = (kind: string, ...more: string[]) => [`--rw=${kind}`, '--bs=4k', ...more];

export const JOBS: readonly Job[] = [
  job('fresh-randwrite-4k-qd32', random('randwrite', '--iodepth=32'), { isFilled: false }),
  job('randread-4k-qd1', random('randread', '--iodepth=1')),
  job('randread-4k-qd32', random('randread', '--iodepth=32')),
  job('randread-4k-qd32x4', random('randread', '--iodepth=32', '--numjobs=4')),
  job('randwrite-4k-qd1', random('randwrite', '--iodepth=1')),
  job('randwrite-4k-qd32', random('randwrite', '--iodepth=32')),
  job('randwrite-4k-qd32x4', random('randwrite', '--iodepth=32', '--numjobs=4')),
  job('randwrite-4k-fsync32', random('randwrite', '--iodepth=32', '--fsync=32')),
  job('randrw-4k-qd32', random('randrw', '--rwmixread=70', '--iodepth=32')),
  job('seqread-1m-qd8', ['--rw=read', '--bs=1m', '--iodepth=8'], { unit: 'MiB/s' }),
  job('seqwrite-1m-qd8', ['--rw=write', '--bs=1m', '--iodepth=8'], { unit: 'MiB/s' }),
  // First touches only: 8,192 writes over the shared extents of 1 GiB; more would no longer be copy-on-write.
  job('cow-randwrite-4k-qd32', random('randwrite', '--iodepth=32', '--time_based=0', '--io_size=32m'), {
    hasSnapshot: true,
  }),
];
