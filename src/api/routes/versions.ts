/**
 * What clients ask before anything else: which versions there are, and whether we live.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { DEFAULT_PROJECT_ID, rootOf } from '../asked.ts';
import { MINOR_MAX } from '../microversion.ts';
import type { Json } from '../views.ts';

/** `isOpen`: there is no authentication, and old clients that ask us for a token get one that nobody looks at. */
export function versionRoutes(app: FastifyInstance, { isOpen }: { isOpen: boolean }): void {
  app.get('/', { config: { isOpen: true, status: 300 } }, async (request, reply) =>
    reply.code(300).send(versionDocument(request)),
  );
  for (const path of ['/v3', '/v3/']) {
    app.get(path, { config: { isVersioned: true, isOpen: true } }, async (request, reply) => {
      const user = request.headers['x-auth-user'];
      const isLogin = isOpen && typeof user === 'string' && request.headers['x-auth-token'] === undefined;
      if (!isLogin) return versionDocument(request);
      // The old way of clients that know no identity service: ask here for a token.
      const asked = request.headers['x-auth-project-id'];
      const project = typeof asked === 'string' && asked !== '' ? asked : DEFAULT_PROJECT_ID;
      return reply
        .code(204)
        .header('x-auth-token', `${user}:${project}`)
        .header('x-server-management-url', `${request.asked.root}/v3/${encodeURIComponent(project)}`)
        .send();
    });
  }
  app.get('/healthcheck', { config: { isOpen: true } }, async (_request, reply) => reply.type('text/plain').send('OK'));
}

function versionDocument(request: FastifyRequest): Json {
  const root = request.asked?.root ?? rootOf(request, null);
  return {
    versions: [
      {
        id: 'v3.0',
        status: 'CURRENT',
        version: `3.${MINOR_MAX}`,
        min_version: '3.0',
        updated: '2023-08-31T00:00:00Z',
        links: [
          { rel: 'describedby', type: 'text/html', href: 'https://docs.openstack.org/' },
          { rel: 'self', href: `${root}/v3/` },
        ],
        'media-types': [{ base: 'application/json', type: 'application/vnd.openstack.volume+json;version=3' }],
      },
    ],
  };
}
