import { once } from 'node:events';
import { mkdir, readdir, stat, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { dataRuns, exportImage, importImage } from '../../src/image/copy.ts';
import { openImage } from '../../src/image/image.ts';
import { NbdClient } from '../../src/image/nbd-client.ts';
import { parseNbdUri } from '../../src/image/nbd-protocol.ts';
import { describeWith, run } from '../support/peers.ts';
import { type TempFolder, tempFolder } from '../support/temp.ts';
import { fileDigest, seededBytes, writeSample } from './samples.ts';

const SIZE = 24 << 20;
const never = new AbortController().signal;

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

type Server = AsyncDisposable & { readonly uri: string; readonly socket: string; readonly pid: number };

let servers = 0;

/** A peer may be gone already when a test killed it. */
async function end(pid: number): Promise<void> {
  try {
    process.kill(pid);
  } catch {}
}

/** nbdkit goes to the background when it listens, so its return is the event to wait for. */
async function nbdkit(...args: string[]): Promise<Server> {
  servers += 1;
  const home = join(folder.path, `nbdkit-${servers}`);
  await mkdir(home);
  const socket = join(home, 's');
  await run('nbdkit', ['-U', socket, '-P', join(home, 'pid'), ...args]);
  const pid = Number(await run('cat', [join(home, 'pid')]));
  return { uri: `nbd+unix:///?socket=${socket}`, socket, pid, [Symbol.asyncDispose]: () => end(pid) };
}

/** qemu-nbd --fork returns when it serves. */
async function qemuNbd(file: string, format: string, ...args: string[]): Promise<Server> {
  servers += 1;
  const home = join(folder.path, `qemu-${servers}`);
  await mkdir(home);
  const socket = join(home, 's');
  const pidFile = join(home, 'pid');
  await run('qemu-nbd', [
    '--fork',
    '-t',
    '-k',
    socket,
    '-x',
    'disk',
    '-f',
    format,
    '--pid-file',
    pidFile,
    ...args,
    file,
  ]);
  const pid = Number(await run('cat', [pidFile]));
  return { uri: `nbd+unix:///disk?socket=${socket}`, socket, pid, [Symbol.asyncDispose]: () => end(pid) };
}

describeWith(['nbdkit', 'qemu-nbd', 'qemu-img', 'nbd-server'], 'the NBD client', () => {
  test('reads back what it wrote, with many requests in flight, from nbdkit', async () => {
    await using server = await nbdkit('memory', '64M');
    await using client = await NbdClient.connect(server.uri);
    expect(client.sizeBytes).toBe(64 << 20);
    const parts = Array.from({ length: 64 }, (_, index) => seededBytes(index + 1, 1000 + index * 997));
    const offset = (index: number) => index * 100_003;
    await Promise.all(parts.map((part, index) => client.write(offset(index), part)));
    await client.flush();
    const back = parts.map((part) => Buffer.alloc(part.length));
    await Promise.all(back.map((target, index) => client.read(offset(index), target)));
    for (const [index, part] of parts.entries()) expect(back[index]?.equals(part)).toBe(true);
  });

  test('writes zeros and sees the map of qemu-nbd', async () => {
    const file = join(folder.path, 'map.qcow2');
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', file, '16M']);
    await using server = await qemuNbd(file, 'qcow2', '--discard=unmap');
    await using client = await NbdClient.connect(server.uri);
    await client.write(1 << 20, seededBytes(1, 1 << 20));
    await client.writeZeroes((1 << 20) + 65536, 65536);
    const extents = [];
    for await (const extent of client.extents(0, client.sizeBytes)) extents.push(extent);
    const zeros = extents.filter((extent) => extent.kind === 'hole').reduce((sum, extent) => sum + extent.length, 0);
    expect(extents[0]).toEqual({ offset: 0, length: 1 << 20, kind: 'hole' });
    expect(zeros).toBe((15 << 20) + 65536);
  });

  test('works with a server that knows neither structured replies nor a map', async () => {
    const home = join(folder.path, 'plain');
    await mkdir(home);
    await using server = await nbdkit('--no-sr', 'memory', '8M');
    await using client = await NbdClient.connect(server.uri);
    const data = seededBytes(4, 3 << 20);
    await client.write(12_345, data);
    const back = Buffer.alloc(data.length);
    await client.read(12_345, back);
    expect(back.equals(data)).toBe(true);
    const extents = [];
    for await (const extent of client.extents(0, client.sizeBytes)) extents.push(extent);
    expect(extents).toEqual([{ offset: 0, length: 8 << 20, kind: 'data' }]);
  });

  test('reports an error of the server for that request alone, and goes on', async () => {
    await using server = await nbdkit('--filter=error', 'memory', '8M', 'error-pwrite-rate=1', 'error-pwrite=ENOSPC');
    await using client = await NbdClient.connect(server.uri);
    await expect(client.write(4096, Buffer.alloc(512))).rejects.toThrow(/write at 4096\+512 failed: no space left/);
    await client.read(0, Buffer.alloc(512));
  });

  test('names the export that does not exist', async () => {
    await using server = await qemuNbd(sample, 'raw', '-r');
    const uri = server.uri.replace('/disk?', '/other?');
    await expect(NbdClient.connect(uri)).rejects.toThrow(/export "other": no such export/);
  });

  test('fails every request in flight when the server dies', async () => {
    await using server = await nbdkit('--filter=delay', 'memory', '8M', 'rdelay=60');
    const client = await NbdClient.connect(server.uri);
    const reads = [client.read(0, Buffer.alloc(512)), client.read(512, Buffer.alloc(512))];
    process.kill(server.pid, 'SIGKILL');
    for (const result of await Promise.allSettled(reads)) expect(result.status).toBe('rejected');
    await expect(client.read(0, Buffer.alloc(512))).rejects.toThrow(/closed the connection|ECONNRESET/);
    await client.close();
  });

  test('imports an image and exports it again, byte for byte, and keeps its holes', async () => {
    const qcow2 = join(folder.path, 'source.qcow2');
    await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', '-c', sample, qcow2]);
    for (const source of [sample, qcow2]) {
      const target = join(folder.path, 'target.qcow2');
      await run('qemu-img', ['create', '-q', '-f', 'qcow2', target, '1G']);
      await using server = await qemuNbd(target, 'qcow2', '--discard=unmap');
      await using image = await openImage(source);
      const seen: number[] = [];
      const copied = await importImage({
        image,
        uri: server.uri,
        signal: never,
        onProgress: (done) => void seen.push(done),
      });
      expect(copied.sizeBytes).toBe(SIZE);
      expect(copied.dataBytes).toBeLessThan(3 << 20);
      expect(seen.at(-1)).toBe(SIZE);

      const out = join(folder.path, 'out.raw');
      const back = await exportImage({ uri: server.uri, path: out, overwrite: true, signal: never });
      expect(back.sizeBytes).toBe(1 << 30);
      const { size, blocks } = await stat(out);
      expect(size).toBe(1 << 30);
      expect(blocks * 512).toBeLessThan(4 << 20);
      await run('truncate', ['-s', String(SIZE), out]);
      expect(await fileDigest(out)).toBe(digest);
    }
  });

  test('exports over TCP too', async () => {
    await using server = await nbdkit('file', sample);
    const proxy = createServer((socket) => {
      const inner = connect(server.socket);
      socket.pipe(inner).pipe(socket);
      inner.on('error', () => socket.destroy());
      socket.on('error', () => inner.destroy());
    });
    proxy.listen(0, '127.0.0.1');
    await once(proxy, 'listening');
    const address = proxy.address();
    const out = join(folder.path, 'tcp.raw');
    const port = typeof address === 'object' ? address?.port : null;
    await exportImage({ uri: `nbd://127.0.0.1:${port}`, path: out, overwrite: false, signal: never });
    expect(await fileDigest(out)).toBe(digest);
    proxy.close();
  });

  test('leaves neither a file nor a part of one when an export fails', async () => {
    const target = join(folder.path, 'exports');
    await mkdir(target);
    await using server = await nbdkit('--filter=error', 'file', sample, 'error-pread-rate=1');
    const path = join(target, 'disk.raw');
    await expect(exportImage({ uri: server.uri, path, overwrite: false, signal: never })).rejects.toThrow(
      /input\/output error/,
    );
    expect(await readdir(target)).toEqual([]);
  });

  test('does not write over a file that is there, unless it is told to', async () => {
    await using server = await nbdkit('memory', '1M');
    const path = join(folder.path, 'precious');
    await writeFile(path, 'precious');
    await expect(exportImage({ uri: server.uri, path, overwrite: false, signal: never })).rejects.toThrow(
      /precious exists/,
    );
    await exportImage({ uri: server.uri, path, overwrite: true, signal: never });
    expect((await stat(path)).size).toBe(1 << 20);
  });

  test('stops when it is cancelled', async () => {
    await using server = await nbdkit('memory', '64M');
    await using image = await openImage(sample);
    await expect(importImage({ image, uri: server.uri, signal: AbortSignal.abort() })).rejects.toThrow(/Cancelled/);
  });
});

/** A server that sends these bytes to whoever connects, whatever it is told. */
async function liar(bytes: Buffer): Promise<AsyncDisposable & { readonly uri: string }> {
  servers += 1;
  const path = join(folder.path, `liar-${servers}`);
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.resume();
    socket.end(bytes);
  });
  server.listen(path);
  await once(server, 'listening');
  return { uri: `nbd+unix:///?socket=${path}`, [Symbol.asyncDispose]: async () => void server.close() };
}

describe('a server that lies', () => {
  const greeting = Buffer.from('4e42444d4147494349484156454f50540003', 'hex');
  const optionReply = (option: number, type: number, payload: Buffer, length = payload.length) => {
    const head = Buffer.alloc(20);
    head.writeBigUInt64BE(0x0003e889045565a9n, 0);
    head.writeUInt32BE(option, 8);
    head.writeUInt32BE(type, 12);
    head.writeUInt32BE(length, 16);
    return Buffer.concat([head, payload]);
  };

  test.each([
    ['about being an NBD server', Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'), /no NBD server/],
    ['by saying nothing more', greeting, /closed the connection/],
    [
      'about the length of an option reply',
      Buffer.concat([greeting, optionReply(8, 1, Buffer.alloc(0), 0xffffffff)]),
      /option reply has 4294967295 bytes/,
    ],
    [
      'about the option it answers',
      Buffer.concat([greeting, optionReply(7, 1, Buffer.alloc(0))]),
      /reply is for option 7/,
    ],
    [
      'about the size of the export',
      Buffer.concat([
        greeting,
        optionReply(8, 0x80000001, Buffer.alloc(0)),
        optionReply(7, 3, Buffer.from(`0000${'ff'.repeat(8)}0001`, 'hex')),
      ]),
      /more than can be addressed/,
    ],
  ])('%s is left with a reason', async (_title, bytes, message) => {
    await using server = await liar(bytes);
    await expect(NbdClient.connect(server.uri)).rejects.toThrow(message);
  });

  test('about a reply in transmission is left, and the requests in flight fail', async () => {
    const info = Buffer.alloc(12);
    info.writeBigUInt64BE(1n << 20n, 2);
    info.writeUInt16BE(1, 10);
    const handshake = [
      greeting,
      optionReply(8, 0x80000001, Buffer.alloc(0)),
      optionReply(7, 3, info),
      optionReply(7, 1, Buffer.alloc(0)),
    ];
    await using server = await liar(Buffer.concat([...handshake, Buffer.from('deadbeef', 'hex')]));
    const client = await NbdClient.connect(server.uri);
    await expect(client.read(0, Buffer.alloc(512))).rejects.toThrow(/unknown reply magic 0xdeadbeef/);
    await client.close();
  });
});

describe('an NBD URI', () => {
  test('names a socket or a host, and an export', () => {
    expect(parseNbdUri('nbd+unix:///a%20b?socket=/run/n.sock')).toEqual({
      socket: { path: '/run/n.sock' },
      exportName: 'a b',
      tls: null,
    });
    expect(parseNbdUri('nbd://h:1234/x')).toEqual({ socket: { host: 'h', port: 1234 }, exportName: 'x', tls: null });
    expect(parseNbdUri('nbd://[::1]')).toEqual({ socket: { host: '::1', port: 10809 }, exportName: '', tls: null });
    expect(parseNbdUri('nbds://h/x?tls-certificates=/a%20b')).toEqual({
      socket: { host: 'h', port: 10809 },
      exportName: 'x',
      tls: { folder: '/a b', serverName: 'h' },
    });
    expect(parseNbdUri('nbds+unix:///x?socket=/s&tls-hostname=h').tls).toEqual({ folder: null, serverName: 'h' });
    expect(parseNbdUri('nbds+unix:///x?socket=/s').tls).toEqual({ folder: null, serverName: null });
  });

  test('is refused with a reason when it can not be used', () => {
    expect(() => parseNbdUri('nbd+unix:///x')).toThrow(/socket=PATH/);
    expect(() => parseNbdUri('http://h/x')).toThrow(/scheme is http/);
    expect(() => parseNbdUri('nonsense')).toThrow(/does not parse/);
  });
});

describe('zero detection', () => {
  test('finds runs of 64 KiB that hold a byte', () => {
    const bytes = Buffer.alloc(5 * 65536 + 100);
    bytes[65536] = 1;
    bytes[3 * 65536 - 1] = 1;
    bytes[5 * 65536 + 99] = 1;
    expect(dataRuns(bytes)).toEqual([
      { start: 65536, end: 3 * 65536 },
      { start: 5 * 65536, end: 5 * 65536 + 100 },
    ]);
    expect(dataRuns(Buffer.alloc(100_000))).toEqual([]);
  });
});
