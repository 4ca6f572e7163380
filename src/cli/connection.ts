/**
 * Which daemon a client command talks to, and with which token: flags first, then QUARRY_*, then the standard OS_*
 * variables, with which a token and the daemon's address come from an Identity service. It sends no request to a daemon.
 */
import { readFileSync } from 'node:fs';
import { Failure } from '../base/errors.ts';
import { type Credentials, IdentityClient, type Named, type Scope } from '../identity/client.ts';
import { endpointOf } from '../identity/token.ts';

export const DEFAULT_URL = 'http://127.0.0.1:8776';
/** Catalogs have the one or the other. */
const SERVICE_TYPES = ['block-storage', 'volumev3', 'volume', 'block-store'];

export type Connection = {
  readonly url: string;
  readonly token: string | null;
  /** Certificates to trust instead of the system's; PEM. */
  readonly certificates: string | null;
};

type Flags = {
  readonly url?: string | undefined;
  readonly token?: string | undefined;
  readonly cacert?: string | undefined;
};
type Environment = Readonly<Record<string, string | undefined>>;

export async function connect(flags: Flags, environment: Environment): Promise<Connection> {
  const env = new Variables(environment);
  const url = flags.url || env.text('QUARRY_URL');
  const token = flags.token || env.text('QUARRY_TOKEN');
  const certificates = trustedCertificates(flags, environment);
  const authUrl = env.text('OS_AUTH_URL');
  if (token !== null || authUrl === null || env.text('OS_AUTH_TYPE') === 'none')
    return { url: url ?? DEFAULT_URL, token, certificates };
  const client = new IdentityClient({ url: authUrl, certificates });
  try {
    const issued = await client.authenticate(credentialsOf(env));
    return { url: url ?? catalogUrl(issued.info.catalog, env, client.url), token: issued.token, certificates };
  } finally {
    await client.close();
  }
}

function catalogUrl(catalog: Parameters<typeof endpointOf>[0], env: Variables, identity: string): string {
  const region = env.text('OS_REGION_NAME');
  const face = (env.text('OS_INTERFACE') ?? env.text('OS_ENDPOINT_TYPE') ?? 'public').replace(/URL$/, '');
  const url = endpointOf(catalog, { types: SERVICE_TYPES, interface: face, region });
  if (url !== null) return url;
  const where = region === null ? '' : ` in region ${region}`;
  const reason =
    `the catalog of ${identity} has no ${face} block-storage service${where}. ` +
    'Name the daemon with --url, or another region or interface with OS_REGION_NAME or OS_INTERFACE.';
  throw new Failure('bad_request', { reason: reason.charAt(0).toUpperCase() + reason.slice(1) });
}

function credentialsOf(env: Variables): Credentials {
  const type = env.text('OS_AUTH_TYPE')?.replace(/^v3/, '') ?? null;
  switch (type ?? guessedType(env)) {
    case 'password':
      return {
        kind: 'password',
        user: userOf(env),
        password: env.needed('OS_PASSWORD'),
        scope: scopeOf(env),
      };
    case 'token':
      return { kind: 'token', token: env.needed('OS_TOKEN'), scope: scopeOf(env) };
    case 'applicationcredential': {
      const id = env.text('OS_APPLICATION_CREDENTIAL_ID');
      const secret = env.needed('OS_APPLICATION_CREDENTIAL_SECRET');
      if (id !== null) return { kind: 'application-credential', credential: { id }, secret };
      const name = env.needed('OS_APPLICATION_CREDENTIAL_NAME');
      return { kind: 'application-credential', credential: { name, user: userOf(env) }, secret };
    }
    default:
      throw new Failure('bad_request', {
        reason: `OS_AUTH_TYPE is '${type}', but must be password, token, v3applicationcredential or none.`,
      });
  }
}

function guessedType(env: Variables): string {
  if (env.text('OS_APPLICATION_CREDENTIAL_SECRET') !== null) return 'applicationcredential';
  return env.text('OS_TOKEN') === null ? 'password' : 'token';
}

function userOf(env: Variables): Named {
  const id = env.text('OS_USER_ID');
  if (id !== null) return { id };
  return { name: env.needed('OS_USERNAME'), domain: domainOf(env, 'OS_USER_DOMAIN') };
}

function domainOf(env: Variables, prefix: 'OS_USER_DOMAIN' | 'OS_PROJECT_DOMAIN'): { id: string } | { name: string } {
  const id = env.text(`${prefix}_ID`);
  const name = env.text(`${prefix}_NAME`);
  if (id !== null) return { id };
  return name === null ? { id: env.text('OS_DEFAULT_DOMAIN') ?? 'default' } : { name };
}

function scopeOf(env: Variables): Scope {
  const id = env.text('OS_PROJECT_ID') ?? env.text('OS_TENANT_ID');
  if (id !== null) return { kind: 'project', project: { id } };
  const name = env.text('OS_PROJECT_NAME') ?? env.text('OS_TENANT_NAME');
  if (name !== null) return { kind: 'project', project: { name, domain: domainOf(env, 'OS_PROJECT_DOMAIN') } };
  if (env.text('OS_SYSTEM_SCOPE') === 'all') return { kind: 'system' };
  return { kind: 'default' };
}

/** Of the flag or, without one, of OS_CACERT. */
export function trustedCertificates(flags: Pick<Flags, 'cacert'>, environment: Environment): string | null {
  const path = flags.cacert || environment['OS_CACERT'];
  if (path === undefined || path === '') return null;
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new Failure('bad_request', {
      reason: `The authority ${path} (--cacert, OS_CACERT) cannot be read: ${(error as Error).message}`,
    });
  }
}

/** An empty variable is none, as for every OpenStack client. */
class Variables {
  readonly #environment: Environment;

  constructor(environment: Environment) {
    this.#environment = environment;
  }

  text(name: string): string | null {
    return this.#environment[name] || null;
  }

  needed(name: string): string {
    const text = this.text(name);
    if (text === null) throw new Failure('bad_request', { reason: `OS_AUTH_URL is set, but ${name} is not.` });
    return text;
  }
}
