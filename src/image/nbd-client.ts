/**
 * A small NBD client for moving images: handshake, TLS where the URI wants it, pipelined requests, structured replies, allocation map. It knows
 * nothing of volumes or images. The server is not trusted: every length it names is bounded or compared with what was asked.
 */
import { connect, type Socket } from 'node:net';
import { Failure } from '../base/errors.ts';
import { ByteStream } from './byte-stream.ts';
import * as nbd from './nbd-protocol.ts';
import { startTls, tlsOptions } from './nbd-tls.ts';

const CONNECT_TIMEOUT_MS = 10_000;
const ALLOCATION_CONTEXT = 'base:allocation';

export type Extent = { readonly offset: number; readonly length: number; readonly kind: 'data' | 'hole' };

type Pending = {
  readonly command: number;
  readonly offset: number;
  readonly length: number;
  /** Where a read's bytes go. */
  readonly target: Buffer | null;
  /** Bytes of the target that arrived: a reply that leaves a part out is damage, not zeros. */
  received: number;
  extents: Extent[];
  error: Error | null;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
};

type Negotiated = {
  readonly sizeBytes: number;
  readonly flags: number;
  readonly structured: boolean;
  readonly contextId: number | null;
  readonly requestBytesMax: number;
  readonly blockBytesMin: number;
};

export class NbdClient implements AsyncDisposable {
  readonly uri: string;
  readonly sizeBytes: number;
  readonly isReadOnly: boolean;
  /** What the server wants requests to be aligned to. */
  readonly blockBytesMin: number;
  /** Longest read or write in one request. */
  readonly requestBytesMax: number;
  readonly #socket: Socket;
  readonly #stream: ByteStream;
  readonly #negotiated: Negotiated;
  readonly #pending = new Map<number, Pending>();
  #cookie = 0;
  #failure: Error | null = null;
  #isClosing = false;

  private constructor(uri: string, socket: Socket, stream: ByteStream, negotiated: Negotiated) {
    this.uri = uri;
    this.#socket = socket;
    this.#stream = stream;
    this.#negotiated = negotiated;
    this.sizeBytes = negotiated.sizeBytes;
    this.isReadOnly = (negotiated.flags & nbd.FLAG.readOnly) !== 0;
    this.blockBytesMin = negotiated.blockBytesMin;
    this.requestBytesMax = negotiated.requestBytesMax;
    void this.#receive();
  }

  static async connect(uri: string): Promise<NbdClient> {
    const address = nbd.parseNbdUri(uri);
    const tls = address.tls === null ? null : await tlsOptions(address.tls);
    let socket = connect({ ...address.socket });
    let stream = new ByteStream(socket);
    // A server that accepts and then says nothing must not hang the command.
    const timer = setTimeout(
      () => socket.destroy(new Error(`no answer within ${CONNECT_TIMEOUT_MS / 1000} s`)),
      CONNECT_TIMEOUT_MS,
    );
    try {
      await greet(socket, stream);
      if (tls !== null) {
        await askForTls(socket, stream);
        socket = await startTls(socket, tls);
        stream = new ByteStream(socket);
      }
      const negotiated = await negotiate(socket, stream, address.exportName);
      return new NbdClient(uri, socket, stream, negotiated);
    } catch (error) {
      socket.destroy();
      throw ioError(uri, error);
    } finally {
      clearTimeout(timer);
    }
  }

  async read(offset: number, target: Buffer): Promise<void> {
    await this.#request({ command: nbd.COMMAND.read, offset, length: target.length, target });
  }

  async write(offset: number, data: Buffer): Promise<void> {
    await this.#request({ command: nbd.COMMAND.write, offset, length: data.length, data });
  }

  /** Zeros that need no space, where the server can; as written bytes otherwise. */
  async writeZeroes(offset: number, length: number): Promise<void> {
    if ((this.#negotiated.flags & nbd.FLAG.writeZeroes) !== 0) {
      await this.#request({ command: nbd.COMMAND.writeZeroes, offset, length });
      return;
    }
    for (let done = 0; done < length; done += this.requestBytesMax) {
      await this.write(offset + done, Buffer.alloc(Math.min(this.requestBytesMax, length - done)));
    }
  }

  /** What was written before is durable when it returns. */
  async flush(): Promise<void> {
    if ((this.#negotiated.flags & nbd.FLAG.flush) === 0) return;
    await this.#request({ command: nbd.COMMAND.flush, offset: 0, length: 0 });
  }

  /** The parts of a range in order, `hole` where it reads as zeros. One `data` part where the server has no map. */
  async *extents(offset: number, length: number): AsyncGenerator<Extent> {
    const end = offset + length;
    if (this.#negotiated.contextId === null) {
      if (length > 0) yield { offset, length, kind: 'data' };
      return;
    }
    let position = offset;
    while (position < end) {
      const wanted = Math.min(end - position, 1 << 30);
      const pending = await this.#request({ command: nbd.COMMAND.blockStatus, offset: position, length: wanted });
      for (const extent of pending.extents) {
        const clipped = Math.min(extent.length, end - position);
        if (clipped <= 0) break;
        yield { offset: position, length: clipped, kind: extent.kind };
        position += clipped;
      }
    }
  }

  /** Disconnects in order. Does not flush. */
  async close(): Promise<void> {
    if (this.#isClosing) return;
    this.#isClosing = true;
    if (this.#failure !== null || this.#socket.destroyed) {
      this.#socket.destroy();
      return;
    }
    const closed = new Promise<void>((resolve) => this.#socket.once('close', () => resolve()));
    this.#socket.resume();
    this.#socket.end(nbd.encodeRequest({ flags: 0, command: nbd.COMMAND.disconnect, cookie: 0, offset: 0, length: 0 }));
    const timer = setTimeout(() => this.#socket.destroy(), CONNECT_TIMEOUT_MS);
    await closed;
    clearTimeout(timer);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #request(options: {
    command: number;
    offset: number;
    length: number;
    data?: Buffer;
    target?: Buffer;
  }): Promise<Pending> {
    if (this.#failure !== null) throw ioError(this.uri, this.#failure);
    if (this.#isClosing) throw new Failure('io_error', { reason: `the connection to ${this.uri} is closed` });
    const cookie = ++this.#cookie;
    let pending: Pending | undefined;
    const done = new Promise<void>((resolve, reject) => {
      pending = {
        command: options.command,
        offset: options.offset,
        length: options.length,
        target: options.target ?? null,
        received: 0,
        extents: [],
        error: null,
        resolve,
        reject,
      };
      this.#pending.set(cookie, pending);
    });
    const { command, offset, length } = options;
    this.#socket.cork();
    this.#socket.write(nbd.encodeRequest({ flags: 0, command, cookie, offset, length }));
    if (options.data !== undefined) this.#socket.write(options.data);
    this.#socket.uncork();
    try {
      await done;
    } catch (error) {
      throw ioError(this.uri, error);
    }
    if (pending === undefined) throw new Error('a promise runs its executor at once');
    return pending;
  }

  /** The only reader of the stream after the handshake. Whatever it cannot understand ends the connection. */
  async #receive(): Promise<void> {
    try {
      for (;;) {
        const magic = (await this.#stream.read(4)).readUInt32BE(0);
        if (magic === nbd.SIMPLE_REPLY_MAGIC) await this.#receiveSimple();
        else if (magic === nbd.STRUCTURED_REPLY_MAGIC && this.#negotiated.structured) await this.#receiveChunk();
        else throw new Error(`unknown reply magic 0x${magic.toString(16)}`);
      }
    } catch (error) {
      this.#failure = error instanceof Error ? error : new Error(String(error));
      this.#socket.destroy();
      for (const pending of this.#pending.values()) pending.reject(this.#failure);
      this.#pending.clear();
    }
  }

  #find(cookie: bigint): Pending {
    const pending = this.#pending.get(Number(cookie));
    if (pending === undefined) throw new Error(`a reply for request ${cookie}, which was never sent`);
    return pending;
  }

  #finish(cookie: bigint, pending: Pending): void {
    this.#pending.delete(Number(cookie));
    if (pending.error !== null) pending.reject(pending.error);
    else if (pending.target !== null && pending.received !== pending.target.length) {
      pending.reject(new Error(`a read of ${pending.length} bytes was answered with ${pending.received}`));
    } else if (pending.command === nbd.COMMAND.blockStatus && pending.extents.length === 0) {
      pending.reject(new Error('a block status request was answered without any'));
    } else pending.resolve();
  }

  async #receiveSimple(): Promise<void> {
    const head = await this.#stream.read(12);
    const code = head.readUInt32BE(0);
    const cookie = head.readBigUInt64BE(4);
    const pending = this.#find(cookie);
    if (code !== 0) pending.error = new Error(describe(pending, code));
    else if (pending.target !== null) {
      if (this.#negotiated.structured) throw new Error('a read was answered with a simple reply');
      await this.#stream.readInto(pending.target);
      pending.received = pending.target.length;
    }
    this.#finish(cookie, pending);
  }

  async #receiveChunk(): Promise<void> {
    const head = await this.#stream.read(16);
    const isLast = (head.readUInt16BE(0) & nbd.CHUNK.done) !== 0;
    const type = head.readUInt16BE(2);
    const cookie = head.readBigUInt64BE(4);
    const length = head.readUInt32BE(12);
    const pending = this.#find(cookie);
    if (type === nbd.CHUNK.offsetData) await this.#receiveData(pending, length);
    else {
      if (length > nbd.SMALL_PAYLOAD_MAX) throw new Error(`a reply chunk of type ${type} has ${length} bytes`);
      this.#takeChunk(pending, type, await this.#stream.read(length));
    }
    if (isLast) this.#finish(cookie, pending);
  }

  async #receiveData(pending: Pending, length: number): Promise<void> {
    if (length < 8) throw new Error(`a data chunk of ${length} bytes`);
    const offset = Number((await this.#stream.read(8)).readBigUInt64BE(0));
    await this.#stream.readInto(slice(pending, offset, length - 8));
    pending.received += length - 8;
  }

  #takeChunk(pending: Pending, type: number, payload: Buffer): void {
    switch (type) {
      case nbd.CHUNK.none:
        return;
      case nbd.CHUNK.offsetHole: {
        if (payload.length !== 12) throw new Error(`a hole chunk of ${payload.length} bytes`);
        const length = payload.readUInt32BE(8);
        slice(pending, Number(payload.readBigUInt64BE(0)), length).fill(0);
        pending.received += length;
        return;
      }
      case nbd.CHUNK.blockStatus:
        this.#takeExtents(pending, payload);
        return;
      default: {
        if ((type & 0x8000) === 0) throw new Error(`unknown reply chunk of type ${type}`);
        if (payload.length < 6) throw new Error(`an error chunk of ${payload.length} bytes`);
        pending.error ??= new Error(describe(pending, payload.readUInt32BE(0)));
      }
    }
  }

  #takeExtents(pending: Pending, payload: Buffer): void {
    if (payload.length < 12 || (payload.length - 4) % 8 !== 0)
      throw new Error(`a map chunk of ${payload.length} bytes`);
    if (pending.command !== nbd.COMMAND.blockStatus) throw new Error('a map chunk that was not asked for');
    if (payload.readUInt32BE(0) !== this.#negotiated.contextId) return;
    let offset = pending.offset;
    for (let position = 4; position < payload.length; position += 8) {
      const length = payload.readUInt32BE(position);
      if (length === 0) throw new Error('a map entry of no length');
      // Only what is known to read as zeros is a hole for us; "hole" alone promises nothing about content.
      const kind = (payload.readUInt32BE(position + 4) & nbd.STATE.zero) !== 0 ? 'hole' : 'data';
      pending.extents.push({ offset, length, kind });
      offset += length;
    }
  }
}

function slice(pending: Pending, offset: number, length: number): Buffer {
  const start = offset - pending.offset;
  if (pending.target === null || start < 0 || length <= 0 || start + length > pending.target.length) {
    throw new Error(`a data chunk at ${offset}+${length} for a request of ${pending.offset}+${pending.length}`);
  }
  return pending.target.subarray(start, start + length);
}

function describe(pending: Pending, code: number): string {
  const name = Object.entries(nbd.COMMAND).find(([, command]) => command === pending.command)?.[0] ?? 'request';
  return `${name} at ${pending.offset}+${pending.length} failed: ${nbd.requestError(code)}`;
}

function ioError(uri: string, error: unknown): Failure {
  if (error instanceof Failure) return error;
  return new Failure('io_error', { reason: `${uri}: ${error instanceof Error ? error.message : String(error)}` });
}

// ---- handshake -----------------------------------------------------------------------------------------------------

type OptionReply = { readonly type: number; readonly payload: Buffer };

async function readOptionReply(stream: ByteStream, option: number): Promise<OptionReply> {
  const head = await stream.read(20);
  if (head.readBigUInt64BE(0) !== nbd.OPTION_REPLY_MAGIC) throw new Error('the option reply has a wrong magic');
  if (head.readUInt32BE(8) !== option)
    throw new Error(`the reply is for option ${head.readUInt32BE(8)}, not ${option}`);
  const length = head.readUInt32BE(16);
  if (length > nbd.SMALL_PAYLOAD_MAX) throw new Error(`the option reply has ${length} bytes`);
  return { type: head.readUInt32BE(12), payload: await stream.read(length) };
}

const isError = (type: number) => type >= nbd.OPTION_REPLY.errorFlag;

async function greet(socket: Socket, stream: ByteStream): Promise<void> {
  const greeting = await stream.read(18);
  if (greeting.readBigUInt64BE(0) !== nbd.INIT_MAGIC) throw new Error('this is no NBD server');
  if (greeting.readBigUInt64BE(8) !== nbd.OPTION_MAGIC) throw new Error('the server speaks only the old handshake');
  const serverFlags = greeting.readUInt16BE(16);
  if ((serverFlags & nbd.HANDSHAKE.fixedNewstyle) === 0)
    throw new Error('the server lacks the fixed newstyle handshake');
  const clientFlags = Buffer.alloc(4);
  clientFlags.writeUInt32BE(nbd.HANDSHAKE.fixedNewstyle | (serverFlags & nbd.HANDSHAKE.noZeroes), 0);
  socket.write(clientFlags);
}

async function askForTls(socket: Socket, stream: ByteStream): Promise<void> {
  socket.write(nbd.encodeOption(nbd.OPTION.startTls, Buffer.alloc(0)));
  const { type } = await readOptionReply(stream, nbd.OPTION.startTls);
  if (type !== nbd.OPTION_REPLY.ack) throw new Error(`the server does not speak TLS: ${nbd.optionError(type)}`);
  // Said in plain text, perhaps by somebody in between.
  if (!stream.detach()) throw new Error('the server sent bytes ahead of the TLS handshake');
}

async function negotiate(socket: Socket, stream: ByteStream, exportName: string): Promise<Negotiated> {
  socket.write(nbd.encodeOption(nbd.OPTION.structuredReply, Buffer.alloc(0)));
  const structured = (await readOptionReply(stream, nbd.OPTION.structuredReply)).type === nbd.OPTION_REPLY.ack;
  const contextId = structured ? await negotiateMap(socket, stream, exportName) : null;

  socket.write(nbd.encodeOption(nbd.OPTION.go, nbd.encodeGo(exportName)));
  let sizeBytes: number | null = null;
  let flags = 0;
  let requestBytesMax: number = nbd.REQUEST_BYTES_MAX;
  let blockBytesMin = 1;
  for (;;) {
    const { type, payload } = await readOptionReply(stream, nbd.OPTION.go);
    if (isError(type)) throw new Error(`export "${exportName}": ${nbd.optionError(type)}`);
    if (type === nbd.OPTION_REPLY.ack) break;
    if (type !== nbd.OPTION_REPLY.info || payload.length < 2) throw new Error(`unknown option reply ${type}`);
    const info = payload.readUInt16BE(0);
    if (info === nbd.INFO.export && payload.length === 12) {
      sizeBytes = safeSize(payload.readBigUInt64BE(2));
      flags = payload.readUInt16BE(10);
    } else if (info === nbd.INFO.blockSize && payload.length === 14) {
      blockBytesMin = Math.max(payload.readUInt32BE(2), 1);
      requestBytesMax = Math.min(requestBytesMax, Math.max(payload.readUInt32BE(10), blockBytesMin));
    }
  }
  if (sizeBytes === null) throw new Error('the server did not say how large the export is');
  if (blockBytesMin > 65536) throw new Error(`the server wants blocks of ${blockBytesMin} bytes`);
  return { sizeBytes, flags, structured, contextId, requestBytesMax, blockBytesMin };
}

function safeSize(size: bigint): number {
  if (size > BigInt(Number.MAX_SAFE_INTEGER))
    throw new Error(`the export has ${size} bytes, more than can be addressed here`);
  return Number(size);
}

async function negotiateMap(socket: Socket, stream: ByteStream, exportName: string): Promise<number | null> {
  const option = nbd.OPTION.setMetaContext;
  socket.write(nbd.encodeOption(option, nbd.encodeMetaContext(exportName, ALLOCATION_CONTEXT)));
  let contextId: number | null = null;
  for (;;) {
    const { type, payload } = await readOptionReply(stream, option);
    if (isError(type)) return null;
    if (type === nbd.OPTION_REPLY.ack) return contextId;
    if (type !== nbd.OPTION_REPLY.metaContext || payload.length < 4) throw new Error(`unknown option reply ${type}`);
    if (payload.subarray(4).toString() === ALLOCATION_CONTEXT) contextId = payload.readUInt32BE(0);
  }
}
