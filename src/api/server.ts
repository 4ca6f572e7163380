/**
 * Builds the HTTP API over a control plane: hooks for versions, ids and errors, and the routes in both URL forms. It
 * never listens; `daemon` gives it sockets, tests inject requests.
 */
import { createHash, randomUUID } from 'node:crypto';
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import type { Control } from '../control/control.ts';
import { type Asked, askedOf, NOBODY } from './asked.ts';
import { admit, requireOwnProject, requireRole } from './auth/admission.ts';
import type { Authenticator } from './auth/authenticator.ts';
import { answerError, Fault, noSuchRoute, tooNew } from './faults.ts';
import { minorOf, versionHeader } from './microversion.ts';
import { describeRoutes, openApiRoutes } from './openapi.ts';
import { type Limiter, limitRates, type RateLimits } from './rate-limits.ts';
import { attachmentRoutes } from './routes/attachments.ts';
import { backupScheduleRoutes } from './routes/backup-schedules.ts';
import { backupRoutes } from './routes/backups.ts';
import { basicRoutes } from './routes/basics.ts';
import { groupSnapshotRoutes } from './routes/group-snapshots.ts';
import { groupTypeRoutes } from './routes/group-types.ts';
import { groupRoutes } from './routes/groups.ts';
import { hostRoutes } from './routes/hosts.ts';
import { manageableRoutes } from './routes/manageable.ts';
import { messageRoutes } from './routes/messages.ts';
import { metadataRoutes } from './routes/metadata.ts';
import { qosRoutes } from './routes/qos-specs.ts';
import { quarryRoutes, scrapeRoute } from './routes/quarry.ts';
import { quotaRoutes } from './routes/quotas.ts';
import { serviceRoutes } from './routes/services.ts';
import { snapshotRoutes } from './routes/snapshots.ts';
import { transferRoutes } from './routes/transfers.ts';
import { typeDetailRoutes } from './routes/type-details.ts';
import { typeRoutes } from './routes/types.ts';
import { versionRoutes } from './routes/versions.ts';
import { volumeActionRoutes } from './routes/volume-actions.ts';
import { volumeRoutes } from './routes/volumes.ts';
import type { Place } from './views.ts';

/** As Cinder's. */
export const BODY_BYTES_MAX = 114_688;
/** Longest text between two slashes of a path: a metadata key of 255 characters, percent-encoded. */
const PARAM_CHARS_MAX = 3 * 4 * 255;
const GLOBAL_ID = /^req-[0-9a-f-]{36}$/;

export type ServerOptions = {
  /** How clients reach us, when that cannot be told from their requests: `https://api.example/volume/v3`. */
  readonly publicEndpoint: string | null;
  /** Absent: no authentication. */
  readonly authenticator?: Authenticator;
  /** Absent: no limits. */
  readonly rateLimits?: RateLimits;
  /** Absent: as Cinder's. */
  readonly bodyBytesMax?: number;
  /** `/metrics` answers without a token. */
  readonly openMetrics?: boolean;
};

export type RouteContext = { readonly control: Control; readonly place: Place };

export type Server = FastifyInstance;

export function buildServer(control: Control, options: ServerOptions): Server {
  const publicRoot = options.publicEndpoint?.replace(/\/+$/, '').replace(/\/v3$/, '') ?? null;
  const prefix = publicRoot === null ? '' : new URL(publicRoot).pathname.replace(/\/$/, '');
  const app = fastify({
    logger: false,
    bodyLimit: options.bodyBytesMax ?? BODY_BYTES_MAX,
    genReqId: () => `req-${randomUUID()}`,
    routerOptions: { maxParamLength: PARAM_CHARS_MAX },
    // A proxy may have kept the public prefix.
    rewriteUrl: ({ url = '/' }) => (prefix !== '' && url.startsWith(`${prefix}/`) ? url.slice(prefix.length) : url),
    frameworkErrors: (_error, request, reply) => answerError(control.log, noSuchRoute(), request, reply),
    // Bodies are taken as they are: nothing is converted, nothing is dropped.
    ajv: {
      customOptions: { coerceTypes: false, removeAdditional: false, useDefaults: false, verbose: true, strict: false },
    },
  });
  app.decorateRequest('asked', null as unknown as Asked);
  acceptJson(app);
  const limiter = limitRates(app, options.rateLimits ?? { addressPerMinute: null, projectPerMinute: null });
  addHooks(app, control, { publicRoot, limiter, authenticator: options.authenticator ?? null });
  app.setErrorHandler((error, request, reply) => answerError(control.log, error, request, reply));
  app.setNotFoundHandler((request, reply) => answerError(control.log, noSuchRoute(), request, reply));

  const { host } = control.settings;
  const context: RouteContext = { control, place: { host: `${host}@pool#pool`, serviceUuid: uuidFrom(host) } };
  describeRoutes(app, { version: control.settings.version, isGuarded: options.authenticator !== undefined });
  app.register(async (routes) => {
    versionRoutes(routes, { isOpen: options.authenticator === undefined });
    scrapeRoute(routes, context, { isOpen: options.openMetrics === true });
    openApiRoutes(routes);
  });
  for (const start of ['/v3', '/v3/:projectId']) {
    app.register(
      async (routes) => {
        routes.addHook('onRoute', (route) => {
          route.config = { ...route.config, isVersioned: true };
        });
        for (const add of ROUTES) add(routes, context);
      },
      { prefix: start },
    );
  }
  return app;
}

const ROUTES = [
  volumeRoutes,
  volumeActionRoutes,
  attachmentRoutes,
  manageableRoutes,
  snapshotRoutes,
  metadataRoutes,
  typeRoutes,
  typeDetailRoutes,
  qosRoutes,
  quotaRoutes,
  backupRoutes,
  backupScheduleRoutes,
  basicRoutes,
  serviceRoutes,
  hostRoutes,
  messageRoutes,
  transferRoutes,
  groupTypeRoutes,
  groupRoutes,
  groupSnapshotRoutes,
  quarryRoutes,
] as const;

function acceptJson(app: Server): void {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (_request, body, done) => {
    if (body === '') return done(null, undefined);
    try {
      done(null, JSON.parse(String(body)));
    } catch {
      done(new Fault(400, 'badRequest', 'Malformed request body'), undefined);
    }
  });
  // Without a content type a body counts as none; another type is refused.
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (request, _body, done) => {
    if (request.headers['content-type'] === undefined) return done(null, undefined);
    done(new Fault(415, 'badMediaType', 'Unsupported Content-Type'), undefined);
  });
}

type Gate = {
  readonly publicRoot: string | null;
  readonly limiter: Limiter;
  readonly authenticator: Authenticator | null;
};

function addHooks(app: Server, control: Control, { publicRoot, limiter, authenticator }: Gate): void {
  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-openstack-request-id', request.id);
    // Set before anything can fail: the answer to an error needs it too.
    request.asked = askedOf(request, { caller: NOBODY, minor: 0, publicRoot });
    if (isVersioned(request)) reply.header('x-compute-request-id', request.id);
    await limiter.countAddress(request);
    if (!needsToken(request)) return;
    const caller = await admit(request, authenticator);
    request.asked = askedOf(request, { caller, minor: 0, publicRoot });
    await limiter.countProject(request);
  });
  app.addHook('onRequest', async (request, reply) => {
    const { config } = request.routeOptions;
    const { caller, urlProject } = request.asked;
    if (isVersioned(request)) {
      const minor = minorOf(request.headers['openstack-api-version']);
      request.asked = askedOf(request, { caller, minor, publicRoot });
      reply.header('openstack-api-version', versionHeader(minor)).header('vary', 'OpenStack-API-Version');
      if (config.since !== undefined && minor < config.since) throw tooNew(minor);
      if (urlProject === '') throw noSuchRoute();
    }
    if (!needsToken(request) || request.is404) return;
    requireOwnProject(caller, urlProject);
    requireRole(request, caller);
  });
  app.addHook('onError', async (_request, reply, error) => {
    if (authenticator !== null && error instanceof Fault && error.status === 401)
      reply.header('www-authenticate', authenticator.challenge);
  });
  app.addHook('onSend', async (request, reply, payload) => {
    const type = reply.getHeader('content-type');
    if (typeof type === 'string' && type.startsWith('application/json'))
      reply.header('content-type', 'application/json');
    const { hasEtag } = request.routeOptions.config;
    if (hasEtag && request.asked.minor >= 15 && reply.statusCode === 200 && typeof payload === 'string')
      reply.header('etag', createHash('md5').update(payload).digest('hex'));
    return payload;
  });
  app.addHook('onResponse', async (request, reply) => record(control, request, reply));
}

function isVersioned(request: FastifyRequest): boolean {
  if (request.routeOptions.config?.isVersioned) return true;
  return /^\/v3(\/|\?|$)/.test(request.url);
}

/** Everything below /v3, so that without a token one cannot even tell which paths there are; and what is not open. */
function needsToken(request: FastifyRequest): boolean {
  if (request.routeOptions.config?.isOpen) return false;
  return isVersioned(request) || !request.is404;
}

function record(control: Control, request: FastifyRequest, reply: FastifyReply): void {
  const { method, url } = request;
  const route = request.routeOptions.url ?? 'none';
  const seconds = reply.elapsedTime / 1000;
  control.metrics.httpSeconds.observe({ method, route, status: String(reply.statusCode) }, seconds);
  const global = request.headers['x-openstack-request-id'];
  control.log.debug(
    {
      request: request.id,
      ...(typeof global === 'string' && GLOBAL_ID.test(global) && { globalRequest: global }),
      method,
      url,
      status: reply.statusCode,
      ms: Math.round(reply.elapsedTime * 10) / 10,
    },
    'request',
  );
}

/** The same host has the same id at every start. */
function uuidFrom(text: string): string {
  const hex = createHash('sha256').update(text).digest('hex').slice(0, 32).split('');
  hex[12] = '4';
  hex[16] = '8';
  return hex.join('').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
