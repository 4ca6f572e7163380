/**
 * A client that says exactly the bytes a test wants said, by the protocol's own numbers. It shares no code with what it
 * tests, and knows nothing of volumes.
 */
import { connect, type Socket } from 'node:net';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';

export const COMMAND = { read: 0, write: 1, disconnect: 2, flush: 3, trim: 4, cache: 5, zero: 6, status: 7 } as const;
export const FLAG = { fua: 1, noHole: 2, dontFragment: 4, onlyOne: 8, fastZero: 16, payloadLength: 32 } as const;
export const ERRNO = { permission: 1, io: 5, invalid: 22, noSpace: 28 } as const;

export const OPTION = { list: 3, startTls: 5, go: 7, setMetaContext: 10, extendedHeaders: 11 } as const;

const GREETING_BYTES = 18;
const OPTION_MAGIC = 0x49484156454f5054n;
const REPLY_ACK = 1;
const REPLY_ERRORS = 0x80000000;
const REQUEST_MAGIC = 0x25609513;
const SIMPLE_REPLY_MAGIC = 0x67446698;
const EXTENDED_REQUEST_MAGIC = 0x21e41c71;
const EXTENDED_REPLY_MAGIC = 0x6e8a278c;
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

/** With extended headers: 64 bits of length, which is the payload's if `flags` say so. */
export function extendedRequest(fields: Omit<Request, 'length' | 'magic'> & { readonly length: bigint }): Buffer {
  const bytes = Buffer.alloc(32);
  bytes.writeUInt32BE(EXTENDED_REQUEST_MAGIC, 0);
  bytes.writeUInt16BE(fields.flags ?? 0, 4);
  bytes.writeUInt16BE(fields.command, 6);
  bytes.writeBigUInt64BE(fields.cookie ?? 1n, 8);
  bytes.writeBigUInt64BE(fields.offset ?? 0n, 16);
  bytes.writeBigUInt64BE(fields.length, 24);
  return bytes;
}

/** Data of INFO and GO. */
export function exportData(exportName: string): Buffer {
  const name = Buffer.from(exportName);
  const data = Buffer.alloc(4 + name.length + 2);
  data.writeUInt32BE(name.length, 0);
  name.copy(data, 4);
  return data;
}

/** Data of SET_META_CONTEXT. */
export function contextData(exportName: string, queries: readonly string[]): Buffer {
  const counted = (text: string): Buffer => {
    const bytes = Buffer.alloc(4 + Buffer.byteLength(text));
    bytes.writeUInt32BE(bytes.length - 4, 0);
    bytes.write(text, 4);
    return bytes;
  };
  const count = Buffer.alloc(4);
  count.writeUInt32BE(queries.length, 0);
  return Buffer.concat([counted(exportName), count, ...queries.map(counted)]);
}

export type Chunk = { readonly flags: number; readonly kind: number; readonly payload: Buffer };

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

  /** As `greeted`, and from there on under TLS. */
  static async secured(path: string, options: ConnectionOptions): Promise<RawClient> {
    const client = await RawClient.greeted(path);
    await client.ask(OPTION.startTls, Buffer.alloc(0));
    client.#socket.removeAllListeners('data');
    const socket = connectTls({ ...options, socket: client.#socket });
    await new Promise<void>((resolve, reject) => {
      socket.once('secureConnect', resolve);
      socket.once('error', reject);
    });
    return new RawClient(socket);
  }

  /** In transmission, with simple replies. */
  static async ready(path: string, exportName: string): Promise<RawClient> {
    const client = await RawClient.greeted(path);
    await client.ask(OPTION.go, exportData(exportName));
    return client;
  }

  /** In transmission with extended headers; `contexts` get the ids 1, 2 and so on, as far as they exist. */
  static async extended(path: string, exportName: string, contexts: readonly string[]): Promise<RawClient> {
    const client = await RawClient.greeted(path);
    await client.ask(OPTION.extendedHeaders, Buffer.alloc(0));
    await client.ask(OPTION.setMetaContext, contextData(exportName, contexts));
    await client.ask(OPTION.go, exportData(exportName));
    return client;
  }

  /** One option that must be granted: what is said before the acknowledgement. */
  async ask(kind: number, data: Buffer): Promise<Buffer[]> {
    this.send(option(kind, data));
    const said: Buffer[] = [];
    for (;;) {
      const header = await this.take(20);
      const reply = header.readUInt32BE(12);
      const text = await this.take(header.readUInt32BE(16));
      if (reply === REPLY_ACK) return said;
      if (reply >= REPLY_ERRORS) throw new Error(`option ${kind} was refused: ${text}`);
      said.push(text);
    }
  }

  /** One chunk of an extended reply, which must repeat cookie and offset of its request. */
  async chunk(cookie: bigint, offset: bigint): Promise<Chunk> {
    const header = await this.take(32);
    const repeated = [header.readUInt32BE(0), header.readBigUInt64BE(8), header.readBigUInt64BE(16)];
    if (repeated[0] !== EXTENDED_REPLY_MAGIC || repeated[1] !== cookie || repeated[2] !== offset)
      throw new Error(`not the reply to ${cookie}: ${header.toString('hex')}`);
    const payload = Buffer.from(await this.take(Number(header.readBigUInt64BE(24))));
    return { flags: header.readUInt16BE(4), kind: header.readUInt16BE(6), payload };
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
