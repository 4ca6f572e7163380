/** What is measured of one step of a backup, and how: of programs that come and go, and of a daemon that stays. */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { MIB } from './image.ts';

export const STEPS = ['full', 'incremental', 'restore'] as const;
export type Step = (typeof STEPS)[number];

export type Figure = {
  readonly seconds: number;
  /** User and system time of the programs, or of the daemon's process. */
  readonly cpuSeconds: number;
  /** Bytes of the image or volume; of a program everything that it read, its own files as well. */
  readonly readMib: number;
  readonly storedMib: number;
  /** Files that came into the repository. */
  readonly objects: number;
};

export type Round = Readonly<Record<Step, Figure>>;

/** Something that makes backups, in a folder of its own. */
export type Subject = {
  readonly name: string;
  /** Everything once; the image is in its first state at the beginning and in its second at the end. */
  round(work: Work): Promise<Round>;
};

export type Work = {
  readonly folder: string;
  readonly image: string;
  /** Brings the image into its second state; may be called once. */
  change(): Promise<void>;
  /** Fails where these are not the bytes of the second state. */
  verify(sha256: string): Promise<void>;
};

const CLOCK_TICKS_PER_SECOND = 100;

export function cpuSecondsOf(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS_PER_SECOND;
}

/** A field of /proc/PID/status that is in kB. */
export function statusMib(pid: number, field: 'VmRSS' | 'VmHWM'): number {
  const text = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1]) / 1024;
}

export type Kept = { readonly mib: number; readonly objects: number };

export async function keptIn(folder: string): Promise<Kept> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  let [mib, objects] = [0, 0];
  for (const entry of entries.filter((one) => one.isFile())) {
    mib += (await stat(join(entry.parentPath, entry.name))).size / MIB;
    objects += 1;
  }
  return { mib, objects };
}

/** The shell knows the processor time of everything that it waited for, and the kernel what all of that read. */
const SHELL = `TIMEFORMAT='%R %U %S'
{ time "$@" >"$BENCH_LOG" 2>&1; } 2>"$BENCH_LOG.times" || exit
cat "$BENCH_LOG.times" "/proc/$$/io"`;

type Ran = Pick<Figure, 'seconds' | 'cpuSeconds' | 'readMib'>;

export async function timedProgram(
  argv: readonly string[],
  { folder, env, cwd }: { folder: string; env: Readonly<Record<string, string>>; cwd: string },
): Promise<Ran> {
  const log = join(folder, 'log');
  const child = spawn('bash', ['-c', SHELL, 'bash', ...argv], {
    cwd,
    env: { ...process.env, ...env, BENCH_LOG: log, LC_ALL: 'C.UTF-8' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  if (code !== 0) throw new Error(`${argv.join(' ')} ended with ${code}: ${await readFile(log, 'utf8')}`);
  const [seconds = 0, user = 0, system = 0] = (text.split('\n', 1)[0] ?? '').split(' ').map(Number);
  const read = Number(/^rchar: (\d+)$/m.exec(text)?.[1]);
  return { seconds, cpuSeconds: user + system, readMib: read / MIB };
}
