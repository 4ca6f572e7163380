/**
 * Clients that lie, babble and vanish, against the real daemon: each gets the error it deserves or is hung up on, while a
 * bystander on the same volume and one on another go on undisturbed, and the daemon lives.
 */
import { readFile } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { quarryOn } from '../support/quarry.ts';
import { COMMAND, ERRNO, FLAG, option, RawClient, request } from './raw.ts';

const GIB = 2 ** 30;
const MIB = 2 ** 20;
const BLOCK = 4096;

let daemon: Daemon;
/** One on the volume under attack, one on another. */
let bystanders: RawClient[];
let round = 0;

beforeAll(async () => {
  daemon = await startDaemon();
  for (const name of ['disk', 'other']) await quarryOn(daemon, 'volume', 'create', name, '--size', '1');
});
afterAll(() => daemon.stop());

beforeEach(async () => {
  round += 1;
  bystanders = [await RawClient.ready(daemon.nbdSocket, 'disk'), await RawClient.ready(daemon.nbdSocket, 'other')];
  for (const bystander of bystanders) expect(await bystander.write(GIB - BLOCK, Buffer.alloc(BLOCK, round))).toBe(0);
});

afterEach(async () => {
  for (const bystander of bystanders) {
    expect((await bystander.read(GIB - BLOCK, BLOCK)).equals(Buffer.alloc(BLOCK, round))).toBe(true);
    expect(await bystander.errnoOf({ command: COMMAND.flush })).toBe(0);
    bystander[Symbol.dispose]();
  }
  expect((await daemon.request('GET', '/v3/quarry/status')).status).toBe(200);
});

const attacker = () => RawClient.ready(daemon.nbdSocket, 'disk');

it.each([
  ['a read that starts at the end', COMMAND.read, BigInt(GIB), 1, ERRNO.invalid],
  ['a read that reaches past the end', COMMAND.read, BigInt(GIB - 1), 2, ERRNO.invalid],
  ['a read whose end does not fit 64 bits', COMMAND.read, 2n ** 64n - 1n, BLOCK, ERRNO.invalid],
  ['a trim past the end', COMMAND.trim, BigInt(GIB), BLOCK, ERRNO.invalid],
  ['a trim of all that 32 bits can say', COMMAND.trim, 0n, 2 ** 32 - 1, ERRNO.invalid],
  ['zeroing past the end', COMMAND.zero, BigInt(GIB - 1), 2, ERRNO.noSpace],
  ['a block status past the end', COMMAND.status, BigInt(GIB), 1, ERRNO.invalid],
  ['a cache request past the end', COMMAND.cache, 2n ** 63n, 1, ERRNO.invalid],
  ['an oversized read', COMMAND.read, 0n, 2 ** 32 - 1, ERRNO.invalid],
  ['a flush with a range', COMMAND.flush, 1n, 1, ERRNO.invalid],
  ['an unknown command', 8, 0n, 0, ERRNO.invalid],
  ['the last command number there is', 0xffff, 0n, 0, ERRNO.invalid],
])('%s is refused, and the connection goes on', async (_name, command, offset, length, errno) => {
  using client = await attacker();
  expect(await client.errnoOf({ command, offset, length })).toBe(errno);
  expect(await client.write(0, Buffer.from('still here'))).toBe(0);
  expect((await client.read(0, 10)).toString()).toBe('still here');
});

it('a write past the end is refused after its payload was read, and nothing of it is written', async () => {
  using client = await attacker();
  expect(await client.write(GIB - 10, Buffer.alloc(MIB, 0xee))).toBe(ERRNO.noSpace);
  // The bystander's block stands before the end, and is looked at afterwards.
  expect(await client.write(0, Buffer.from('in step'))).toBe(0);
});

it('a flag that the command does not take is refused', async () => {
  using client = await attacker();
  for (const [command, flags] of [
    [COMMAND.read, FLAG.noHole],
    [COMMAND.trim, FLAG.fastZero],
    [COMMAND.flush, 0x8000],
    [COMMAND.zero, FLAG.onlyOne],
  ] as const) {
    expect(await client.errnoOf({ command, flags })).toBe(ERRNO.invalid);
  }
});

it('an oversized write is skipped and refused, and an absurd one ends the connection', async () => {
  using client = await attacker();
  expect(await client.write(0, Buffer.alloc(32 * MIB + 1, 0xee))).toBe(ERRNO.invalid);
  expect((await client.read(0, BLOCK)).includes(0xee)).toBe(false);
  client.send(request({ command: COMMAND.write, length: 2 ** 32 - 1 }));
  expect(await client.closed()).toHaveLength(0);
});

it('a wrong magic ends the connection after the replies to what came before', async () => {
  using client = await attacker();
  client.send(
    Buffer.concat([request({ command: COMMAND.cache, length: 1 }), request({ command: 0, magic: 0x25609514 })]),
  );
  expect((await client.reply()).errno).toBe(0);
  expect(await client.closed()).toHaveLength(0);
});

it.each([1, 27, 28, 28 + 100_000])(
  'a client that vanishes %i bytes into a write leaves the volume as it was',
  async (bytes) => {
    const client = await attacker();
    expect(await client.write(64 * MIB, Buffer.alloc(MIB, 0x11))).toBe(0);
    const whole = Buffer.concat([
      request({ command: COMMAND.write, offset: BigInt(64 * MIB), length: MIB }),
      Buffer.alloc(MIB, 0xee),
    ]);
    client.send(whole.subarray(0, bytes));
    await client.vanish();
    using witness = await attacker();
    await expect.poll(connections, { timeout: 30_000 }).toBe(3);
    expect((await witness.read(64 * MIB, MIB)).equals(Buffer.alloc(MIB, 0x11))).toBe(true);
  },
);

it('a client that asks for much and reads nothing is cut off without harm when it goes', async () => {
  const client = await RawClient.silent(daemon.nbdSocket);
  client.send(Buffer.concat([Buffer.from([0, 0, 0, 3]), goTo('disk')]));
  client.stopReading();
  const read = request({ command: COMMAND.read, length: 32 * MIB });
  client.send(Buffer.concat(Array.from({ length: 200 }, () => read)));
  const before = await memoryOf(daemon.pid);
  using other = await attacker();
  for (let count = 0; count < 20; count += 1) {
    expect(await other.write(count * BLOCK, Buffer.alloc(BLOCK, count))).toBe(0);
  }
  // Of 6.4 GB asked for, what one request and one batch may take is held.
  expect((await memoryOf(daemon.pid)) - before).toBeLessThan(256 * MIB);
  await client.vanish();
  await expect.poll(connections, { timeout: 30_000 }).toBe(3);
});

it('noise in the handshake and in transmission harms nobody', async () => {
  for (let seed = 1; seed <= 40; seed += 1) {
    const noise = Buffer.alloc(3000);
    let state = seed;
    for (let at = 0; at < noise.length; at += 1) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      noise[at] = state >>> 24;
    }
    using haggling = await RawClient.greeted(daemon.nbdSocket);
    haggling.send(seed % 2 === 0 ? noise : Buffer.concat([option(seed, noise.subarray(0, seed * 60)), noise]));
    using serving = await attacker();
    serving.send(noise);
    await haggling.closed();
    expect(await serving.closed()).toHaveLength(0);
  }
});

it('an unknown export is refused by name, and the client may ask again', async () => {
  await expect(RawClient.ready(daemon.nbdSocket, 'no-such-disk')).rejects.toThrow(/no-such-disk/);
  await expect(RawClient.ready(daemon.nbdSocket, '../../etc/passwd')).rejects.toThrow(/no export/);
});

function goTo(name: string): Buffer {
  const data = Buffer.alloc(4 + name.length + 2);
  data.writeUInt32BE(name.length, 0);
  data.write(name, 4);
  return option(7, data);
}

async function connections(): Promise<number> {
  const text = String((await daemon.request('GET', '/metrics')).body);
  return Number(/^quarry_nbd_connections (\d+)$/m.exec(text)?.[1]);
}

async function memoryOf(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) * 1024;
}
