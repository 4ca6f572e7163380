/**
 * Raw images: the file is the disk. Holes of the file are holes of the image where the filesystem tells; where it
 * cannot, everything is data and the copier's zero detection does the rest.
 */
import type { FileHandle } from 'node:fs/promises';
import { seek } from 'fs-ext';
import { Failure } from '../base/errors.ts';
import type { ImageExtent, ImageReader } from './image.ts';

// Linux's numbers; fs-ext has no names for them.
const SEEK_DATA = 3;
const SEEK_HOLE = 4;

/** The next position of that kind; null where there is none up to the end; `unknown` where the filesystem can't say. */
function find(file: FileHandle, offset: number, whence: number): Promise<number | null | 'unknown'> {
  return new Promise((resolve) => {
    seek(file.fd, offset, whence, (error, position) => {
      if (error === null) resolve(position);
      else resolve(error.code === 'ENXIO' ? null : 'unknown');
    });
  });
}

class RawImage implements ImageReader {
  readonly format = 'raw';
  readonly sizeBytes: number;
  readonly #path: string;
  readonly #file: FileHandle;

  constructor(path: string, file: FileHandle, sizeBytes: number) {
    this.#path = path;
    this.#file = file;
    this.sizeBytes = sizeBytes;
  }

  async *extents(): AsyncGenerator<ImageExtent> {
    let position = 0;
    while (position < this.sizeBytes) {
      const data = await find(this.#file, position, SEEK_DATA);
      if (data === 'unknown') {
        yield { offset: position, length: this.sizeBytes - position, kind: 'data' };
        return;
      }
      const start = Math.min(data ?? this.sizeBytes, this.sizeBytes);
      if (start > position) yield { offset: position, length: start - position, kind: 'hole' };
      if (start >= this.sizeBytes) return;
      const hole = await find(this.#file, start, SEEK_HOLE);
      const end = typeof hole === 'number' && hole > start ? Math.min(hole, this.sizeBytes) : this.sizeBytes;
      yield { offset: start, length: end - start, kind: 'data' };
      position = end;
    }
  }

  async read(offset: number, target: Buffer): Promise<void> {
    let done = 0;
    while (done < target.length) {
      const { bytesRead } = await this.#file.read(target, done, target.length - done, offset + done);
      if (bytesRead === 0) {
        const reason = `${this.#path} became shorter while it was read: nothing at ${offset + done} of ${this.sizeBytes} bytes`;
        throw new Failure('io_error', { reason });
      }
      done += bytesRead;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }
}

export function openRaw(path: string, file: FileHandle, sizeBytes: number): ImageReader {
  return new RawImage(path, file, sizeBytes);
}
