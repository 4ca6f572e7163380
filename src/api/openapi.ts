/**
 * The OpenAPI document, made from the routes themselves: what a route's config names (body, listing, actions, rule, first
 * microversion) is what the document says, so a route that exists is in it. It checks no request.
 */
import swagger from '@fastify/swagger';
import type { FastifyInstance, FastifySchema, RouteOptions } from 'fastify';
import { POLICY, type Role } from '../control/policy.ts';
import type { Action } from './actions.ts';

type Json = Readonly<Record<string, unknown>>;

/** What a listing takes, whatever it lists. */
const PAGE: Readonly<Record<string, Json>> = {
  limit: { type: 'integer', minimum: 0, description: 'Items on a page at most; more than 1000 counts as 1000.' },
  marker: { type: 'string', description: 'The id after which the page begins.' },
  offset: { type: 'integer', minimum: 0 },
  all_tenants: { type: 'string', description: 'Of every project; administrators only.' },
  with_count: { type: 'string', description: 'From microversion 3.45: how many there are on all pages.' },
};

const VERSION_HEADER = {
  type: 'object',
  properties: {
    'OpenStack-API-Version': {
      type: 'string',
      pattern: '^volume (3\\.[0-9]+|latest)$',
      description: 'The microversion; 3.0 where it is absent.',
    },
  },
};

const FAULTS: Readonly<Record<number, string>> = {
  400: 'The request, or the state of what it names, does not allow it.',
  401: 'There is no valid token.',
  403: 'The role does not allow it.',
  404: 'What the path or the body names is not there, or not in this project or microversion.',
  406: 'The microversion is out of range.',
  409: 'It conflicts with what is there.',
  413: 'A quota is exceeded, or the body is too large.',
  415: 'The body is not JSON.',
  429: 'Too many requests; Retry-After says when to come again.',
  500: 'The server failed; its log says why.',
  503: 'The server, or the identity service, cannot answer now.',
};
const BODY_FAULTS: ReadonlySet<number> = new Set([409, 413, 415]);
/** Open routes look at nothing that could be wrong. */
const OPEN_FAULTS: ReadonlySet<number> = new Set([406, 429, 500]);

export type About = { readonly version: string; readonly isGuarded: boolean };

/** Before the routes: it listens to their being added. */
export function describeRoutes(app: FastifyInstance, about: About): void {
  app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Quarry',
        description: 'The OpenStack Block Storage API v3, and routes of our own below /v3/quarry.',
        version: about.version,
      },
      components: {
        securitySchemes: { token: { type: 'apiKey', in: 'header', name: 'X-Auth-Token' } },
        schemas: { Fault: FAULT },
        responses: faultResponses(),
      },
    },
    transform: ({ url, route }) => ({ url, schema: schemaOf(url, route, about) as FastifySchema }),
    transformObject: (document) => {
      if (!('openapiObject' in document)) throw new Error('the document is not one of OpenAPI 3');
      return withFaults(document.openapiObject);
    },
  });
}

export function openApiRoutes(app: FastifyInstance): void {
  app.get('/openapi.json', { config: { isOpen: true } }, async () => app.swagger());
  app.get('/v3/openapi.json', { config: { isVersioned: true } }, async () => app.swagger());
}

const FAULT = {
  type: 'object' as const,
  description: 'One key, which says what kind of fault it is.',
  minProperties: 1,
  maxProperties: 1,
  additionalProperties: {
    type: 'object' as const,
    required: ['code', 'message'],
    properties: {
      code: { type: 'integer' as const },
      message: { type: 'string' as const },
      title: { type: 'string' as const },
      retryAfter: { type: 'string' as const },
    },
  },
};

function faultResponses(): Record<string, { description: string; content: Record<string, object> }> {
  const content = { 'application/json': { schema: { $ref: '#/components/schemas/Fault' } } };
  return Object.fromEntries(Object.entries(FAULTS).map(([status, description]) => [status, { description, content }]));
}

type Document = { readonly paths?: Readonly<Record<string, object | undefined>> };
type Operation = { responses?: Record<string, object>; requestBody?: unknown; security?: readonly unknown[] };

function withFaults<Whole extends Document>(document: Whole): Whole {
  for (const path of Object.values(document.paths ?? {}))
    for (const operation of Object.values(path ?? {}) as Operation[]) {
      const isOpen = (operation.security ?? []).length === 0;
      const statuses = Object.keys(FAULTS)
        .map(Number)
        .filter((status) => mayAnswer(status, operation, isOpen));
      for (const status of statuses)
        operation.responses = { ...operation.responses, [status]: { $ref: `#/components/responses/${status}` } };
    }
  return document;
}

function mayAnswer(status: number, { requestBody }: Operation, isOpen: boolean): boolean {
  if (isOpen) return OPEN_FAULTS.has(status);
  return requestBody !== undefined || !BODY_FAULTS.has(status);
}

function schemaOf(url: string, route: RouteOptions, { isGuarded }: About): Json {
  const config = route.config ?? {};
  const method = String(route.method);
  const path = url.replace(/^\/v3(\/:projectId)?(?=\/|$)/, '');
  const status = config.status ?? STATUS[method] ?? 200;
  return {
    operationId: operationId(method, url),
    tags: [path.split('/')[1] || 'versions'],
    description: descriptionOf(route),
    ...(config.isVersioned && { headers: VERSION_HEADER }),
    ...queryOf(config),
    ...bodyOf(config),
    response: Object.fromEntries(statusesOf(config, status).map((code) => [code, answerOf(code)])),
    // An empty list: none is needed. With `--auth none` a token may be sent and is not looked at.
    security: config.isOpen ? [] : isGuarded ? [{ token: [] }] : [{}, { token: [] }],
  };
}

const STATUS: Readonly<Record<string, number>> = { GET: 200, PUT: 200, POST: 202, DELETE: 202 };

function statusesOf({ actions }: { actions?: ReadonlyMap<string, Action> }, status: number): number[] {
  return actions === undefined ? [status] : [...new Set([...actions.values()].map((action) => action.status))];
}

function answerOf(status: number): Json {
  if (status === 202) return { description: 'Accepted: the status tells when it is done.', type: ['object', 'null'] };
  if (status === 204) return { description: 'Done.', type: 'null' };
  return { description: status === 300 ? 'The versions.' : 'Done.', type: ['object', 'null'] };
}

function descriptionOf({ method, config = {} }: RouteOptions): string {
  const said: string[] = [];
  if (config.since !== undefined) said.push(`From microversion 3.${config.since}.`);
  if (config.actions !== undefined) said.push('The only key of the body names the action.');
  else if (!config.isOpen) {
    const role: Role = config.rule === undefined ? (method === 'GET' ? 'reader' : 'member') : POLICY[config.rule];
    said.push(`Least role: ${role}${config.rule === undefined ? '' : ` (${config.rule})`}.`);
  }
  return said.join(' ') || 'For everybody.';
}

type Described = NonNullable<RouteOptions['config']>;

function queryOf({ list, query }: Described): { querystring?: Json } {
  if (list === undefined && query === undefined) return {};
  const properties: Record<string, Json> = {};
  for (const name of query ?? []) properties[name] = { type: 'string' };
  if (list !== undefined) {
    Object.assign(properties, PAGE);
    const sort = Object.keys(list.sort).join(', ');
    properties['sort'] = { type: 'string', description: `KEY:asc or KEY:desc, separated by commas. Keys: ${sort}.` };
    for (const name of Object.keys(list.filters))
      properties[name] ??= { type: 'string', description: 'Only those that have this.' };
  }
  return { querystring: { type: 'object', properties } };
}

function bodyOf({ body, actions }: Described): { body?: unknown } {
  if (actions !== undefined) return { body: { oneOf: [...actions].map(([name, action]) => actionBody(name, action)) } };
  if (body === undefined) return {};
  // Several: what is allowed depends on the microversion.
  return { body: Array.isArray(body) ? { anyOf: body } : body };
}

function actionBody(name: string, { schema, since, rule }: Action): Json {
  const said = [since > 0 ? `From microversion 3.${since}.` : '', rule === null ? '' : `Rule: ${rule}.`];
  return {
    type: 'object',
    description: said.filter((text) => text !== '').join(' ') || 'An action.',
    required: [name],
    properties: { [name]: schema },
    additionalProperties: false,
  };
}

function operationId(method: string, url: string): string {
  const words = url.split(/[^A-Za-z0-9]+/).filter((word) => word !== '' && word !== 'v3');
  const path = words.map((word) => word.charAt(0).toUpperCase() + word.slice(1)).join('') || 'Root';
  // `/v3` and `/v3/` are two paths.
  const twin = url.startsWith('/v3') && !url.startsWith('/v3/:') ? (url === '/v3/' ? 'V3Slash' : 'V3') : '';
  return `${method.toLowerCase()}${path}${twin}`;
}
