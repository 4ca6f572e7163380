/**
 * A bad day for an object store: an HTTP proxy before a real server that breaks requests by rule. Bodies are taken whole
 * before they go on; the Host header goes on as it came, so signatures hold. It knows HTTP, not what the requests mean.
 */
import { once } from 'node:events';
import { Agent, createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { buffer } from 'node:stream/consumers';

export type Fault =
  /** Answers with this error; the server hears nothing of the request. */
  | { readonly kind: 'refuse'; readonly status: number; readonly code: string }
  /** The server does it, and the client hears an error or the end of the connection. */
  | { readonly kind: 'refuse-after'; readonly status: number; readonly code: string }
  | { readonly kind: 'reset-after' }
  /** The end of the connection instead of anything. */
  | { readonly kind: 'reset' }
  /** Half of the request's body reaches the server, then both connections end. */
  | { readonly kind: 'cut' }
  /** Half of the answer's body arrives, then the connection ends; or nothing more happens on it. */
  | { readonly kind: 'truncate' }
  | { readonly kind: 'stall' }
  /** One bit of the answer's body, or of the request's, is another; everything else says that it is right. */
  | { readonly kind: 'flip' }
  | { readonly kind: 'flip-up' }
  /** The answer's body arrives in small pieces, one per turn of the event loop. */
  | { readonly kind: 'slow' }
  /** Answered by the test; the server hears of it what the test tells it. */
  | { readonly kind: 'instead'; answer(asked: Asked): Promise<Answered> };

export type Rule = {
  readonly fault: Fault;
  readonly method?: string;
  /** Of the path with its query. */
  readonly path?: RegExp;
  /** Only requests that have this header; in lower case. */
  readonly header?: string;
  /** So many matching requests pass unharmed first. */
  readonly skip?: number;
  /** Then so many are broken; all of them where absent. */
  readonly times?: number;
};

export type Asked = {
  readonly method: string;
  readonly path: string;
  readonly headers: string[];
  readonly body: Buffer;
};
export type Answered = { readonly status: number; readonly headers: string[]; readonly body: Buffer };

const SLOW_PIECE_BYTES = 1024;
/** Headers that belong to one connection or are computed again here. */
const OWN_HEADERS = new Set(['connection', 'keep-alive', 'transfer-encoding', 'content-length', 'expect']);

export class FaultProxy implements AsyncDisposable {
  readonly #server: Server;
  readonly #target: URL;
  readonly #agent = new Agent({ keepAlive: true });
  readonly #sockets = new Set<Socket>();
  #rules: { readonly rule: Rule; seen: number; hits: number }[] = [];

  private constructor(target: string) {
    this.#target = new URL(target);
    this.#server = createServer((incoming, outgoing) => {
      // A client that hangs up meanwhile is part of the day.
      this.#handle(incoming, outgoing).catch(() => outgoing.destroy());
    });
    this.#server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
  }

  static async start(target: string): Promise<FaultProxy> {
    const proxy = new FaultProxy(target);
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    return proxy;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** From now on these alone hold; the first that matches a request is applied. */
  break(...rules: readonly Rule[]): void {
    this.#rules = rules.map((rule) => ({ rule, seen: 0, hits: 0 }));
  }

  /** Requests broken by the rules that hold. */
  get hits(): number {
    return this.#rules.reduce((sum, { hits }) => sum + hits, 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    this.#agent.destroy();
    if (this.#server.listening) await once(this.#server, 'close');
  }

  #faultFor({ method, path, headers }: Asked): Fault | null {
    for (const state of this.#rules) {
      const { rule } = state;
      if (rule.method !== undefined && rule.method !== method) continue;
      if (rule.path !== undefined && !rule.path.test(path)) continue;
      if (rule.header !== undefined && !pairsOf(headers).some(([name]) => name.toLowerCase() === rule.header)) continue;
      state.seen += 1;
      if (state.seen <= (rule.skip ?? 0) || state.hits >= (rule.times ?? Number.POSITIVE_INFINITY)) continue;
      state.hits += 1;
      return rule.fault;
    }
    return null;
  }

  async #handle(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const body = await buffer(incoming);
    const asked = { method: incoming.method ?? '', path: incoming.url ?? '', headers: incoming.rawHeaders, body };
    const fault = this.#faultFor(asked);
    switch (fault?.kind) {
      case 'refuse':
        say(outgoing, fault);
        return;
      case 'reset':
        incoming.socket.resetAndDestroy();
        return;
      case 'instead':
        await reply(outgoing, { asked, answered: await fault.answer(asked), fault });
        return;
      case 'cut':
        await this.#cut(asked);
        incoming.socket.resetAndDestroy();
        return;
      default:
    }
    const answered = await this.#forward(fault?.kind === 'flip-up' ? { ...asked, body: flipped(body) } : asked);
    if (fault?.kind === 'refuse-after') say(outgoing, fault);
    else if (fault?.kind === 'reset-after') incoming.socket.resetAndDestroy();
    else await reply(outgoing, { asked, answered, fault });
  }

  #ask({ method, path, headers, body }: Asked) {
    const { hostname, port } = this.#target;
    const passed = pairsOf(headers).filter(([name]) => !OWN_HEADERS.has(name.toLowerCase()));
    const outgoing = request({ hostname, port, method, path, agent: this.#agent, setHost: false });
    for (const [name, value] of passed) outgoing.setHeader(name, value);
    outgoing.setHeader('content-length', body.length);
    return outgoing;
  }

  async #forward(asked: Asked): Promise<Answered> {
    const outgoing = this.#ask(asked);
    const answer = new Promise<IncomingMessage>((resolve, reject) => {
      outgoing.once('response', resolve);
      outgoing.once('error', reject);
    });
    outgoing.end(asked.body);
    const response = await answer;
    return { status: response.statusCode ?? 502, headers: response.rawHeaders, body: await buffer(response) };
  }

  async #cut(asked: Asked): Promise<void> {
    const outgoing = this.#ask(asked);
    const closed = new Promise<void>((resolve) => outgoing.once('close', resolve));
    outgoing.on('error', () => {});
    outgoing.write(asked.body.subarray(0, asked.body.length / 2), () => outgoing.destroy());
    await closed;
  }
}

function pairsOf(raw: readonly string[]): [string, string][] {
  const pairs: [string, string][] = [];
  for (let at = 0; at + 1 < raw.length; at += 2) pairs.push([raw[at] ?? '', raw[at + 1] ?? '']);
  return pairs;
}

function flipped(body: Buffer): Buffer {
  const copy = Buffer.from(body);
  const middle = Math.floor(copy.length / 2);
  if (copy.length > 0) copy[middle] = (copy[middle] ?? 0) ^ 1;
  return copy;
}

function say(outgoing: ServerResponse, { status, code }: { status: number; code: string }): void {
  const body = `<?xml version="1.0"?><Error><Code>${code}</Code><Message>as the test wants it</Message></Error>`;
  outgoing.writeHead(status, { 'content-type': 'application/xml', 'content-length': Buffer.byteLength(body) });
  outgoing.end(body);
}

async function reply(
  outgoing: ServerResponse,
  { asked, answered, fault }: { asked: Asked; answered: Answered; fault: Fault | null },
): Promise<void> {
  for (const [name, value] of pairsOf(answered.headers))
    if (!OWN_HEADERS.has(name.toLowerCase())) outgoing.appendHeader(name, value);
  const body = fault?.kind === 'flip' ? flipped(answered.body) : answered.body;
  if (asked.method !== 'HEAD' && answered.status !== 204) outgoing.setHeader('content-length', body.length);
  outgoing.writeHead(answered.status);
  const half = body.subarray(0, body.length / 2);
  if (fault?.kind === 'truncate') outgoing.write(half, () => outgoing.destroy());
  else if (fault?.kind === 'stall') outgoing.write(half);
  else if (fault?.kind === 'slow') {
    for (let at = 0; at < body.length; at += SLOW_PIECE_BYTES) {
      outgoing.write(body.subarray(at, at + SLOW_PIECE_BYTES));
      await new Promise((resolve) => setImmediate(resolve));
    }
    outgoing.end();
  } else outgoing.end(body);
}
