/**
 * A filesystem of the kernel on a disk of a test: the test serves the disk over NBD, nbdfuse shows it as a file, a loop device
 * makes a block device of that, and mount takes it. The kernel's own flushes arrive at the test's disk. Needs root and /dev/fuse.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { NbdDiskServer, type ServedDisk } from './nbd-disk.ts';
import { run, tryRun } from './peers.ts';
import { type TempFolder, tempFolder } from './temp.ts';

/** A mount that did not come in this time does not come. */
const MOUNT_MS = 20_000;
const POLL_MS = 10;

export const canMount = process.getuid?.() === 0 && existsSync('/dev/fuse') && existsSync('/dev/loop-control');

export class MountedDisk implements AsyncDisposable {
  readonly #folder: TempFolder;
  readonly #server: NbdDiskServer;
  readonly #fuse: ChildProcess;
  readonly #fuseEnded: Promise<void>;
  #device: string | null = null;
  #isMounted = false;

  private constructor(folder: TempFolder, server: NbdDiskServer, fuse: ChildProcess) {
    [this.#folder, this.#server, this.#fuse] = [folder, server, fuse];
    this.#fuseEnded = new Promise((resolve) => fuse.once('close', () => resolve()));
  }

  /** Where the filesystem is. */
  get path(): string {
    return join(this.#folder.path, 'mnt');
  }

  get #file(): string {
    return join(this.#folder.path, 'disk');
  }

  /** With `format`, a new filesystem; without, the one that is there. */
  static async open(disk: ServedDisk, sizeBytes: number, format: readonly string[] | null): Promise<MountedDisk> {
    const folder = await tempFolder();
    const socket = join(folder.path, 'nbd.sock');
    const server = new NbdDiskServer(disk, sizeBytes);
    await server.listen(socket);
    const file = join(folder.path, 'disk');
    await writeFile(file, '');
    const fuse = spawn('nbdfuse', [file, '--unix', socket], { stdio: 'ignore' });
    const mounted = new MountedDisk(folder, server, fuse);
    try {
      await mounted.#mount(sizeBytes, format);
    } catch (error) {
      await mounted.close();
      throw error;
    }
    return mounted;
  }

  async #mount(sizeBytes: number, format: readonly string[] | null): Promise<void> {
    const until = Date.now() + MOUNT_MS;
    while ((await stat(this.#file)).size !== sizeBytes) {
      if (this.#fuse.exitCode !== null || Date.now() > until) throw new Error('nbdfuse did not show the disk');
      await sleep(POLL_MS);
    }
    // Direct: nothing of it stays in a cache of the host, and a flush of the device is one of the disk.
    const device = (await run('losetup', ['--find', '--show', '--direct-io=on', this.#file])).trim();
    this.#device = device;
    const [program, ...args] = format ?? [];
    if (program !== undefined) await run(program, [...args, device]);
    await mkdir(this.path, { recursive: true });
    await run('mount', [device, this.path]);
    this.#isMounted = true;
  }

  /** Also of a disk whose power is off: then the kernel finds out that its filesystem is gone. */
  async close(): Promise<void> {
    const failures: string[] = [];
    const end = async (command: string, ...args: string[]): Promise<void> => {
      const { code, stderr } = await tryRun(command, args);
      if (code !== 0) failures.push(`${command} ${args.join(' ')}: ${stderr}`);
    };
    if (this.#isMounted) await end('umount', this.path);
    this.#isMounted = false;
    if (this.#device !== null) await end('losetup', '--detach', this.#device);
    this.#device = null;
    if (this.#fuse.exitCode === null) {
      await end('umount', this.#file);
      await this.#fuseEnded;
    }
    await this.#server[Symbol.asyncDispose]();
    if (failures.length > 0) throw new Error(failures.join('\n'));
    await this.#folder.remove();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
