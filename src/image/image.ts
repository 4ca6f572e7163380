/**
 * What an image file is to the rest: a size, ranges that hold data, and reads. Recognises the format by content, and
 * refuses with a name those it knows but cannot read. It knows nothing of volumes.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { Failure } from '../base/errors.ts';
import { openQcow2 } from './qcow2.ts';
import { openRaw } from './raw.ts';

export type ImageExtent = { readonly offset: number; readonly length: number; readonly kind: 'data' | 'hole' };

export interface ImageReader extends AsyncDisposable {
  readonly format: 'raw' | 'qcow2';
  /** What a guest sees. */
  readonly sizeBytes: number;
  /** The whole image in order; a hole reads as zeros. */
  extents(): AsyncGenerator<ImageExtent>;
  /** Fills the whole of `target` from `offset`; the range lies within the image. */
  read(offset: number, target: Buffer): Promise<void>;
}

/** Long enough for every magic below. */
const PROBE_BYTES = 512;

const QCOW2_MAGIC = 0x514649fb;

/** Formats that would be taken for raw bytes, and a disk full of nonsense be made of them. */
const FOREIGN: readonly { readonly name: string; readonly offset: number; readonly magic: string }[] = [
  { name: 'VMDK', offset: 0, magic: 'KDMV' },
  { name: 'VMDK descriptor', offset: 0, magic: '# Disk DescriptorFile' },
  { name: 'VHDX', offset: 0, magic: 'vhdxfile' },
  { name: 'VHD', offset: 0, magic: 'conectix' },
  { name: 'VDI', offset: 64, magic: '\x7f\x10\xda\xbe' },
  { name: 'QED', offset: 0, magic: 'QED\0' },
  { name: 'Parallels', offset: 0, magic: 'WithoutFreeSpace' },
  { name: 'Parallels', offset: 0, magic: 'WithouFreSpacExt' },
  { name: 'LUKS', offset: 0, magic: 'LUKS\xba\xbe' },
  { name: 'gzip', offset: 0, magic: '\x1f\x8b' },
  { name: 'xz', offset: 0, magic: '\xfd7zXZ\0' },
  { name: 'zstd', offset: 0, magic: '\x28\xb5\x2f\xfd' },
  { name: 'bzip2', offset: 0, magic: 'BZh' },
];

function refuseForeign(path: string, probe: Buffer): void {
  const found = FOREIGN.find(({ offset, magic }) => {
    const bytes = Buffer.from(magic, 'latin1');
    return probe.subarray(offset, offset + bytes.length).equals(bytes);
  });
  if (found === undefined) return;
  throw new Failure('not_supported', {
    reason: `${path} is a ${found.name} file, and only raw and qcow2 images can be read. Unpack it, or convert it: qemu-img convert -O qcow2 ${path} NEW`,
  });
}

async function openFile(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'r');
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : null;
    if (code === 'ENOENT') throw new Failure('bad_request', { reason: `${path} does not exist.` });
    if (code === 'EACCES') throw new Failure('bad_request', { reason: `${path} may not be read by this user.` });
    throw error;
  }
}

export async function openImage(path: string): Promise<ImageReader> {
  const file = await openFile(path);
  try {
    const stat = await file.stat();
    if (!stat.isFile()) throw new Failure('bad_request', { reason: `${path} is not a regular file.` });
    const probe = Buffer.alloc(PROBE_BYTES);
    await file.read(probe, 0, PROBE_BYTES, 0);
    if (probe.readUInt32BE(0) === QCOW2_MAGIC) return await openQcow2(path, file, stat.size);
    refuseForeign(path, probe);
    if (stat.size === 0) throw new Failure('bad_request', { reason: `${path} is empty.` });
    return openRaw(path, file, stat.size);
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Fills `target` from the file; beyond its end there are zeros. */
export async function readPadded(file: FileHandle, offset: number, target: Buffer): Promise<void> {
  let done = 0;
  while (done < target.length) {
    const { bytesRead } = await file.read(target, done, target.length - done, offset + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  target.fill(0, done);
}
