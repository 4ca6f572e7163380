/**
 * The one door to the filesystem for everything that has to survive. Reads and writes are synchronous (the engine has a
 * thread of its own, and they mostly meet the page cache); syncs are not. All paths are relative to one root folder.
 * Nobody else in engine and journal imports node:fs; tests put a simulated disk in its place.
 */

import fs from 'node:fs';
import { dirname, join } from 'node:path';
import { flockSync } from 'fs-ext';
import { Failure } from './errors.ts';

export interface OpenFile {
  /** Fills `target` from `offset`; returns how many bytes there were (fewer only at the end of the file). */
  read(offset: number, target: Uint8Array): number;
  write(offset: number, source: Uint8Array): void;
  truncate(sizeBytes: number): void;
  size(): number;
  /** fdatasync: what was written before survives a power loss. A failure is final (law 5). */
  sync(): Promise<void>;
  close(): void;
}

export interface Files {
  /** `existing` fails if it is not there; `create` makes an empty one or opens what is there. */
  open(path: string, mode: 'read' | 'existing' | 'create'): OpenFile;
  exists(path: string): boolean;
  remove(path: string): void;
  makeFolder(path: string): void;
  list(path: string): string[];
  /** Makes creations and removals in a folder durable. */
  syncFolder(path: string): Promise<void>;
  space(): { readonly totalBytes: number; readonly freeBytes: number };
  /** Takes an exclusive lock for the life of the process, or fails with `locked`. Returns its release. */
  lock(path: string): () => void;
  /** Where other programs (the plane) find it. */
  absolute(path: string): string;
}

/** How the engine sees ENOSPC, whoever reports it. */
export function isOutOfSpace(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : null;
  return code === 'ENOSPC' || code === 'EDQUOT';
}

/** An error of the operating system about a file, as opposed to a bug. */
export function isDiskError(error: unknown): boolean {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' && /^E[A-Z0-9]+$/.test(error.code);
}

export function realFiles(root: string): Files {
  const at = (path: string): string => join(root, path);
  return {
    open: (path, mode) => new RealFile(at(path), mode),
    exists: (path) => fs.existsSync(at(path)),
    remove: (path) => fs.rmSync(at(path), { force: true }),
    makeFolder(path) {
      fs.mkdirSync(at(path), { recursive: true, mode: 0o700 });
    },
    list: (path) => fs.readdirSync(at(path)).sort(),
    async syncFolder(path) {
      const descriptor = fs.openSync(at(path), 'r');
      try {
        await new Promise<void>((resolve, reject) =>
          fs.fsync(descriptor, (error) => (error ? reject(error) : resolve())),
        );
      } finally {
        fs.closeSync(descriptor);
      }
    },
    space() {
      const { blocks, bavail, bsize } = fs.statfsSync(root);
      return { totalBytes: blocks * bsize, freeBytes: bavail * bsize };
    },
    lock: (path) => lockFile(at(path)),
    absolute: at,
  };
}

class RealFile implements OpenFile {
  readonly #descriptor: number;

  constructor(path: string, mode: 'read' | 'existing' | 'create') {
    if (mode === 'create') fs.mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    const access = mode === 'read' ? fs.constants.O_RDONLY : fs.constants.O_RDWR;
    this.#descriptor = fs.openSync(path, access | (mode === 'create' ? fs.constants.O_CREAT : 0), 0o600);
  }

  read(offset: number, target: Uint8Array): number {
    let done = 0;
    while (done < target.length) {
      const count = fs.readSync(this.#descriptor, target, done, target.length - done, offset + done);
      if (count === 0) break;
      done += count;
    }
    return done;
  }

  write(offset: number, source: Uint8Array): void {
    let done = 0;
    while (done < source.length) {
      done += fs.writeSync(this.#descriptor, source, done, source.length - done, offset + done);
    }
  }

  truncate(sizeBytes: number): void {
    fs.ftruncateSync(this.#descriptor, sizeBytes);
  }

  size(): number {
    return fs.fstatSync(this.#descriptor).size;
  }

  sync(): Promise<void> {
    return new Promise((resolve, reject) => {
      fs.fdatasync(this.#descriptor, (error) => (error ? reject(error) : resolve()));
    });
  }

  close(): void {
    fs.closeSync(this.#descriptor);
  }
}

/** flock(2): gone with the process, however that ends. The process id inside is for people. */
function lockFile(path: string): () => void {
  const descriptor = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600);
  try {
    flockSync(descriptor, 'exnb');
  } catch (error) {
    const pid = fs.readFileSync(path, 'utf8').trim();
    fs.closeSync(descriptor);
    if (error instanceof Error && 'code' in error && (error.code === 'EAGAIN' || error.code === 'EWOULDBLOCK')) {
      throw new Failure('locked', { path: dirname(path), pid: pid === '' ? 'unknown' : pid });
    }
    throw error;
  }
  fs.ftruncateSync(descriptor, 0);
  fs.writeSync(descriptor, `${process.pid}\n`, 0);
  return () => fs.closeSync(descriptor);
}
