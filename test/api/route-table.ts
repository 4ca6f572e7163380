/** The routes of a server, read off the server itself: what is added later is tested without anybody's doing. */
import type { RouteOptions } from 'fastify';
import type { Api } from './api.ts';

export type Route = {
  readonly method: string;
  readonly url: string;
  readonly config: NonNullable<RouteOptions['config']>;
};

/** Before the first request. HEAD goes with its GET. */
export async function routesOf(api: Api): Promise<Route[]> {
  const found: Route[] = [];
  api.server.addHook('onRoute', ({ method, url, config }) => {
    for (const one of [method].flat()) if (one !== 'HEAD') found.push({ method: one, url, config: config ?? {} });
  });
  await api.server.ready();
  return found;
}
