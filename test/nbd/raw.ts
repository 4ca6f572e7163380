/**
 * A client that says exactly the bytes a test wants said, by the protocol's own numbers. It shares no code with what it
 * tests, and knows nothing of volumes.
 */
import { connect, type Socket } from 'node:net';

export const COMMAND = { read: 0, write: 1, disconnect: 2, flush: 3, trim: 4, cache: 5, zero: 6, status: 7 } as const;
export const FLAG = { fua: 1, noHole: 2, dontFragment: 4, onlyOne: 8, fastZero: 16 } as const;
export const ERRNO = { permission: 1, io: 5, invalid: 22, noSpace: 28 } as const;

const GREETING_BYTES = 18;
const OPTION_MAGIC = 0x49484156454f5054n;
const OPTION_GO = 7;
const REPLY_ACK = 1;
const REPLY_ERRORS = 0x80000000;
const REQUEST_MAGIC = 0x25609513;
const SIMPLE_REPLY_MAGIC = 0x67446698;
const REQUEST_BYTES = 28;

export type Request = {
  readonly command: number;
  readonly flags?: number;
  readonly cookie?: bigint;
  readonly offset?: bigint;
  readonly length?: number;
  readonly magic?: number;
};

export function request(fields: Request): Buffer {
  const bytes = Buffer.alloc(REQUEST_BYTES);
  bytes.writeUInt32BE(fields.magic ?? REQUEST_MAGIC, 0);
  bytes.writeUInt16BE(fields.flags ?? 0, 4);
  bytes.writeUInt16BE(fields.command, 6);
  bytes.writeBigUInt64BE(fields.cookie ?? 1n, 8);
  bytes.writeBigUInt64BE(fields.offset ?? 0n, 16);
  bytes.writeUInt32BE(fields.length ?? 0, 24);
  return bytes;
}

export function option(kind: number, data: Buffer): Buffer {
  const header = Buffer.alloc(16);
  header.writeBigUInt64BE(OPTION_MAGIC, 0);
  header.writeUInt32BE(kind, 8);
  header.writeUInt32BE(data.length, 12);
  return Buffer.concat([header, data]);
}

export class RawClient implements Disposable {
  readonly #socket: Socket;
  readonly #closed: Promise<void>;
  #received = Buffer.alloc(0);
  #isClosed = false;
  #wake: () => void = () => {};

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      this.#wake();
    });
    // A reset is one of the ways in which a server hangs up; `close` follows.
    socket.on('error', () => {});
    this.#closed = new Promise((resolve) =>
      socket.once('close', () => {
        this.#isClosed = true;
        this.#wake();
        resolve();
      }),
    );
  }

  /** The greeting is exchanged; no option is sent yet. */
  static async greeted(path: string): Promise<RawClient> {
    const client = await RawClient.silent(path);
    await client.take(GREETING_BYTES);
    client.send(Buffer.from([0, 0, 0, 3]));
    return client;
  }

  /** Connected, with nothing said and nothing taken. */
  static async silent(path: string): Promise<RawClient> {
    const socket = connect({ path });
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return new RawClient(socket);
  }

  /** In transmission, with simple replies. */
  static async ready(path: string, exportName: string): Promise<RawClient> {
    const client = await RawClient.greeted(path);
    const name = Buffer.from(exportName);
    const data = Buffer.alloc(4 + name.length + 2);
    data.writeUInt32BE(name.length, 0);
    name.copy(data, 4);
    client.send(option(OPTION_GO, data));
    for (;;) {
      const header = await client.take(20);
      const kind = header.readUInt32BE(12);
      const text = await client.take(header.readUInt32BE(16));
      if (kind === REPLY_ACK) return client;
      if (kind >= REPLY_ERRORS) throw new Error(`'${exportName}' was refused: ${text}`);
    }
  }

  send(bytes: Buffer): void {
    this.#socket.write(bytes);
  }

  async take(count: number): Promise<Buffer> {
    while (this.#received.length < count) {
      if (this.#isClosed) throw new Error(`closed after ${this.#received.length} of ${count} bytes`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const taken = this.#received.subarray(0, count);
    this.#received = this.#received.subarray(count);
    return taken;
  }

  /** The simple reply to one request. */
  async reply(): Promise<{ cookie: bigint; errno: number }> {
    const bytes = await this.take(16);
    if (bytes.readUInt32BE(0) !== SIMPLE_REPLY_MAGIC) throw new Error(`not a simple reply: ${bytes.toString('hex')}`);
    return { errno: bytes.readUInt32BE(4), cookie: bytes.readBigUInt64BE(8) };
  }

  /** One request without payload, and the error of its reply (0: none). */
  async errnoOf(fields: Request): Promise<number> {
    this.send(request(fields));
    return (await this.reply()).errno;
  }

  async write(offset: number, data: Buffer, flags = 0): Promise<number> {
    const header = { command: COMMAND.write, flags, offset: BigInt(offset), length: data.length };
    this.send(Buffer.concat([request(header), data]));
    return (await this.reply()).errno;
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const errno = await this.errnoOf({ command: COMMAND.read, offset: BigInt(offset), length });
    if (errno !== 0) throw new Error(`read of ${length} at ${offset} failed with ${errno}`);
    return Buffer.from(await this.take(length));
  }

  /** Waits for the server to hang up, and returns what it had said until then. */
  async closed(): Promise<Buffer> {
    await this.#closed;
    return this.#received;
  }

  /** From now on nothing is read: what the server sends fills the socket. */
  stopReading(): void {
    this.#socket.pause();
  }

  /** Vanishes, as a killed client does: what was written to the socket is still there for the server to read. */
  vanish(): Promise<void> {
    return new Promise((resolve) => {
      this.#socket.write('', () => {
        this.#socket.destroy();
        this.#closed.then(resolve);
      });
    });
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}
