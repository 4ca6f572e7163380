import { execFileSync } from 'node:child_process';
import { open, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { zstdFrameBytes } from '../../src/image/compression.ts';
import { openImage } from '../../src/image/image.ts';
import { describeWith, hasPeer, run } from '../support/peers.ts';
import { type TempFolder, tempFolder } from '../support/temp.ts';
import { fileDigest, imageDigest, readDigest, seededBytes, writeSample } from './samples.ts';

const SIZE = 24 << 20;
const canZstd = 'zstdDecompressSync' in (await import('node:zlib'));

let folder: TempFolder;
let sample: string;
let digest: string;

beforeAll(async () => {
  folder = await tempFolder();
  sample = join(folder.path, 'sample.raw');
  await writeSample(sample, SIZE);
  digest = await fileDigest(sample);
});
afterAll(async () => await folder.remove());

async function convert(name: string, options: string, ...more: string[]): Promise<string> {
  const path = join(folder.path, name);
  await run('qemu-img', [
    'convert',
    '-f',
    'raw',
    '-O',
    'qcow2',
    ...(options ? ['-o', options] : []),
    ...more,
    sample,
    path,
  ]);
  return path;
}

/** A copy of an image with some bytes changed. */
async function damaged(
  path: string,
  name: string,
  changes: readonly (readonly [offset: number, bytes: Buffer])[],
): Promise<string> {
  const bytes = await readFile(path);
  for (const [offset, change] of changes) change.copy(bytes, offset);
  const target = join(folder.path, name);
  await writeFile(target, bytes);
  return target;
}

const u32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};
const u64 = (value: bigint) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(value);
  return bytes;
};

const ALL_OPTIONS: readonly (readonly [title: string, options: string, ...more: string[]])[] = [
  ['default options', ''],
  ['version 2', 'compat=0.10'],
  ['version 2, compressed', 'compat=0.10', '-c'],
  ['clusters of 512 bytes', 'cluster_size=512'],
  ['clusters of 4 KiB', 'cluster_size=4k'],
  ['clusters of 2 MiB', 'cluster_size=2M'],
  ['subclusters', 'extended_l2=on'],
  ['subclusters of 512 bytes', 'extended_l2=on,cluster_size=16k'],
  ['subclusters of 64 KiB', 'extended_l2=on,cluster_size=2M'],
  ['compressed', '', '-c'],
  ['compressed, clusters of 512 bytes', 'cluster_size=512', '-c'],
  ['compressed, clusters of 2 MiB', 'cluster_size=2M', '-c'],
  ['compressed with subclusters', 'extended_l2=on,cluster_size=128k', '-c'],
  ['preallocated tables', 'preallocation=metadata'],
  ['preallocated in full', 'preallocation=falloc'],
  ['lazy reference counts', 'lazy_refcounts=on'],
  ['reference counts of 64 bits', 'refcount_bits=64'],
];

describeWith(['qemu-img', 'qemu-io'], 'a qcow2 image made by qemu-img', () => {
  for (const [index, [title, options, ...more]] of ALL_OPTIONS.entries()) {
    test(`reads as qemu-img reads it: ${title}`, async () => {
      const path = await convert(`options-${index}.qcow2`, options, ...more);
      await using image = await openImage(path);
      expect(image.format).toBe('qcow2');
      expect(image.sizeBytes).toBe(SIZE);
      expect(await imageDigest(image)).toBe(digest);
      expect(await readDigest(image)).toBe(digest);
    });
  }

  test('with zeros written and data discarded reads as qemu-img converts it', async () => {
    for (const options of ['', 'extended_l2=on', 'compat=0.10', 'cluster_size=2M']) {
      const path = await convert(`edited-${options.replace(/\W/g, '')}.qcow2`, options);
      const edits = [
        'write -z 1000k 64k',
        'write -z -u 3M 256k',
        'discard 3584k 128k',
        'write -P 7 3601k 3k',
        'write -z 10241k 1k',
      ];
      await run('qemu-io', ['-f', 'qcow2', ...edits.flatMap((edit) => ['-c', edit]), path]);
      const raw = `${path}.raw`;
      await run('qemu-img', ['convert', '-O', 'raw', path, raw]);
      await using image = await openImage(path);
      expect(await imageDigest(image), options).toBe(await fileDigest(raw));
    }
  });

  test('with internal snapshots reads as the disk is now', async () => {
    const path = await convert('snapshots.qcow2', '');
    await run('qemu-img', ['snapshot', '-c', 'before', path]);
    await run('qemu-io', ['-f', 'qcow2', '-c', 'write -P 9 2M 3M', path]);
    await run('qemu-img', ['convert', '-O', 'raw', path, `${path}.raw`]);
    await using image = await openImage(path);
    expect(await imageDigest(image)).toBe(await fileDigest(`${path}.raw`));
  });

  test('of 8 TiB with nothing in it is one hole, found at once', async () => {
    const path = join(folder.path, 'large.qcow2');
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', path, '8T']);
    await using image = await openImage(path);
    const extents = [];
    for await (const extent of image.extents()) extents.push(extent);
    expect(extents).toEqual([{ offset: 0, length: 2 ** 43, kind: 'hole' }]);
  });

  test('whose size is no multiple of a cluster ends where it ends', async () => {
    const path = join(folder.path, 'odd.qcow2');
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', path, '100000512']);
    await run('qemu-io', ['-f', 'qcow2', '-c', 'write -P 5 99999744 768', path]);
    await run('qemu-img', ['convert', '-O', 'raw', path, `${path}.raw`]);
    await using image = await openImage(path);
    expect(image.sizeBytes).toBe(100_000_768);
    expect(await imageDigest(image)).toBe(await fileDigest(`${path}.raw`));
  });

  test('compressed by zstd is read where Node can, and refused with what to do where it cannot', async () => {
    const path = await convert('zstd.qcow2', 'compression_type=zstd', '-c');
    if (!canZstd) {
      await expect(openImage(path)).rejects.toThrow(/zstd.*Node 22\.15 or newer.*qemu-img convert/);
      return;
    }
    await using image = await openImage(path);
    expect(await imageDigest(image)).toBe(digest);
  });
});

describeWith(['qemu-img', 'qemu-io'], 'a qcow2 image that is not what it should be', () => {
  let good: string;
  beforeAll(async () => {
    good = await convert('good.qcow2', '');
  });

  test('is refused when it has a backing file', async () => {
    const path = join(folder.path, 'overlay.qcow2');
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', good, path]);
    await expect(openImage(path)).rejects.toThrow(/has a backing file.*qemu-img convert/);
  });

  test('is refused when it is encrypted', async () => {
    const path = join(folder.path, 'encrypted.qcow2');
    const secret = ['--object', 'secret,id=s,data=hush'];
    // AES: for LUKS qemu-img first measures the processor, and now and then gives up on a machine with other work.
    const options = 'encrypt.format=aes,encrypt.key-secret=s';
    await run('qemu-img', ['create', '-q', ...secret, '-f', 'qcow2', '-o', options, path, '1M']);
    await expect(openImage(path)).rejects.toThrow(/is encrypted/);
  });

  test('is refused when its data are in another file', async () => {
    const path = join(folder.path, 'external.qcow2');
    const data = join(folder.path, 'external.data');
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', `data_file=${data}`, path, '1M']);
    await expect(openImage(path)).rejects.toThrow(/keeps its data in another file/);
  });

  const FEATURES = 72;
  test.each([
    ['dirty', [[FEATURES, u64(1n)]], /was not closed cleanly.*qemu-img check/],
    ['corrupt', [[FEATURES, u64(2n)]], /marked as corrupt/],
    ['using an unknown feature', [[FEATURES, u64(1n << 20n)]], /feature that is not known/],
    ['encrypted by LUKS', [[32, u32(2)]], /is encrypted/],
    ['of version 1', [[4, u32(1)]], /version 1; versions 2 and 3/],
    ['of version 4', [[4, u32(4)]], /version 4/],
    ['of clusters of 2^40 bytes', [[20, u32(40)]], /clusters would have 2\^40/],
    ['of clusters of 2 bytes', [[20, u32(1)]], /clusters would have 2\^1 /],
    ['of 2^63 bytes', [[24, u64(1n << 63n)]], /cannot be true/],
    ['larger than its first table', [[24, u64(1n << 50n)]], /does not cover/],
    ['with a first table of 2^32 - 1 entries', [[36, u32(0xffffffff)]], /would have 4294967295 entries/],
    ['with a first table outside the file', [[40, u64(1n << 40n)]], /outside the file/],
    ['with a first table that is not aligned', [[40, u64(0x30001n)]], /outside the file/],
    [
      'compressed by an unknown method',
      [
        [FEATURES, u64(8n)],
        [100, u32(112)],
        [104, Buffer.from([9])],
      ],
      /method 9/,
    ],
    ['of a header too short', [[100, u32(8)]], /header says it is 8 bytes/],
  ] as const)('is refused when it is %s', async (title, changes, message) => {
    const path = await damaged(good, `bad-${title.replace(/\W/g, '')}.qcow2`, changes);
    await expect(openImage(path)).rejects.toThrow(message);
  });

  test('is refused when a table or a cluster lies outside the file', async () => {
    const bytes = await readFile(good);
    const l1 = Number(bytes.readBigUInt64BE(40));
    const l2 = Number(bytes.readBigUInt64BE(l1) & 0x00fffffffffffe00n);
    for (const [name, at] of [
      ['l1', l1],
      ['l2', l2],
    ] as const) {
      const path = await damaged(good, `outside-${name}.qcow2`, [[at, u64((1n << 63n) | (1n << 50n))]]);
      await using image = await openImage(path);
      await expect(imageDigest(image)).rejects.toThrow(/lies outside the file/);
    }
  });

  test('is refused when the copy of it is cut off', async () => {
    const path = await damaged(good, 'cut.qcow2', []);
    await truncate(path, 300_000);
    const read = async () => {
      await using image = await openImage(path);
      return await imageDigest(image);
    };
    await expect(read()).rejects.toThrow(/outside the file/);
  });

  test('fails or gives some content, whatever its bytes are, and never more than its size', async () => {
    const compressed = await convert('compressed.qcow2', 'cluster_size=4k', '-c');
    const subclusters = await convert('subclusters.qcow2', 'extended_l2=on');
    for (const source of [good, compressed, subclusters]) {
      const bytes = await readFile(source);
      for (let seed = 1; seed <= 60; seed += 1) {
        const random = seededBytes(seed * 7919, 64);
        const hostile = Buffer.from(bytes);
        // Tables lie in the first 512 KiB; the magic stays, so that it is this reader that judges.
        for (let change = 0; change < 8; change += 1) {
          const at =
            4 + (random.readUInt32LE(change * 8) % (seed % 3 === 0 ? 112 : Math.min(bytes.length - 12, 512 << 10)));
          random.copy(hostile, at, change * 8 + 4, change * 8 + 8);
        }
        const path = join(folder.path, 'hostile.qcow2');
        await writeFile(path, hostile);
        try {
          await using image = await openImage(path);
          if (image.sizeBytes <= 1 << 30) await imageDigest(image);
        } catch (error) {
          expect(error, `seed ${seed} of ${source}: ${(error as Error).stack}`).toHaveProperty('name', 'Failure');
        }
      }
    }
  });
});

describe('an image file', () => {
  test('of another format is refused by name and not taken for raw bytes', async () => {
    for (const [name, magic] of [
      ['VMDK', 'KDMV'],
      ['VHDX', 'vhdxfile'],
      ['gzip', '\x1f\x8b'],
    ] as const) {
      const path = join(folder.path, `foreign.${name}`);
      await writeFile(path, Buffer.concat([Buffer.from(magic, 'latin1'), Buffer.alloc(4096)]));
      await expect(openImage(path)).rejects.toThrow(new RegExp(`is a ${name} file.*qemu-img convert`));
    }
  });

  test('that is missing, empty or a folder is refused', async () => {
    await expect(openImage(join(folder.path, 'nothing'))).rejects.toThrow(/does not exist/);
    await expect(openImage(folder.path)).rejects.toThrow(/not a regular file/);
    const path = join(folder.path, 'empty');
    await writeFile(path, '');
    await expect(openImage(path)).rejects.toThrow(/is empty/);
  });

  test('that is raw keeps its holes and reads as it is', async () => {
    await using image = await openImage(sample);
    expect(image.format).toBe('raw');
    const extents = [];
    for await (const extent of image.extents()) extents.push(extent);
    expect(extents.some((extent) => extent.kind === 'hole')).toBe(true);
    expect(await imageDigest(image)).toBe(digest);
    expect(await readDigest(image)).toBe(digest);
  });

  test('that becomes shorter while it is read fails and does not read as zeros', async () => {
    const path = join(folder.path, 'shrinking.raw');
    await writeFile(path, seededBytes(3, 1 << 20));
    await using image = await openImage(path);
    const file = await open(path, 'r+');
    await file.truncate(1000);
    await file.close();
    await expect(image.read(4096, Buffer.alloc(4096))).rejects.toThrow(/became shorter/);
  });
});

describe.skipIf(!hasPeer('zstd'))('the length of a zstd frame', () => {
  test('is found without unpacking it, also with foreign bytes behind it', () => {
    for (const length of [0, 1, 100, 65_536, 300_000]) {
      for (const input of [seededBytes(5, length), Buffer.alloc(length, 'abc')]) {
        for (const flags of ['--check', '--no-check']) {
          const frame = execFileSync('zstd', ['-q', '-c', flags], { input });
          expect(zstdFrameBytes(frame)).toBe(frame.length);
          expect(zstdFrameBytes(Buffer.concat([frame, seededBytes(9, 600)]))).toBe(frame.length);
          expect(zstdFrameBytes(frame.subarray(0, frame.length - 1))).toBe(null);
        }
      }
    }
    expect(zstdFrameBytes(Buffer.alloc(600))).toBe(null);
  });
});
