/**
 * Reads exact numbers of bytes from a socket, in order. It bounds what it holds by pausing the socket, and knows no protocol.
 */
import type { Socket } from 'node:net';

/** Above this the socket is paused until somebody reads. */
const BUFFERED_BYTES_MAX = 4 << 20;

type Waiting = { readonly bytes: number; readonly resolve: () => void; readonly reject: (error: Error) => void };

export class ByteStream {
  readonly #socket: Socket;
  #chunks: Buffer[] = [];
  #buffered = 0;
  #waiting: Waiting | null = null;
  #error: Error | null = null;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', this.#onData);
    socket.on('error', this.#onError);
    socket.on('close', this.#onClose);
  }

  /** Leaves the socket to another reader, which must not miss a byte: true if none was received beyond what was read. */
  detach(): boolean {
    this.#socket.off('data', this.#onData);
    this.#socket.off('error', this.#onError);
    this.#socket.off('close', this.#onClose);
    return this.#buffered === 0;
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#chunks.push(chunk);
    this.#buffered += chunk.length;
    if (this.#waiting !== null && this.#buffered >= this.#waiting.bytes) {
      const { resolve } = this.#waiting;
      this.#waiting = null;
      resolve();
    } else if (this.#waiting === null && this.#buffered > BUFFERED_BYTES_MAX) this.#socket.pause();
  };
  readonly #onError = (error: Error): void => this.#fail(error);
  readonly #onClose = (): void => this.#fail(new Error('the server closed the connection'));

  /** One read at a time. */
  async read(bytes: number): Promise<Buffer> {
    const target = Buffer.allocUnsafe(bytes);
    await this.readInto(target);
    return target;
  }

  /** Fills the whole of `target`. */
  async readInto(target: Buffer): Promise<void> {
    let filled = this.#take(target, 0);
    while (filled < target.length) {
      if (this.#error !== null) throw this.#error;
      // Large payloads are taken as they arrive, so that no more than a little is held twice.
      const bytes = Math.min(target.length - filled, BUFFERED_BYTES_MAX / 4);
      await new Promise<void>((resolve, reject) => {
        this.#waiting = { bytes, resolve, reject };
        this.#socket.resume();
      });
      filled += this.#take(target, filled);
    }
  }

  #take(target: Buffer, start: number): number {
    let taken = 0;
    while (start + taken < target.length) {
      const chunk = this.#chunks[0];
      if (chunk === undefined) break;
      const count = chunk.copy(target, start + taken);
      taken += count;
      if (count === chunk.length) this.#chunks.shift();
      else this.#chunks[0] = chunk.subarray(count);
    }
    this.#buffered -= taken;
    return taken;
  }

  #fail(error: Error): void {
    this.#error ??= error;
    const waiting = this.#waiting;
    this.#waiting = null;
    waiting?.reject(this.#error);
  }
}
