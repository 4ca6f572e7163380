/**
 * Who is let in: the gate before every route. It finds out who asks, whether that project may be asked about here, and
 * whether the route is for such a one; what an object's project is, it does not know.
 */
import type { FastifyRequest } from 'fastify';
import { type Caller, isAllowed, POLICY, refusal } from '../../control/policy.ts';
import { anybody } from '../asked.ts';
import { badRequest, forbidden } from '../faults.ts';
import { type Authenticator, callerOf, NO_PROJECT } from './authenticator.ts';

/** Null: no authentication, everybody may do everything. */
export async function admit(request: FastifyRequest, authenticator: Authenticator | null): Promise<Caller> {
  if (authenticator === null) return anybody(request);
  return callerOf(authenticator, {
    token: headerOf(request, 'x-auth-token'),
    serviceToken: headerOf(request, 'x-service-token'),
  });
}

function headerOf(request: FastifyRequest, name: string): string | null {
  const value = request.headers[name];
  return typeof value === 'string' && value !== '' ? value : null;
}

/** The project in the URL is the token's, or there is none; also for administrators. */
export function requireOwnProject(caller: Caller, urlProject: string | null): void {
  if (urlProject !== null && urlProject !== caller.projectId) throw badRequest('Malformed request url');
}

/** Readers read, members change, unless the route has a rule of its own. Actions are told apart by their bodies, later. */
export function requireRole(request: FastifyRequest, caller: Caller): void {
  const { config, url = '' } = request.routeOptions;
  const isRead = request.method === 'GET' || request.method === 'HEAD';
  const needed = config.rule === undefined ? (isRead ? 'reader' : 'member') : POLICY[config.rule];
  if (config.actions === undefined && !isAllowed(caller, needed))
    throw refusal(config.rule ?? `${request.method} ${url.replace(/^\/v3(\/:projectId)?/, '')}`);
  // Whatever is made belongs to a project, except what only administrators make.
  const makes = request.method === 'POST' && config.actions === undefined && needed !== 'admin';
  if (makes && caller.projectId === NO_PROJECT)
    throw forbidden('The token is for the whole system; this needs one for a project.');
}
