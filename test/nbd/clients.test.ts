/**
 * The programs people attach volumes with (qemu, libnbd, fio), each against the real daemon, each judging by its own means
 * what it reads: every command and flag that the export announces, from one connection and from several.
 */
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { describeWith, run, tryRun } from '../support/peers.ts';
import { quarryOn } from '../support/quarry.ts';
import { type TempFolder, tempFolder } from '../support/temp.ts';

const GIB = 2 ** 30;
const MIB = 2 ** 20;
/** fio with verification, twice over, on a machine that does other things too. */
const TIMEOUT_MS = 240_000;

describeWith(['qemu-io', 'qemu-img', 'nbdinfo', 'nbdcopy', 'nbdsh', 'fio'], 'with clients that are not ours', () => {
  let daemon: Daemon;
  let folder: TempFolder;
  let uri: string;
  let number = 0;

  beforeAll(async () => {
    daemon = await startDaemon();
    folder = await tempFolder();
  });
  afterAll(async () => {
    await folder.remove();
    await daemon.stop();
  });
  /** A volume of 1 GiB of its own for each test. */
  beforeEach(async () => {
    number += 1;
    await quarryOn(daemon, 'volume', 'create', `disk-${number}`, '--size', '1');
    uri = daemon.uri(`disk-${number}`);
  });

  const qemuIo = (...commands: string[]) =>
    run('qemu-io', ['-f', 'raw', ...commands.flatMap((command) => ['-c', command]), uri]);
  const nbdsh = (script: string, target = uri) =>
    run('nbdsh', ['--base-allocation', '-u', target, '-c', script], { timeoutMs: TIMEOUT_MS });

  it('qemu-io writes, zeroes, discards and reads back at any alignment', async () => {
    const output = await qemuIo(
      'write -P 0x11 0 1m',
      'write -P 0x22 12345 6789',
      `write -f -P 0x33 ${GIB - 5} 5`,
      'write -z 512k 100k',
      'write -z -u 700001 5001',
      'discard 800k 64k',
      'flush',
      'read -P 0x11 0 12345',
      'read -P 0x22 12345 6789',
      'read -P 0x11 19134 400000',
      'read -P 0 512k 100k',
      'read -P 0 700001 5001',
      'read -P 0x11 700000 1',
      'read -P 0x11 705002 1000',
      'read -P 0 800k 64k',
      `read -P 0x33 ${GIB - 5} 5`,
      'read -P 0 2m 32m',
    );
    expect(output).not.toMatch(/failed|error/i);
  });

  it('qemu-io runs requests of one client in parallel', async () => {
    const writes = Array.from({ length: 32 }, (_, index) => `aio_write -P ${index + 1} ${index * 37}k 37k`);
    const reads = Array.from({ length: 32 }, (_, index) => `aio_read -P ${index + 1} ${index * 37}k 37k`);
    const output = await qemuIo(...writes, 'aio_flush', ...reads, 'aio_flush');
    expect(output).not.toMatch(/failed|error/i);
    expect(output.match(/read 37888\/37888/g)).toHaveLength(32);
  });

  it('qemu-img sees which parts are holes, and copies in and out are identical', async () => {
    const image = join(folder.path, 'image.raw');
    await run('qemu-img', ['create', '-q', '-f', 'raw', image, '1G']);
    const data = join(folder.path, 'data.raw');
    await writeFile(data, randomBytes(3 * MIB));
    for (const at of [0, 333, 1000])
      await run('dd', [`if=${data}`, `of=${image}`, 'bs=1M', `seek=${at}`, 'conv=notrunc', 'status=none']);
    await run('qemu-img', ['convert', '-n', '-W', '-m', '8', '-f', 'raw', '-O', 'raw', image, uri]);
    const same = ['compare', '-f', 'raw', '-F', 'raw'];
    expect(await run('qemu-img', [...same, image, uri])).toMatch(/identical/);
    const map: { start: number; length: number; data: boolean; zero: boolean }[] = JSON.parse(
      await run('qemu-img', ['map', '--output=json', '-f', 'raw', uri]),
    );
    expect(map.reduce((sum, { length }) => sum + length, 0)).toBe(GIB);
    expect(map.filter(({ data }) => data).reduce((sum, { length }) => sum + length, 0)).toBe(9 * MIB);
    const out = join(folder.path, 'out.raw');
    await run('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', uri, out]);
    expect(await run('qemu-img', [...same, image, out])).toMatch(/identical/);
  });

  it('nbdinfo is told everything that the protocol can say about an export', async () => {
    const { exports } = JSON.parse(await run('nbdinfo', ['--json', uri]));
    expect(exports[0]).toMatchObject({
      'export-size': GIB,
      is_read_only: false,
      is_rotational: false,
      can_cache: true,
      can_df: true,
      can_fast_zero: true,
      can_flush: true,
      can_fua: true,
      can_multi_conn: true,
      can_trim: true,
      can_zero: true,
      block_size_minimum: 1,
      block_size_preferred: 4096,
      block_size_maximum: 32 * MIB,
    });
    expect(exports[0].contexts).toEqual(['base:allocation']);
    const listed = JSON.parse(await run('nbdinfo', ['--list', '--json', `nbd+unix:///?socket=${daemon.nbdSocket}`]));
    expect(listed.exports.map((entry: { 'export-name': string }) => entry['export-name'])).toContain(`disk-${number}`);
    expect((await tryRun('nbdinfo', [daemon.uri('nothing')])).stderr).toMatch(/No such file or directory.*nothing/);
  });

  it('nbdcopy brings an image in and out over four connections', async () => {
    const image = join(folder.path, 'copied.raw');
    await writeFile(image, randomBytes(40 * MIB));
    await run('truncate', ['-s', '1G', image]);
    await run('nbdcopy', ['--connections=4', '--requests=32', '--flush', image, uri]);
    const out = join(folder.path, 'copied-back.raw');
    await run('nbdcopy', ['--connections=4', uri, out]);
    expect(await run('cmp', [image, out])).toBe('');
  });

  it('libnbd sees sparse replies, one extent when it asks for one, and the flags it asks for obeyed', async () => {
    const output = await nbdsh(`
import errno
h.set_strict_mode(0)
assert h.get_structured_replies_negotiated()
h.pwrite(b'x' * 65536, 65536, nbd.CMD_FLAG_FUA)

chunks = []
h.pread_structured(1 << 20, 0, lambda data, offset, status, error: chunks.append((offset, len(data), status)))
assert chunks == [(0, 65536, nbd.READ_HOLE), (65536, 65536, nbd.READ_DATA), (131072, 917504, nbd.READ_HOLE)], chunks
chunks.clear()
h.pread_structured(1 << 20, 0, lambda data, offset, status, error: chunks.append((offset, len(data), status)), nbd.CMD_FLAG_DF)
assert chunks == [(0, 1 << 20, nbd.READ_DATA)], chunks

extents = []
h.block_status(1 << 20, 1000, lambda context, offset, entries, error: extents.extend([context, offset, *entries]))
assert extents == ['base:allocation', 1000, 64536, 3, 65536, 0, 917504 + 1000, 3], extents
extents.clear()
h.block_status(1 << 20, 0, lambda context, offset, entries, error: extents.extend(entries), nbd.CMD_FLAG_REQ_ONE)
assert extents == [65536, 3], extents

h.zero(65536, 1 << 20, nbd.CMD_FLAG_NO_HOLE)
extents.clear()
h.block_status(65536, 1 << 20, lambda context, offset, entries, error: extents.extend(entries))
assert extents == [65536, 0], extents
h.zero(1 << 20, 0, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_FUA)
assert h.pread(1 << 20, 0) == bytes(1 << 20)
try:
    h.zero(4096, 0, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE)
    assert False, 'writing zeros is not fast'
except nbd.Error as error:
    assert error.errnum in (errno.ENOTSUP, errno.EOPNOTSUPP), error
h.cache(1 << 20, 0)
h.trim(4096, 4096)
h.flush()
for call in (lambda: h.pread(1, h.get_size()), lambda: h.pwrite(b'xx', h.get_size() - 1), lambda: h.pread((32 << 20) + 1, 0)):
    try:
        call()
        assert False, 'out of range'
    except nbd.Error as error:
        assert error.errnum in (errno.EINVAL, errno.ENOSPC), error
largest = bytes(range(256)) * (32 * 4096)
h.pwrite(largest, 1)
assert h.pread(len(largest), 1) == largest
print('all seen')
`);
    expect(output.trim()).toBe('all seen');
  });

  it('a client of the first generation (no fixed newstyle, no structured replies, zeroes) is served', async () => {
    const script = (flags: string) => `
h.set_handshake_flags(${flags})
h.set_request_structured_replies(False)
h.set_export_name('disk-${number}')
h.connect_unix('${daemon.nbdSocket}')
h.pwrite(b'hello', 3)
assert h.pread(7, 2) == b'\\0hello\\0'
h.shutdown()
print('served', h.get_protocol())
`;
    for (const [flags, protocol] of [
      ['0', 'newstyle'],
      ['nbd.HANDSHAKE_FLAG_FIXED_NEWSTYLE', 'newstyle-fixed'],
      ['nbd.HANDSHAKE_FLAG_FIXED_NEWSTYLE | nbd.HANDSHAKE_FLAG_NO_ZEROES', 'newstyle-fixed'],
    ] as const) {
      expect((await run('nbdsh', ['-c', script(flags)])).trim()).toBe(`served ${protocol}`);
    }
  });

  it('what one connection flushed, another reads', async () => {
    const output = await nbdsh(`
other = nbd.NBD()
other.connect_uri('${uri}')
for number in range(200):
    data = number.to_bytes(4, 'big') * 1024
    h.pwrite(data, number * 12288)
    assert other.pread(4096, number * 12288) == data
    other.flush()
print('seen')
`);
    expect(output.trim()).toBe('seen');
  });

  it(
    'fio verifies what four connections wrote while snapshots were taken, and so does a second run after a kill',
    async () => {
      const job = [
        '--name=verify',
        '--ioengine=nbd',
        `--uri=${uri}`,
        '--numjobs=4',
        '--size=48m',
        '--offset_increment=128m',
        '--bsrange=512-64k',
        '--bs_unaligned=1',
        '--rw=randwrite',
        '--iodepth=16',
        '--verify=crc32c',
        '--randrepeat=1',
        '--allrandrepeat=1',
        '--norandommap=0',
        '--fsync=64',
        '--minimal',
      ];
      const cwd = folder.path;
      let isOver = false;
      const fio = run('fio', [...job, '--do_verify=1'], { cwd, timeoutMs: TIMEOUT_MS }).finally(() => {
        isOver = true;
      });
      let taken = 0;
      for (; taken < 20 && !isOver; taken += 1) {
        await quarryOn(daemon, 'snapshot', 'create', `disk-${number}`, `at-${taken}`);
      }
      await fio;
      expect(taken).toBeGreaterThan(0);
      await run('qemu-io', ['-f', 'raw', '-c', 'flush', uri]);
      await daemon.restart('SIGKILL');
      const again = job.map((argument) =>
        argument.startsWith('--uri=') ? `--uri=${daemon.uri(`disk-${number}`)}` : argument,
      );
      await run('fio', [...again, '--verify_only'], { cwd, timeoutMs: TIMEOUT_MS });
    },
    2 * TIMEOUT_MS,
  );

  it('a snapshot is served read-only by all means', async () => {
    const volume = `disk-${number}`;
    await qemuIo('write -P 7 0 64k', 'flush');
    const id = (await quarryOn(daemon, 'snapshot', 'create', volume, 'still', '-o', 'value', '-c', 'id')).trim();
    const snapshot = daemon.uri(id);
    await qemuIo('write -P 8 0 64k');
    const { exports } = JSON.parse(await run('nbdinfo', ['--json', snapshot]));
    expect(exports[0]).toMatchObject({ is_read_only: true, can_trim: false, can_zero: false, can_multi_conn: true });
    const output = await nbdsh(
      `
import errno
h.set_strict_mode(0)
for call in (lambda: h.pwrite(b'x', 0), lambda: h.trim(4096, 0), lambda: h.zero(4096, 0)):
    try:
        call()
        assert False, 'written'
    except nbd.Error as error:
        assert error.errnum == errno.EPERM, error
h.flush()
assert h.pread(65536, 0) == b'\\7' * 65536
print('kept')
`,
      snapshot,
    );
    expect(output.trim()).toBe('kept');
  });

  it('an image written through the protocol is what the command line exports', async () => {
    const data = randomBytes(MIB);
    const file = join(folder.path, 'one.bin');
    await writeFile(file, data);
    await nbdsh(`h.pwrite(open('${file}', 'rb').read(), 777)`);
    const exported = join(folder.path, 'exported.raw');
    await quarryOn(daemon, 'volume', 'export', `disk-${number}`, exported);
    expect((await readFile(exported)).subarray(777, 777 + MIB).equals(data)).toBe(true);
  });
});
