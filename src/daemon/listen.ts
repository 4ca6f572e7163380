/**
 * Sockets for the HTTP API: several addresses, one set of routes; and their end, which lets requests in flight finish.
 */
import { existsSync, rmSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import { createServer as createTlsServer, type Server as TlsServer } from 'node:https';
import { type AddressInfo, connect, type Socket } from 'node:net';
import type { Server as Api } from '../api/server.ts';
import { Failure } from '../base/errors.ts';
import type { Address } from './address.ts';
import type { ApiTls } from './api-tls.ts';

/** Longer than the idle time of usual proxies and client pools, so that they close first. */
const KEEP_ALIVE_MS = 75_000;
/** As NBD clients get for theirs. */
const HANDSHAKE_MS = 30_000;

export type Listener = {
  /** As the ready line says it: a URL, or `unix:PATH`. */
  readonly url: string;
  /** A new certificate, for connections made from now on; nothing happens where there is no TLS. */
  setTls(tls: ApiTls): void;
  /** Stops accepting, lets requests in flight finish; those that take longer are cut off. */
  close(graceMs: number): Promise<void>;
};

/** `tls` is for addresses on TCP: who may open a unix socket is on this machine, and clients of one expect none. */
export async function listen(api: Api, address: Address, tls: ApiTls | null): Promise<Listener> {
  const answer: RequestListener = (request, response) => api.routing(request, response);
  const secure = tls === null || address.kind === 'unix' ? null : tlsServer(tls, answer);
  const server = secure ?? createServer(answer);
  server.keepAliveTimeout = KEEP_ALIVE_MS;
  const sockets = socketsOf(server);
  if (address.kind === 'unix') await removeStaleSocket(address.path);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(cannotListen(address, error)));
    if (address.kind === 'unix') server.listen(address.path, resolve);
    else server.listen({ host: address.host, port: address.port }, resolve);
  });
  return {
    url: urlOf(server, address, secure === null ? 'http' : 'https'),
    setTls: (renewed) => secure?.setSecureContext(renewed),
    close: (graceMs) => close(server, sockets, graceMs),
  };
}

function tlsServer(tls: ApiTls, answer: RequestListener): TlsServer {
  return createTlsServer({ ...tls, handshakeTimeout: HANDSHAKE_MS }, answer);
}

/** Those that are open, also before their TLS handshake is done: of these the HTTP server does not know yet. */
function socketsOf(server: Server): ReadonlySet<Socket> {
  const open = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    open.add(socket);
    socket.once('close', () => open.delete(socket));
  });
  return open;
}

/** What a killed daemon leaves. A socket that somebody answers at is not ours to take. */
async function removeStaleSocket(path: string): Promise<void> {
  if (!existsSync(path)) return;
  const isAlive = await new Promise<boolean>((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
  });
  if (isAlive) throw new Failure('cannot_listen', { address: `unix:${path}`, reason: 'another program listens there' });
  rmSync(path, { force: true });
}

function cannotListen(address: Address, error: NodeJS.ErrnoException): Failure {
  const reason = error.code === 'EADDRINUSE' ? 'another program listens there' : error.message;
  return new Failure('cannot_listen', { address: address.text, reason });
}

function urlOf(server: Server, address: Address, scheme: 'http' | 'https'): string {
  if (address.kind === 'unix') return address.text;
  const { port } = server.address() as AddressInfo;
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  return `${scheme}://${host}:${port}`;
}

async function close(server: Server, sockets: ReadonlySet<Socket>, graceMs: number): Promise<void> {
  const timer = setTimeout(() => {
    for (const socket of sockets) socket.destroy();
  }, graceMs);
  await new Promise<void>((resolve) => server.close(() => resolve()));
  clearTimeout(timer);
}
