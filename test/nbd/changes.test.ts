/** What changed since a snapshot, as clients that are not ours see it; and extended headers, which none here speaks, byte by byte. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { describeWith, run } from '../support/peers.ts';
import { quarryOn } from '../support/quarry.ts';
import { tempFolder } from '../support/temp.ts';
import { type Chunk, COMMAND, extendedRequest, FLAG, RawClient } from './raw.ts';

const GIB = 2 ** 30;
const MIB = 2 ** 20;
/** Beyond 32 bits many times, and not more than a pool on a small disk may promise. */
const LARGE = 2n ** 38n;
const BLOCK = 4096;

type Range = { readonly offset: number; readonly length: number; readonly type: number };

describeWith(['nbdinfo', 'nbdsh', 'qemu-img', 'qemu-io'], 'what changed since a snapshot', () => {
  let daemon: Daemon;
  let number = 0;
  let name = '';

  beforeAll(async () => {
    daemon = await startDaemon();
  });
  afterAll(() => daemon.stop());
  beforeEach(async () => {
    number += 1;
    name = `disk-${number}`;
    await quarryOn(daemon, 'volume', 'create', name, '--size', '1');
  });

  const qemuIo = async (...commands: string[]): Promise<void> => {
    const output = await run('qemu-io', ['-f', 'raw', ...commands.flatMap((text) => ['-c', text]), daemon.uri(name)]);
    expect(output).not.toMatch(/failed|error/i);
  };
  const snapshot = async (): Promise<string> =>
    (await quarryOn(daemon, '-o', 'value', 'snapshot', 'create', name, '-c', 'id')).trim();
  const dirty = async (context: string, target: string): Promise<number[][]> => {
    const ranges: Range[] = JSON.parse(await run('nbdinfo', ['--json', `--map=${context}`, daemon.uri(target)]));
    expect(ranges.reduce((sum, { length }) => sum + length, 0)).toBe(GIB);
    return ranges.filter(({ type }) => type === 1).map(({ offset, length }) => [offset, length]);
  };

  it('is shown by nbdinfo and qemu-img, of a volume in use and of a snapshot, and drives an incremental copy', async () => {
    await using folder = await tempFolder();
    await qemuIo('write -P 1 0 8m', 'write -P 2 500m 1m');
    const first = await snapshot();
    const copy = join(folder.path, 'copy');
    await run('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', daemon.uri(first), copy]);
    await qemuIo('write -P 3 1m 4k', 'write -P 4 900m 64k', 'discard 500m 1m', 'write -z 2m 8k');
    const expected = [
      [MIB, BLOCK],
      [2 * MIB, 2 * BLOCK],
      [500 * MIB, MIB],
      [900 * MIB, 16 * BLOCK],
    ];
    for (const context of ['quarry:changed:', 'qemu:dirty-bitmap:'])
      expect(await dirty(`${context}${first}`, name)).toEqual(expected);
    const second = await snapshot();
    await qemuIo('write -P 5 0 4k');
    expect(await dirty(`qemu:dirty-bitmap:${first}`, second)).toEqual(expected);
    expect(await dirty(`qemu:dirty-bitmap:${second}`, name)).toEqual([[0, BLOCK]]);

    const { exports } = JSON.parse(await run('nbdinfo', ['--json', daemon.uri(second)]));
    const contexts = ['base:allocation', `quarry:changed:${first}`, `qemu:dirty-bitmap:${first}`];
    expect(exports[0].contexts).toEqual(contexts);
    const bitmap = `x-dirty-bitmap=qemu:dirty-bitmap:${first}`;
    const options = `driver=nbd,server.type=unix,server.path=${daemon.nbdSocket},export=${second},${bitmap}`;
    const map: { start: number; length: number; data: boolean }[] = JSON.parse(
      await run('qemu-img', ['map', '--output=json', '--image-opts', options]),
    );
    expect(map.filter(({ data }) => !data).map(({ start, length }) => [start, length])).toEqual(expected);

    // What is dirty, laid over the copy of the first snapshot, is the second.
    const script = `
h.add_meta_context('qemu:dirty-bitmap:${first}')
h.connect_uri('${daemon.uri(second)}')
ranges = []
def seen(context, offset, entries, error):
    at = offset
    for length, state in zip(entries[::2], entries[1::2]):
        if state & 1: ranges.append((at, length))
        at += length
h.block_status(h.get_size(), 0, seen)
with open('${copy}', 'r+b') as copy:
    for offset, length in ranges:
        copy.seek(offset)
        copy.write(h.pread(length, offset))
print(len(ranges))
`;
    expect((await run('nbdsh', ['-c', script])).trim()).toBe('4');
    const same = ['compare', '-f', 'raw', '-F', 'raw', copy, daemon.uri(second)];
    expect(await run('qemu-img', same)).toMatch(/identical/);
  });

  it('is not offered for snapshots of other volumes', async () => {
    const own = await snapshot();
    await quarryOn(daemon, 'volume', 'create', `${name}-other`, '--size', '1');
    const { exports } = JSON.parse(await run('nbdinfo', ['--json', daemon.uri(`${name}-other`)]));
    expect(exports[0].contexts).toEqual(['base:allocation']);
    const script = `
h.add_meta_context('qemu:dirty-bitmap:${own}')
h.connect_uri('${daemon.uri(`${name}-other`)}')
print(h.can_meta_context('qemu:dirty-bitmap:${own}'))
`;
    expect((await run('nbdsh', ['-c', script])).trim()).toBe('False');
  });

  /** Context id and descriptors. */
  const statusOf = ({ kind, payload }: Chunk): (number | bigint[])[] => {
    expect(kind).toBe(6);
    const words = Array.from({ length: (payload.length - 8) / 8 }, (_, index) =>
      payload.readBigUInt64BE(8 + index * 8),
    );
    expect(payload.readUInt32BE(4) * 2).toBe(words.length);
    return [payload.readUInt32BE(0), words];
  };

  it('and effects of hundreds of GiB are said in one request with extended headers', async () => {
    await quarryOn(daemon, 'volume', 'create', `${name}-large`, '--size', '256GiB');
    const id = (await quarryOn(daemon, '-o', 'value', 'snapshot', 'create', `${name}-large`, '-c', 'id')).trim();
    const contexts = ['base:allocation', `quarry:changed:${id}`];
    using writer = await RawClient.extended(daemon.nbdSocket, `${name}-large`, []);
    const write = extendedRequest({
      command: COMMAND.write,
      flags: FLAG.payloadLength,
      offset: LARGE / 2n,
      length: 4096n,
    });
    writer.send(Buffer.concat([write, Buffer.alloc(BLOCK, 7)]));
    expect(await writer.chunk(1n, LARGE / 2n)).toMatchObject({ flags: 1, kind: 0 });

    using client = await RawClient.extended(daemon.nbdSocket, `${name}-large`, contexts);
    client.send(extendedRequest({ command: COMMAND.status, cookie: 2n, length: LARGE }));
    // One answer looks at 64 GiB of the allocation and what is known to be a hole behind, and tells all there is of a list.
    expect(statusOf(await client.chunk(2n, 0n))).toEqual([1, [LARGE / 2n, 3n]]);
    expect(statusOf(await client.chunk(2n, 0n))).toEqual([2, [LARGE / 2n, 0n, 4096n, 1n, LARGE / 2n - 4096n, 0n]]);
    const payload = Buffer.alloc(12);
    payload.writeBigUInt64BE(LARGE / 2n, 0);
    payload.writeUInt32BE(2, 8);
    const filtered = { command: COMMAND.status, flags: FLAG.payloadLength, cookie: 3n, offset: LARGE / 2n };
    client.send(Buffer.concat([extendedRequest({ ...filtered, length: 12n }), payload]));
    expect(statusOf(await client.chunk(3n, LARGE / 2n))).toEqual([2, [4096n, 1n, LARGE / 2n - 4096n, 0n]]);

    client.send(
      extendedRequest({ command: COMMAND.zero, cookie: 4n, offset: LARGE / 2n - 2n ** 33n, length: 2n ** 34n }),
    );
    expect(await client.chunk(4n, LARGE / 2n - 2n ** 33n)).toMatchObject({ flags: 1, kind: 0 });
    client.send(extendedRequest({ command: COMMAND.read, cookie: 5n, offset: LARGE / 2n, length: 4096n }));
    expect(await client.chunk(5n, LARGE / 2n)).toMatchObject({ flags: 1, kind: 2 });
  });

  it('a volume of 64 TiB with next to nothing in it is trimmed and described in one request', async () => {
    const size = 2n ** 46n;
    await using folder = await tempFolder();
    const config = join(folder.path, 'quarry.toml');
    await writeFile(config, '[pool]\nmax_over_subscription_ratio = 1000000\n');
    await using roomy = await startDaemon({ args: ['--config', config] });
    await quarryOn(roomy, 'volume', 'create', 'huge', '--size', '64TiB');
    using client = await RawClient.extended(roomy.nbdSocket, 'huge', ['base:allocation']);
    const write = { command: COMMAND.write, flags: FLAG.payloadLength, cookie: 1n, offset: size - 4096n };
    client.send(Buffer.concat([extendedRequest({ ...write, length: 4096n }), Buffer.alloc(BLOCK, 7)]));
    expect(await client.chunk(1n, size - 4096n)).toMatchObject({ flags: 1, kind: 0 });
    client.send(extendedRequest({ command: COMMAND.status, cookie: 2n, length: size }));
    expect(statusOf(await client.chunk(2n, 0n))).toEqual([1, [size - 2n ** 25n, 3n]]);
    for (const command of [COMMAND.trim, COMMAND.zero]) {
      client.send(extendedRequest({ command, cookie: 3n, length: size }));
      expect(await client.chunk(3n, 0n)).toMatchObject({ flags: 1, kind: 0 });
    }
    client.send(extendedRequest({ command: COMMAND.read, cookie: 4n, offset: size - 4096n, length: 4096n }));
    expect(await client.chunk(4n, size - 4096n)).toMatchObject({ flags: 1, kind: 2 });
  });
});
