/**
 * The header of a qcow2 file: bytes in, a validated value or a refusal with a reason out. Nothing it names is believed
 * before it was compared with the file's length and with fixed limits, so a hostile file costs no more than a bad one.
 *
 *   offset  size
 *        0     4  magic "QFI\xfb"
 *        4     4  version (2 or 3)
 *        8     8  backing file name's offset (0: none)
 *       16     4  its length
 *       20     4  cluster bits (9..21)
 *       24     8  virtual size
 *       32     4  encryption (0: none)
 *       36     4  entries of the L1 table
 *       40     8  offset of the L1 table
 *       48    24  reference counts and internal snapshots: not needed for reading
 *       72     8  incompatible features (version 3)
 *       80    16  compatible and autoclear features
 *       96     4  refcount order
 *      100     4  header length
 *      104     1  compression type, when the header is longer than 104
 */
import { Failure } from '../base/errors.ts';

export const QCOW2_HEADER_BYTES = 112;

const VERSION_2_BYTES = 72;
const VERSION_3_BYTES = 104;
/** qemu's own limit: an L1 table of 32 MiB covers 2 EiB with 2 MiB clusters. */
const L1_ENTRIES_MAX = (32 << 20) / 8;

const INCOMPATIBLE = { dirty: 1n, corrupt: 2n, externalData: 4n, compressionType: 8n, extendedL2: 16n } as const;
const INCOMPATIBLE_KNOWN = 31n;

export type Qcow2Header = {
  readonly version: 2 | 3;
  readonly clusterBits: number;
  readonly clusterBytes: number;
  readonly sizeBytes: number;
  readonly l1Entries: number;
  readonly l1Offset: number;
  readonly compression: 'zlib' | 'zstd';
  /** Entries of 16 bytes with a bitmap of 32 subclusters. */
  readonly hasSubclusters: boolean;
};

function incompatibleFeatures(path: string, head: Buffer): { compressionSet: boolean; hasSubclusters: boolean } {
  const features = head.readBigUInt64BE(72);
  const has = (bit: bigint) => (features & bit) !== 0n;
  if (has(INCOMPATIBLE.corrupt)) {
    throw new Failure('corrupt', { path, reason: 'it is marked as corrupt. Look at it with: qemu-img check' });
  }
  if (has(INCOMPATIBLE.dirty)) {
    const reason = `${path} was not closed cleanly. Stop what uses it, then: qemu-img check -r leaks ${path}`;
    throw new Failure('bad_request', { reason });
  }
  if (has(INCOMPATIBLE.externalData)) {
    const reason = `${path} keeps its data in another file. Make one file of both: qemu-img convert -O qcow2 ${path} NEW`;
    throw new Failure('not_supported', { reason });
  }
  if ((features & ~INCOMPATIBLE_KNOWN) !== 0n) {
    const reason = `${path} uses a qcow2 feature that is not known here (0x${features.toString(16)}). Convert it: qemu-img convert -O raw ${path} NEW`;
    throw new Failure('not_supported', { reason });
  }
  return { compressionSet: has(INCOMPATIBLE.compressionType), hasSubclusters: has(INCOMPATIBLE.extendedL2) };
}

function versionThree(path: string, head: Buffer): { compression: 'zlib' | 'zstd'; hasSubclusters: boolean } {
  const damaged = (reason: string) => new Failure('corrupt', { path, reason });
  const { compressionSet, hasSubclusters } = incompatibleFeatures(path, head);
  const headerLength = head.readUInt32BE(100);
  if (headerLength < VERSION_3_BYTES) throw damaged(`its header says it is ${headerLength} bytes long`);
  const type = compressionSet && headerLength > VERSION_3_BYTES ? head.readUInt8(104) : 0;
  if (type > 1)
    throw new Failure('not_supported', { reason: `${path} is compressed by method ${type}, which is not known here` });
  return { compression: type === 1 ? 'zstd' : 'zlib', hasSubclusters };
}

export function parseQcow2Header(path: string, head: Buffer, fileBytes: number): Qcow2Header {
  const damaged = (reason: string) => new Failure('corrupt', { path, reason });
  if (fileBytes < VERSION_2_BYTES) throw damaged('the file ends within the header');
  const version = head.readUInt32BE(4);
  if (version !== 2 && version !== 3) {
    throw new Failure('not_supported', { reason: `${path} is qcow version ${version}; versions 2 and 3 can be read` });
  }
  if (head.readBigUInt64BE(8) !== 0n) {
    const reason = `${path} has a backing file, without which it is not complete. Make it whole: qemu-img convert -O qcow2 ${path} NEW`;
    throw new Failure('not_supported', { reason });
  }
  if (head.readUInt32BE(32) !== 0) {
    throw new Failure('not_supported', { reason: `${path} is encrypted. Decrypt it with qemu-img convert first` });
  }
  const { compression, hasSubclusters } =
    version === 3 ? versionThree(path, head) : ({ compression: 'zlib', hasSubclusters: false } as const);

  const clusterBits = head.readUInt32BE(20);
  if (clusterBits < 9 || clusterBits > 21) throw damaged(`its clusters would have 2^${clusterBits} bytes`);
  if (hasSubclusters && clusterBits < 14) throw damaged('its clusters are too small to have subclusters');
  const clusterBytes = 2 ** clusterBits;
  const size = head.readBigUInt64BE(24);
  if (size > BigInt(Number.MAX_SAFE_INTEGER)) throw damaged(`its size of ${size} bytes cannot be true`);
  const sizeBytes = Number(size);
  if (sizeBytes === 0) throw new Failure('bad_request', { reason: `${path} is an image of size 0.` });

  const l1Entries = head.readUInt32BE(36);
  if (l1Entries > L1_ENTRIES_MAX) throw damaged(`its first table would have ${l1Entries} entries`);
  const bytesPerL1Entry = clusterBytes * (clusterBytes / (hasSubclusters ? 16 : 8));
  if (l1Entries < Math.ceil(sizeBytes / bytesPerL1Entry)) {
    throw damaged(`its first table of ${l1Entries} entries does not cover ${sizeBytes} bytes`);
  }
  const l1 = head.readBigUInt64BE(40);
  if (l1 % BigInt(clusterBytes) !== 0n || l1 + BigInt(l1Entries * 8) > BigInt(fileBytes)) {
    throw damaged(`its first table at ${l1} lies outside the file (is the copy complete?)`);
  }
  return {
    version,
    clusterBits,
    clusterBytes,
    sizeBytes,
    l1Entries,
    l1Offset: Number(l1),
    compression,
    hasSubclusters,
  };
}
