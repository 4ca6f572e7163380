/**
 * What clients ask before anything else: which versions there are, and whether we live.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { DEFAULT_PROJECT_ID, rootOf } from '../asked.ts';
import { MINOR_MAX } from '../microversion.ts';
import type { Json } from '../views.ts';

export function versionRoutes(app: FastifyInstance): void {
  app.get('/', async (request, reply) => reply.code(300).send(versionDocument(request)));
  for (const path of ['/v3', '/v3/']) {
    app.get(path, { config: { isVersioned: true } }, async (request, reply) => {
      const user = request.headers['x-auth-user'];
      if (typeof user !== 'string' || request.headers['x-auth-token'] !== undefined) return versionDocument(request);
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
  app.get('/healthcheck', async (_request, reply) => reply.type('text/plain').send('OK'));
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
