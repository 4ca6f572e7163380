/**
 * Objects as files of a local folder. An object appears under its name when all of it is on disk, by a link or rename
 * within the folder, so a crash leaves it as it was or leaves an unnamed part that the next opening removes.
 */
import { randomUUID } from 'node:crypto';
import { type FileHandle, link, mkdir, open, readdir, rename, rm, rmdir, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { Failure } from '../base/errors.ts';
import {
  type ObjectInfo,
  type ObjectRange,
  type ObjectStore,
  type PutOptions,
  requireKey,
  unavailable,
} from './objects.ts';

/** Parts of objects under way. A key never begins with a dot. */
const PARTS = '.parts';
/** A part this old belongs to nobody: the largest object is written in seconds. */
const PART_AGE_MS = 24 * 3600 * 1000;
/** A folder may vanish, when its last object is deleted, between its making and its use. */
const PUT_TRIES = 5;

export class FolderObjects implements ObjectStore {
  readonly place: string;
  readonly #root: string;

  private constructor(root: string) {
    this.#root = root;
    this.place = `file:${root}`;
  }

  static async open(path: string, nowMs: number): Promise<FolderObjects> {
    const root = resolve(path);
    try {
      await mkdir(join(root, PARTS), { recursive: true, mode: 0o700 });
      for (const name of await readdir(join(root, PARTS))) {
        const part = join(root, PARTS, name);
        const found = await stat(part).catch(() => null);
        if (found !== null && nowMs - found.mtimeMs > PART_AGE_MS) await rm(part, { force: true });
      }
    } catch (error) {
      throw new Failure('objects_unavailable', { reason: `file:${root}: ${(error as Error).message}` });
    }
    return new FolderObjects(root);
  }

  async put(key: string, body: Buffer, { ifAbsent }: PutOptions): Promise<'stored' | 'exists'> {
    const path = this.#path(key);
    const part = join(this.#root, PARTS, randomUUID());
    return this.#guard(async () => {
      try {
        const file = await open(part, 'wx', 0o600);
        try {
          await file.writeFile(body);
          await file.sync();
        } finally {
          await file.close();
        }
        return await this.#name(part, path, ifAbsent);
      } finally {
        await rm(part, { force: true });
      }
    });
  }

  async get(key: string, range: ObjectRange | null): Promise<Buffer | null> {
    const path = this.#path(key);
    return this.#guard(async () => {
      const file = await ifThere(open(path, 'r'));
      if (file === null) return null;
      try {
        const { size } = await file.stat();
        const [start, length] = within(size, range);
        return await readExactly(file, start, length);
      } finally {
        await file.close();
      }
    });
  }

  async *list(prefix: string): AsyncGenerator<ObjectInfo> {
    const folder = this.#path(prefix.replace(/\/$/, ''));
    const entries = await this.#guard(async () => (await ifThere(readdir(folder, { withFileTypes: true }))) ?? []);
    for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const key = `${prefix}${entry.name}`;
      if (entry.isDirectory()) yield* this.list(`${key}/`);
      else {
        const found = await this.#guard(() => ifThere(stat(join(folder, entry.name))));
        if (found !== null) yield { key, sizeBytes: found.size, modifiedMs: found.mtimeMs };
      }
    }
  }

  async folders(prefix: string): Promise<string[]> {
    const folder = this.#path(prefix.replace(/\/$/, ''));
    return this.#guard(async () => {
      const entries = (await ifThere(readdir(folder, { withFileTypes: true }))) ?? [];
      return entries
        .filter((entry) => entry.isDirectory())
        .map(({ name }) => name)
        .sort();
    });
  }

  async delete(keys: readonly string[]): Promise<void> {
    const paths = keys.map((key) => this.#path(key));
    await this.#guard(async () => {
      for (const path of paths) await rm(path, { force: true });
      for (const folder of new Set(paths.map(dirname))) await this.#settleRemovals(folder);
    });
  }

  close(): void {}

  async #name(part: string, path: string, ifAbsent: boolean): Promise<'stored' | 'exists'> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        await this.#makeFolder(dirname(path));
        // A link does not replace what is there; a rename does.
        if (ifAbsent) await link(part, path);
        else await rename(part, path);
        await syncFolder(dirname(path));
        return 'stored';
      } catch (error) {
        const code = codeOf(error);
        if (code === 'EEXIST' && ifAbsent) return 'exists';
        if (code !== 'ENOENT' || attempt === PUT_TRIES) throw error;
      }
    }
  }

  /** Makes a folder and those above it, each durable in its own. */
  async #makeFolder(folder: string): Promise<void> {
    const first = await mkdir(folder, { recursive: true, mode: 0o700 });
    if (first === undefined) return;
    for (let path = folder; path.length >= first.length; path = dirname(path)) await syncFolder(dirname(path));
  }

  /** Empty folders go too, so that `folders` names only what has objects. */
  async #settleRemovals(folder: string): Promise<void> {
    let path = folder;
    while (path !== this.#root) {
      try {
        await syncFolder(path);
        await rmdir(path);
      } catch (error) {
        const code = codeOf(error);
        if (code === 'ENOTEMPTY' || code === 'EEXIST') return;
        if (code !== 'ENOENT') throw error;
      }
      path = dirname(path);
    }
    await syncFolder(this.#root);
  }

  #path(key: string): string {
    requireKey(key);
    return join(this.#root, key);
  }

  async #guard<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw error instanceof Failure ? error : unavailable(this.place, error);
    }
  }
}

function codeOf(error: unknown): string | null {
  return error instanceof Error && 'code' in error ? String(error.code) : null;
}

async function ifThere<T>(work: Promise<T>): Promise<T | null> {
  try {
    return await work;
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return null;
    throw error;
  }
}

function within(size: number, range: ObjectRange | null): [number, number] {
  if (range === null) return [0, size];
  if ('last' in range) return [Math.max(0, size - range.last), Math.min(size, range.last)];
  const start = Math.min(range.offset, size);
  return [start, Math.min(range.length, size - start)];
}

async function readExactly(file: FileHandle, start: number, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafeSlow(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await file.read(bytes, done, length - done, start + done);
    if (bytesRead === 0) return bytes.subarray(0, done);
    done += bytesRead;
  }
  return bytes;
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
