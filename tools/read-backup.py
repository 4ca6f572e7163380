#!/usr/bin/env python3
"""Restores a backup of Quarry from a folder that holds its repository, with nothing but Python's own library (and the
package zstandard, where chunks are compressed by zstd).

usage: read-backup.py REPOSITORY VOLUME BACKUP TARGET

Written from docs/backup-format.md alone, as a second opinion on that page: it shares no code with Quarry. It checks
every hash and writes a sparse raw image. It is slow (BLAKE3 and LZ4 in Python), and does not read encrypted backups.
"""
import json
import os
import struct
import sys

M32 = 0xFFFFFFFF
IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8


def schedules():
    rows, row = [], tuple(range(16))
    for _ in range(7):
        rows.append(row)
        row = tuple(row[i] for i in PERMUTATION)
    return rows


SCHEDULES = schedules()
MIXES = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15), (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))


def compress(cv, words, counter, length, flags):
    v = list(cv) + list(IV[:4]) + [counter & M32, counter >> 32, length, flags]
    for row in SCHEDULES:
        for i, (a, b, c, d) in enumerate(MIXES):
            x, y = words[row[2 * i]], words[row[2 * i + 1]]
            va, vb, vc, vd = v[a], v[b], v[c], v[d]
            va = (va + vb + x) & M32
            vd ^= va
            vd = (vd >> 16) | (vd << 16 & M32)
            vc = (vc + vd) & M32
            vb ^= vc
            vb = (vb >> 12) | (vb << 20 & M32)
            va = (va + vb + y) & M32
            vd ^= va
            vd = (vd >> 8) | (vd << 24 & M32)
            vc = (vc + vd) & M32
            vb ^= vc
            vb = (vb >> 7) | (vb << 25 & M32)
            v[a], v[b], v[c], v[d] = va, vb, vc, vd
    return [v[i] ^ v[i + 8] for i in range(8)]


def node(data, counter, extra):
    """The chaining value of at most 1024 bytes."""
    cv = IV
    blocks = [data[i:i + 64] for i in range(0, len(data), 64)] or [b'']
    for i, block in enumerate(blocks):
        flags = (CHUNK_START if i == 0 else 0) | ((CHUNK_END | extra) if i == len(blocks) - 1 else 0)
        cv = compress(cv, struct.unpack('<16I', block.ljust(64, b'\0')), counter, len(block), flags)
    return cv


def tree(data, counter, extra):
    if len(data) <= 1024:
        return node(data, counter, extra)
    left = 1024
    while left * 2 < len(data):
        left *= 2
    words = tree(data[:left], counter, 0) + tree(data[left:], counter + left // 1024, 0)
    return compress(IV, words, 0, 64, PARENT | extra)


def blake3(data):
    return struct.pack('<8I', *tree(memoryview(data).tobytes(), 0, ROOT))


def lz4(data, size):
    """A block of LZ4 that decompresses to exactly so many bytes."""
    out, at = bytearray(), 0
    while at < len(data):
        token = data[at]
        at += 1
        count = token >> 4
        if count == 15:
            while data[at] == 255:
                count += 255
                at += 1
            count += data[at]
            at += 1
        out += data[at:at + count]
        at += count
        if at >= len(data):
            break
        offset = data[at] | data[at + 1] << 8
        at += 2
        count = (token & 15) + 4
        if token & 15 == 15:
            while data[at] == 255:
                count += 255
                at += 1
            count += data[at]
            at += 1
        if offset == 0 or offset > len(out) or len(out) + count > size:
            raise ValueError('a match outside the block')
        for _ in range(count):
            out.append(out[-offset])
    if len(out) != size:
        raise ValueError(f'{len(out)} bytes instead of {size}')
    return bytes(out)


def unpacked(data, size):
    """Compressed bytes: the length they have afterwards, then the block."""
    if struct.unpack_from('<I', data)[0] != size:
        raise ValueError('another length than that of a chunk')
    return lz4(data[4:], size)


def zstd(data, size):
    try:
        import zstandard
    except ImportError:
        sys.exit('read-backup: chunks are compressed by zstd: install the Python package zstandard')
    try:
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
    except zstandard.ZstdError as error:
        raise ValueError(error) from error


CODECS = {1: lambda data, size: data, 2: unpacked, 3: zstd}


class Damaged(Exception):
    pass


def check(holds, what):
    if not holds:
        raise Damaged(what)


class Repository:
    def __init__(self, root):
        self.root = root
        about = self.sealed('format.json')
        check(about['kind'] == 'repository', 'format.json describes no repository')
        check(about['format'] == 1, f"format {about['format']} is not 1")

    def read(self, key, offset=0, length=-1):
        with open(os.path.join(self.root, key), 'rb') as file:
            file.seek(offset)
            return file.read(length)

    def sealed(self, key):
        line, _, rest = self.read(key).partition(b'\n')
        check(rest == blake3(line).hex().encode() + b'\n', f'{key} is not what was written')
        return json.loads(line)


def restore(repository, volume, backup, target):
    manifest = repository.sealed(f'vol/{volume}/manifest/{backup}.json')
    check(manifest['kind'] == 'backup', 'a tombstone: this backup was given up')
    check(not manifest['is_encrypted'], 'the backup is encrypted')
    size, chunk_bytes, leaf_chunks = manifest['size_bytes'], manifest['chunk_bytes'], manifest['leaf_chunks']
    packs = {number: f'vol/{volume}/pack/{owner}/{sequence:08}.pack' for number, owner, sequence, *_ in manifest['packs']}
    indexes = {number: f'vol/{volume}/idx/{owner}/{sequence:08}.idx' for number, owner, sequence, _ in manifest['indexes']}
    root = struct.pack('<QI', size, chunk_bytes)
    root += b''.join(struct.pack('<I', leaf[0]) + bytes.fromhex(leaf[4]) for leaf in manifest['leaves'])
    check(blake3(root).hex() == manifest['root'], 'the root is not that of the leaves')
    with open(target, 'wb') as image:
        image.truncate(size)
        for number, index, offset, length, leaf_hash in manifest['leaves']:
            stored = repository.read(indexes[index], offset, length)
            leaf = stored if length == leaf_chunks * 48 else unpacked(stored, leaf_chunks * 48)
            check(blake3(leaf).hex() == leaf_hash, f'leaf {number} is not what was written')
            for slot in range(leaf_chunks):
                pack, at, stored_bytes, flags, chunk_hash = struct.unpack_from('<IIII32s', leaf, slot * 48)
                if pack == 0:
                    continue
                chunk = number * leaf_chunks + slot
                data = repository.read(packs[pack], at, stored_bytes)
                check(flags in CODECS, f'chunk {chunk} has flags {flags:#x}')
                plain = CODECS[flags](data, chunk_bytes)
                check(len(plain) == chunk_bytes and blake3(plain) == chunk_hash, f'chunk {chunk} is damaged')
                image.seek(chunk * chunk_bytes)
                image.write(plain[:size - chunk * chunk_bytes])


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    _, root, volume, backup, target = sys.argv
    try:
        restore(Repository(root), volume, backup, target)
    except (Damaged, ValueError, IndexError, KeyError, OSError) as error:
        sys.exit(f'read-backup: {error}')


if __name__ == '__main__':
    main()
