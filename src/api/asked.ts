/**
 * What is known of a request before its route looks at it: who asks, in which microversion, and how links to us look to
 * the one who asked.
 */
import type { FastifyRequest } from 'fastify';
import type { TSchema } from 'typebox';
import type { Caller, Rule } from '../control/policy.ts';
import type { Action } from './actions.ts';

/** Where a request acts whose URL names no project; docs/api.md tells users. */
export const DEFAULT_PROJECT_ID = '00000000000000000000000000000001';
export const DEFAULT_USER_ID = '00000000000000000000000000000002';

export type Asked = {
  readonly caller: Caller;
  /** N of microversion 3.N. */
  readonly minor: number;
  /** Scheme, host and prefix; no slash at the end. */
  readonly root: string;
  /** As in the URL; null when it has none. */
  readonly urlProject: string | null;
};

declare module 'fastify' {
  interface FastifyRequest {
    asked: Asked;
  }
  interface FastifyContextConfig {
    /** The first microversion that has this route. */
    since?: number;
    /** Below /v3, where versions and their headers apply. */
    isVersioned?: boolean;
    /** Answered without a token, whatever the authentication. */
    isOpen?: boolean;
    /** Who may; without it readers read and members change. An action's own rule stands with the action. */
    rule?: Rule;
    /** The actions that its body may name. */
    actions?: ReadonlyMap<string, Action>;
    /** What follows is for the OpenAPI document. The shape of the body; several where microversions differ. */
    body?: TSchema | readonly TSchema[];
    /** A listing: its filters and sort keys. */
    list?: { readonly filters: object; readonly sort: object };
    /** Other words of the query. */
    query?: readonly string[];
    /** Of a success, where it is not 202 for POST and DELETE and 200 otherwise. */
    status?: number;
    /** The answer bears a hash of its body (from 3.15). */
    hasEtag?: boolean;
  }
}

/** A host as it may stand in a link; anything else in these headers is ignored. */
const HOST = /^[A-Za-z0-9.\-_[\]:]{1,255}$/;
const PREFIX = /^(\/[A-Za-z0-9.\-_~]+)+$/;

export function rootOf(request: FastifyRequest, publicRoot: string | null): string {
  if (publicRoot !== null) return publicRoot;
  const forwarded = header(request, 'x-forwarded-proto');
  const scheme = forwarded === 'https' || forwarded === 'http' ? forwarded : request.protocol;
  const host = [header(request, 'x-forwarded-host'), header(request, 'host')].find((text) => HOST.test(text));
  const prefix = header(request, 'x-forwarded-prefix').replace(/\/+$/, '').replace(/\/v3$/, '');
  return `${scheme}://${host ?? 'localhost'}${PREFIX.test(prefix) ? prefix : ''}`;
}

/** The first of several values: what the outermost proxy saw. */
function header(request: FastifyRequest, name: string): string {
  const value = request.headers[name];
  const text = Array.isArray(value) ? value[0] : value;
  return (text ?? '').split(',')[0]?.trim() ?? '';
}

/** Before it is known who asks. */
export const NOBODY: Caller = { projectId: '', userId: '', role: 'reader', isAdmin: false, isService: false };

/** Without authentication everybody administers the project that the URL names. */
export function anybody(request: FastifyRequest): Caller {
  const isService = request.headers['x-service-token'] !== undefined;
  const projectId = urlProjectOf(request) ?? DEFAULT_PROJECT_ID;
  return { projectId, userId: DEFAULT_USER_ID, role: 'admin', isAdmin: true, isService };
}

function urlProjectOf(request: FastifyRequest): string | null {
  const params = request.params as Readonly<Record<string, string | undefined>> | undefined;
  return params?.['projectId'] ?? null;
}

export function askedOf(
  request: FastifyRequest,
  options: { caller: Caller; minor: number; publicRoot: string | null },
): Asked {
  const { caller, minor, publicRoot } = options;
  return {
    caller: { ...caller, requestId: request.id },
    minor,
    root: rootOf(request, publicRoot),
    urlProject: urlProjectOf(request),
  };
}

/** A parameter of the path. */
export function param(request: FastifyRequest, name: string): string {
  const params = request.params as Readonly<Record<string, string | undefined>>;
  return params[name] ?? '';
}
