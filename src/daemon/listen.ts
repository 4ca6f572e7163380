/**
 * Sockets for the HTTP API: several addresses, one set of routes; and their end, which lets requests in flight finish.
 */
import { existsSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import type { Server as Api } from '../api/server.ts';
import { Failure } from '../base/errors.ts';
import type { Address } from './address.ts';

/** Longer than the idle time of usual proxies and client pools, so that they close first. */
const KEEP_ALIVE_MS = 75_000;

export type Listener = {
  /** As the ready line says it: a URL, or `unix:PATH`. */
  readonly url: string;
  /** Stops accepting, lets requests in flight finish; those that take longer are cut off. */
  close(graceMs: number): Promise<void>;
};

export async function listen(api: Api, address: Address): Promise<Listener> {
  const server = createServer((request, response) => api.routing(request, response));
  server.keepAliveTimeout = KEEP_ALIVE_MS;
  if (address.kind === 'unix') await removeStaleSocket(address.path);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(cannotListen(address, error)));
    if (address.kind === 'unix') server.listen(address.path, resolve);
    else server.listen({ host: address.host, port: address.port }, resolve);
  });
  return { url: urlOf(server, address), close: (graceMs) => close(server, graceMs) };
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

function urlOf(server: Server, address: Address): string {
  if (address.kind === 'unix') return address.text;
  const { port } = server.address() as AddressInfo;
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  return `http://${host}:${port}`;
}

async function close(server: Server, graceMs: number): Promise<void> {
  const timer = setTimeout(() => server.closeAllConnections(), graceMs);
  await new Promise<void>((resolve) => server.close(() => resolve()));
  clearTimeout(timer);
}
