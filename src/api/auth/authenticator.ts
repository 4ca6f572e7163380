/**
 * From a token to whom it stands for, and from that to the caller control knows. It knows the shape of an answer about a
 * token, not where the answer comes from: a list in the configuration or an identity service.
 */
import type { Caller, Role } from '../../control/policy.ts';
import { Fault, forbidden } from '../faults.ts';

/** Whom a valid token stands for. */
export type Identity = {
  readonly userId: string;
  /** Null: the token is for a domain, for the whole system or for nothing. */
  readonly projectId: string | null;
  readonly roles: readonly string[];
  /** For the whole installation: an administrator's token without a project. */
  readonly isSystem: boolean;
  /** Where an identity service names one project whose administrators administer everything: whether this is it. */
  readonly isAdminProject: boolean;
};

export interface Authenticator {
  /** What `WWW-Authenticate` tells one who came without a token. */
  readonly challenge: string;
  /**
   * Null: not valid, or no longer. Fails when that cannot be found out. A token that `mayBeExpired` was valid when a
   * service began long work for its bearer: expired it still counts, revoked it does not.
   */
  identify(token: string, options: { readonly mayBeExpired: boolean }): Promise<Identity | null>;
  close(): Promise<void>;
}

/** The role of a service that may say so in `X-Service-Token`. */
export const SERVICE_ROLE = 'service';
/** Longest token that is looked at; what is longer or has other characters is not valid. */
const TOKEN_CHARS_MAX = 8192;
const TOKEN = /^[\x21-\x7e]+$/;

/** By what a request is let in; `none` has no tokens to look at. */
export type Presented = { readonly token: string | null; readonly serviceToken: string | null };

export function unauthorized(): Fault {
  return new Fault(401, 'error', 'The request you have made requires authentication.');
}

/** Refuses with 401 without a valid token, and with 403 where a valid one gives nothing to do here. */
export async function callerOf(authenticator: Authenticator, presented: Presented): Promise<Caller> {
  const { token, serviceToken } = presented;
  const service = await identified(authenticator, serviceToken, { mayBeExpired: false });
  if (serviceToken !== null && service === null) throw unauthorized();
  const isService = service?.roles.includes(SERVICE_ROLE) === true;
  const identity = await identified(authenticator, token, { mayBeExpired: isService });
  if (identity === null) throw unauthorized();
  return asCaller(identity, { isService });
}

async function identified(
  authenticator: Authenticator,
  token: string | null,
  options: { mayBeExpired: boolean },
): Promise<Identity | null> {
  if (token === null || token.length > TOKEN_CHARS_MAX || !TOKEN.test(token)) return null;
  return authenticator.identify(token, options);
}

function asCaller(identity: Identity, { isService }: { isService: boolean }): Caller {
  const { projectId, userId } = identity;
  const role = roleOf(identity);
  if (role === null)
    throw forbidden(`None of the token's roles (${identity.roles.join(', ') || 'it has none'}) may do anything here.`);
  const isAdmin = role === 'admin';
  if (projectId === null && !(isAdmin && identity.isSystem))
    throw forbidden('The token is not for a project: ask the identity service for one that is.');
  return { projectId: projectId ?? NO_PROJECT, userId, role, isAdmin, isService };
}

/** The project of an administrator whose token is for the whole system: no object is in it. */
export const NO_PROJECT = '';

function roleOf({ roles, isAdminProject }: Identity): Role | null {
  const names = new Set(roles.map((name) => name.toLowerCase()));
  if (names.has('admin') && isAdminProject) return 'admin';
  // An administrator of another project than the one that counts is an ordinary member here.
  if (names.has('admin') || names.has('manager') || names.has('member')) return 'member';
  return names.has('reader') ? 'reader' : null;
}
