/**
 * One job against one server: started on an empty folder, prepared, measured from outside (what fio saw, what the
 * kernel says the server's processes used), stopped and removed. Nothing is compared here.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, openSync, readFileSync, rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { NbdClient } from '../../src/image/nbd-client.ts';
import { makeCertificates } from './certificates.ts';
import { fill, fio, seenBy } from './fio.ts';
import type { Job } from './jobs.ts';
import type { Peer, Place } from './peers.ts';

export type Measurement = {
  readonly iops: number;
  readonly mibPerSecond: number;
  readonly p99Us: number;
  /** The server's user and system time. */
  readonly cpuUsPerIo: number;
  /** Peak resident memory, all processes of the server. */
  readonly memoryMib: number;
};

export type MeasureOptions = { readonly seconds: number; readonly sizeMib: number; readonly dir: string };

const READY_MS = 60_000;
const STOP_MS = 30_000;
const TICKS_PER_SECOND = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));

// ---- what the kernel says ------------------------------------------------------------------------------------------

function processTree(pid: number): number[] {
  try {
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(/\s+/).filter(Boolean);
    return [pid, ...children.flatMap((child) => processTree(Number(child)))];
  } catch {
    return [];
  }
}

/** Zero for a process that has just ended. */
function ofProcess(pid: number, file: 'stat' | 'status', read: (text: string) => number): number {
  try {
    return read(readFileSync(`/proc/${pid}/${file}`, 'utf8'));
  } catch {
    return 0;
  }
}

function cpuSeconds(pid: number): number {
  const ticks = (stat: string) => {
    // Fields 14 to 17: its own time and that of children that have ended. The name before, in brackets, may hold anything.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
  };
  const total = processTree(pid).reduce((sum, one) => sum + ofProcess(one, 'stat', ticks), 0);
  return total / TICKS_PER_SECOND;
}

function peakMemoryMib(pid: number): number {
  const peak = (status: string) => Number(status.match(/^VmHWM:\s+(\d+)/m)?.[1] ?? 0);
  return processTree(pid).reduce((sum, one) => sum + ofProcess(one, 'status', peak), 0) / 1024;
}

// ---- the server ----------------------------------------------------------------------------------------------------

type Running = { readonly pid: number; readonly uris: readonly string[]; readonly hasEnded: () => boolean };

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** The server's process: the one that was started, or the one that it left behind. Null: not known yet. */
function serverPid(peer: Peer, place: Place, child: ChildProcess): number | null {
  if (peer.pidFile === null) return child.pid ?? null;
  const path = peer.pidFile(place);
  const pid = existsSync(path) ? Number(readFileSync(path, 'utf8')) : 0;
  return pid > 0 ? pid : null;
}

/** Throws while the server is not ready. Our own client speaks no TLS; whoever listens is ready for fio then. */
async function greet({ tcp }: Place, uri: string): Promise<void> {
  if (!tcp?.certificates) return await (await NbdClient.connect(uri)).close();
  const socket = connect({ host: 'localhost', port: tcp.port });
  try {
    await once(socket, 'data');
  } finally {
    socket.destroy();
  }
}

async function placeOf(job: Job, options: MeasureOptions, folder: string): Promise<Place> {
  const certificates = job.transport === 'tls' ? join(folder, 'certificates') : null;
  if (certificates !== null) makeCertificates(certificates);
  return {
    folder,
    socket: join(folder, 's.sock'),
    tcp: job.transport === 'unix' ? null : { port: await freePort(), certificates },
    sizeMib: Math.ceil(options.sizeMib / job.volumes),
    volumes: job.volumes,
  };
}

/** Free a moment ago, which is the best that can be had for servers that do not say which one they got. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, 'localhost');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('a TCP server without a port');
  return address.port;
}

async function start(peer: Peer, place: Place): Promise<Running> {
  rmSync(place.socket, { force: true });
  const logPath = join(place.folder, 'server.log');
  const log = openSync(logPath, 'a');
  const [program = '', ...args] = peer.argv(place);
  const child = spawn(program, args, { stdio: ['ignore', log, log] });
  closeSync(log);
  const failed = (reason: string) => {
    child.kill('SIGKILL');
    return new Error(`${peer.name} ${reason}: ${readFileSync(logPath, 'utf8').slice(-500)}`);
  };
  const until = Date.now() + READY_MS;
  for (;;) {
    const hasExited = child.exitCode !== null || child.signalCode !== null;
    if (hasExited && (peer.pidFile === null || child.exitCode !== 0))
      throw failed(`ended with exit code ${child.exitCode}`);
    if (Date.now() > until) throw failed('was not ready in time');
    const pid = serverPid(peer, place, child);
    if ((place.tcp !== null || existsSync(place.socket)) && pid !== null) {
      try {
        const uris: string[] = [];
        for (let index = 0; index < place.volumes; index += 1) {
          const uri = await peer.uri(place, index);
          await greet(place, uri);
          uris.push(uri);
        }
        const hasEnded = () =>
          peer.pidFile === null ? child.exitCode !== null || child.signalCode !== null : !isRunning(pid);
        return { pid, uris, hasEnded };
      } catch {
        // Not yet; the deadline above ends it.
      }
    }
    await pause(20);
  }
}

async function stop({ pid, hasEnded }: Running): Promise<void> {
  if (hasEnded()) return;
  process.kill(pid, 'SIGTERM');
  const until = Date.now() + STOP_MS;
  while (!hasEnded()) {
    if (Date.now() > until) process.kill(pid, 'SIGKILL');
    await pause(20);
  }
}

/** Overwrites a few blocks, so that each snapshot differs from the one before. */
async function scatter(uri: string, sizeMib: number): Promise<void> {
  const client = await NbdClient.connect(uri);
  const block = Buffer.alloc(4096, 0x5a);
  for (let count = 0; count < 16; count += 1)
    await client.write(Math.floor(Math.random() * sizeMib * 256) * 4096, block);
  await client.close();
}

async function takeSnapshots(peer: Peer, place: Place, running: Running, count: number): Promise<Running> {
  if (peer.snapshot === null) return running;
  const { isOnline, take } = peer.snapshot;
  if (!isOnline) await stop(running);
  for (let taken = 0; taken < count; taken += 1) {
    if (isOnline && taken > 0) await scatter(running.uris[0] ?? '', place.sizeMib);
    await take(place);
  }
  return isOnline ? running : await start(peer, place);
}

function lacks(peer: Peer, job: Job): boolean {
  if (!peer.transports.includes(job.transport)) return true;
  return job.volumes > peer.volumesMax || job.snapshots > (peer.snapshot?.most ?? 0);
}

/** Null where the peer lacks what the job needs. */
export async function measure(peer: Peer, job: Job, options: MeasureOptions): Promise<Measurement | null> {
  if (lacks(peer, job)) return null;
  const folder = await mkdtemp(join(options.dir, 'quarry-bench-'));
  let running: Running | null = null;
  try {
    const place = await placeOf(job, options, folder);
    peer.prepare(place);
    running = await start(peer, place);
    if (job.isFilled) for (const uri of running.uris) await fill(uri, place.sizeMib);
    running = await takeSnapshots(peer, place, running, job.snapshots);
    const before = cpuSeconds(running.pid);
    const shape = [
      ...['--group_reporting', '--randrepeat=0', '--norandommap', '--time_based'],
      ...[`--runtime=${options.seconds}`, `--size=${place.sizeMib}m`, ...job.fio],
    ];
    const targets = running.uris.flatMap((uri, index) => [`--name=j${index}`, `--uri=${uri}`]);
    const seen = seenBy(await fio([...shape, ...targets]));
    const cpu = cpuSeconds(running.pid) - before;
    return {
      iops: seen.iops,
      mibPerSecond: seen.mibPerSecond,
      p99Us: seen.p99Us,
      cpuUsPerIo: (cpu / Math.max(seen.ios, 1)) * 1e6,
      memoryMib: peakMemoryMib(running.pid),
    };
  } finally {
    if (running !== null) await stop(running);
    await rm(folder, { recursive: true, force: true });
  }
}
