/**
 * A disk served over NBD on a unix socket, as little of the protocol as libnbd needs: NBD_OPT_GO, READ, WRITE, FLUSH. A disk whose
 * power is off answers EIO. It knows no file of the disk.
 */
import { createServer, type Server, type Socket } from 'node:net';

export type ServedDisk = {
  read(offset: number, length: number): Uint8Array;
  write(offset: number, source: Uint8Array): void;
  flush(): Promise<void>;
};

const GREETING = Buffer.from('NBDMAGICIHAVEOPT\x00\x03', 'latin1');
const OPTION_REPLY_MAGIC = 0x3e889045565a9n;
const OPTION = { abort: 2, go: 7 } as const;
const REPLY = { acknowledged: 1, info: 3, unsupported: 0x80000001 } as const;
const HAS_FLAGS_AND_FLUSH = 1 | 4;
const REPLY_MAGIC = 0x67446698;
const REQUEST_BYTES = 28;
const OPTION_BYTES = 16;
const COMMAND = { read: 0, write: 1, disconnect: 2, flush: 3 } as const;
const EIO = 5;

export class NbdDiskServer implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  constructor(disk: ServedDisk, sizeBytes: number) {
    this.#server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
      // A client that goes away is its own affair.
      socket.on('error', () => socket.destroy());
      new Connection(socket, disk, sizeBytes);
    });
  }

  listen(path: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(path, resolve);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

class Connection {
  readonly #socket: Socket;
  readonly #disk: ServedDisk;
  readonly #sizeBytes: number;
  #received: Buffer = Buffer.alloc(0);
  #phase: 'flags' | 'options' | 'requests' = 'flags';

  constructor(socket: Socket, disk: ServedDisk, sizeBytes: number) {
    [this.#socket, this.#disk, this.#sizeBytes] = [socket, disk, sizeBytes];
    socket.on('data', (bytes: Buffer) => {
      this.#received = this.#received.length === 0 ? bytes : Buffer.concat([this.#received, bytes]);
      while (this.#step());
    });
    socket.write(GREETING);
  }

  /** False when more bytes are needed. */
  #step(): boolean {
    if (this.#phase === 'flags') {
      if (this.#take(4) === null) return false;
      this.#phase = 'options';
      return true;
    }
    return this.#phase === 'options' ? this.#option() : this.#request();
  }

  #take(count: number): Buffer | null {
    if (this.#received.length < count) return null;
    const taken = this.#received.subarray(0, count);
    this.#received = this.#received.subarray(count);
    return taken;
  }

  #option(): boolean {
    if (this.#received.length < OPTION_BYTES) return false;
    const length = this.#received.readUInt32BE(12);
    const message = this.#take(OPTION_BYTES + length);
    if (message === null) return false;
    const option = message.readUInt32BE(8);
    if (option === OPTION.go) {
      const info = Buffer.alloc(12);
      info.writeBigUInt64BE(BigInt(this.#sizeBytes), 2);
      info.writeUInt16BE(HAS_FLAGS_AND_FLUSH, 10);
      this.#answerOption(option, REPLY.info, info);
      this.#answerOption(option, REPLY.acknowledged);
      this.#phase = 'requests';
    } else this.#answerOption(option, option === OPTION.abort ? REPLY.acknowledged : REPLY.unsupported);
    return true;
  }

  #answerOption(option: number, reply: number, payload = Buffer.alloc(0)): void {
    const head = Buffer.alloc(20);
    head.writeBigUInt64BE(OPTION_REPLY_MAGIC, 0);
    head.writeUInt32BE(option, 8);
    head.writeUInt32BE(reply, 12);
    head.writeUInt32BE(payload.length, 16);
    this.#socket.write(Buffer.concat([head, payload]));
  }

  #request(): boolean {
    if (this.#received.length < REQUEST_BYTES) return false;
    const type = this.#received.readUInt16BE(6);
    const length = this.#received.readUInt32BE(24);
    const message = this.#take(REQUEST_BYTES + (type === COMMAND.write ? length : 0));
    if (message === null) return false;
    const cookie = message.subarray(8, 16);
    if (type === COMMAND.disconnect) this.#socket.end();
    else {
      // What the server does in order it does at once; a flush ends later, beside what comes after it.
      this.#execute(type, Number(message.readBigUInt64BE(16)), length, message.subarray(REQUEST_BYTES)).then(
        (data) => this.#answer(cookie, 0, data),
        () => this.#answer(cookie, EIO, null),
      );
    }
    return true;
  }

  async #execute(type: number, offset: number, length: number, data: Uint8Array): Promise<Uint8Array | null> {
    if (type === COMMAND.read) return this.#disk.read(offset, length);
    if (type === COMMAND.write) this.#disk.write(offset, data);
    else if (type === COMMAND.flush) await this.#disk.flush();
    else throw new Error(`no such command: ${type}`);
    return null;
  }

  #answer(cookie: Uint8Array, error: number, data: Uint8Array | null): void {
    const head = Buffer.alloc(8);
    head.writeUInt32BE(REPLY_MAGIC, 0);
    head.writeUInt32BE(error, 4);
    this.#socket.write(Buffer.concat(data === null ? [head, cookie] : [head, cookie, data]));
  }
}
