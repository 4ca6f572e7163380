/**
 * The part of the configuration that says who may ask and how often: tokens, the identity service, rate limits. Every
 * value is checked here, and a message never repeats a secret.
 */
import { readFileSync } from 'node:fs';
import { CACHE_SECONDS_MAX } from '../api/auth/keystone.ts';
import { digestOf, type StaticToken } from '../api/auth/static-tokens.ts';
import type { RateLimits } from '../api/rate-limits.ts';
import { Failure } from '../base/errors.ts';
import type { Credentials, Named, Scope } from '../identity/client.ts';

type Plain = Readonly<Record<string, unknown>>;

export type KeystoneConfig = {
  readonly url: string;
  readonly publicUrl: string;
  readonly credentials: Credentials;
  readonly certificates: string | null;
  readonly endpoint: { readonly interface: string; readonly region: string | null } | null;
  readonly cacheSeconds: number;
};

export type Access =
  | { readonly kind: 'none' }
  | { readonly kind: 'token'; readonly tokens: readonly StaticToken[] }
  | { readonly kind: 'keystone'; readonly keystone: KeystoneConfig };

const ROLES: readonly string[] = ['admin', 'manager', 'member', 'reader', 'service'];
/** Shorter ones can be guessed. */
const TOKEN_CHARS_MIN = 16;
const DEFAULT_DOMAIN = 'Default';
const DIGEST = /^[0-9a-fA-F]{64}$/;

export function accessOf(kind: string, file: Plain): Access {
  const [tokens, keystone] = [file['tokens'], file['keystone']];
  if (kind !== 'token' && tokens !== undefined)
    throw refuse(`[[tokens]] has a meaning only with --auth token, not with --auth ${kind}.`);
  if (kind !== 'keystone' && keystone !== undefined)
    throw refuse(`[keystone] has a meaning only with --auth keystone, not with --auth ${kind}.`);
  switch (kind) {
    case 'none':
      return { kind };
    case 'token':
      return { kind, tokens: tokensOf(tokens) };
    case 'keystone':
      return { kind, keystone: keystoneOf(keystone) };
    default:
      throw refuse(`--auth is '${kind}', but must be none, token or keystone.`);
  }
}

const TOKEN_KEYS = ['token', 'token_sha256', 'project_id', 'project_name', 'user_id', 'roles'];

function tokensOf(value: unknown): StaticToken[] {
  if (value === undefined || (Array.isArray(value) && value.length === 0))
    throw refuse('--auth token needs at least one [[tokens]] table in the configuration file.');
  if (!Array.isArray(value)) throw refuse('tokens must be a list of tables: [[tokens]].');
  const tokens = value.map((item, index) => tokenOf(`tokens[${index}]`, item));
  for (const [index, { digest }] of tokens.entries()) {
    const first = tokens.findIndex((other) => other.digest.equals(digest));
    if (first !== index) throw refuse(`tokens[${index}] is the same token as tokens[${first}].`);
  }
  return tokens;
}

function tokenOf(where: string, value: unknown): StaticToken {
  const table = new Table(where, value, TOKEN_KEYS);
  // For people who read the file.
  table.text('project_name');
  const [plain, digest] = [table.text('token'), table.text('token_sha256')];
  if ((plain === null) === (digest === null))
    throw refuse(`${where} needs either token or token_sha256, and not both.`);
  if (plain !== null && (plain.length < TOKEN_CHARS_MIN || !/^[\x21-\x7e]+$/.test(plain)))
    throw refuse(
      `${where}.token must have at least ${TOKEN_CHARS_MIN} characters, all printable ASCII without spaces.`,
    );
  if (digest !== null && !DIGEST.test(digest))
    throw refuse(`${where}.token_sha256 must be 64 hexadecimal digits: printf %s TOKEN | sha256sum`);
  return {
    digest: plain === null ? Buffer.from(digest ?? '', 'hex') : digestOf(plain),
    projectId: identifier(where, 'project_id', table.needed('project_id')),
    userId: identifier(where, 'user_id', table.needed('user_id')),
    roles: rolesOf(where, table.value('roles')),
  };
}

/** They stand in URLs and in the catalog. */
function identifier(where: string, key: string, text: string): string {
  if (/^[A-Za-z0-9._-]{1,255}$/.test(text)) return text;
  throw refuse(`${where}.${key} is '${text}', but must be 1 to 255 letters, digits, '.', '_' or '-'.`);
}

function rolesOf(where: string, value: unknown): string[] {
  const roles = Array.isArray(value) ? value : [];
  if (roles.length === 0 || !roles.every((role) => typeof role === 'string' && ROLES.includes(role)))
    throw refuse(`${where}.roles is ${JSON.stringify(value)}, but must be a list of some of ${ROLES.join(', ')}.`);
  return roles;
}

const KEYSTONE_KEYS = [
  'auth_url',
  'www_authenticate_uri',
  'username',
  'user_id',
  'password',
  'user_domain_name',
  'user_domain_id',
  'project_name',
  'project_id',
  'project_domain_name',
  'project_domain_id',
  'application_credential_id',
  'application_credential_name',
  'application_credential_secret',
  'interface',
  'region_name',
  'cafile',
  'token_cache_seconds',
];

function keystoneOf(value: unknown): KeystoneConfig {
  if (value === undefined) throw refuse('--auth keystone needs a [keystone] table in the configuration file.');
  const table = new Table('keystone', value, KEYSTONE_KEYS);
  const url = table.url('auth_url');
  if (url === null) throw refuse('keystone.auth_url is missing.');
  const region = table.text('region_name');
  const face = table.text('interface') ?? (region === null ? null : 'internal');
  return {
    url,
    publicUrl: table.url('www_authenticate_uri') ?? url,
    credentials: credentialsOf(table),
    certificates: certificatesOf(table.text('cafile')),
    endpoint: face === null ? null : { interface: face, region },
    cacheSeconds: table.whole('token_cache_seconds', { min: 0, max: CACHE_SECONDS_MAX }) ?? CACHE_SECONDS_MAX,
  };
}

function credentialsOf(table: Table): Credentials {
  const [id, name] = [table.text('application_credential_id'), table.text('application_credential_name')];
  if (id !== null || name !== null) {
    const secret = table.needed('application_credential_secret');
    const credential = id !== null ? { id } : { name: name ?? '', user: named(table, 'user') };
    return { kind: 'application-credential', credential, secret };
  }
  const scope: Scope = { kind: 'project', project: named(table, 'project') };
  return { kind: 'password', user: named(table, 'user'), password: table.needed('password'), scope };
}

function named(table: Table, what: 'user' | 'project'): Named {
  const id = table.text(`${what}_id`);
  if (id !== null) return { id };
  const name = table.needed(what === 'user' ? 'username' : 'project_name');
  const domainId = table.text(`${what}_domain_id`);
  const domain = domainId === null ? { name: table.text(`${what}_domain_name`) ?? DEFAULT_DOMAIN } : { id: domainId };
  return { name, domain };
}

function certificatesOf(path: string | null): string | null {
  if (path === null) return null;
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw refuse(`keystone.cafile ${path} cannot be read: ${(error as Error).message}`);
  }
}

export function rateLimitsOf(value: unknown): RateLimits {
  const table = new Table('rate_limit', value ?? {}, ['address_per_minute', 'project_per_minute']);
  const limit = (key: string): number | null => table.whole(key, { min: 1, max: 1_000_000 });
  return { addressPerMinute: limit('address_per_minute'), projectPerMinute: limit('project_per_minute') };
}

/** A table of the file whose keys are all known. */
class Table {
  readonly #where: string;
  readonly #plain: Plain;

  constructor(where: string, value: unknown, keys: readonly string[]) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw refuse(`${where} must be a table.`);
    this.#where = where;
    this.#plain = value as Plain;
    for (const key of Object.keys(this.#plain))
      if (!keys.includes(key)) throw refuse(`unknown key '${where}.${key}'. Known: ${keys.join(', ')}.`);
  }

  value(key: string): unknown {
    return Object.hasOwn(this.#plain, key) ? this.#plain[key] : undefined;
  }

  text(key: string): string | null {
    const value = this.value(key);
    if (value === undefined) return null;
    // Not shown: it may be a secret.
    if (typeof value !== 'string' || value === '') throw refuse(`${this.#where}.${key} must be a text.`);
    return value;
  }

  needed(key: string): string {
    const text = this.text(key);
    if (text === null) throw refuse(`${this.#where}.${key} is missing.`);
    return text;
  }

  url(key: string): string | null {
    const text = this.text(key);
    if (text === null || /^https?:$/.test(URL.canParse(text) ? new URL(text).protocol : '')) return text;
    throw refuse(`${this.#where}.${key} is '${text}', but must be an http or https URL.`);
  }

  whole(key: string, { min, max }: { min: number; max: number }): number | null {
    const value = this.value(key);
    if (value === undefined) return null;
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= min && value <= max) return value;
    throw refuse(
      `${this.#where}.${key} is ${JSON.stringify(value)}, but must be a whole number from ${min} to ${max}.`,
    );
  }
}

function refuse(reason: string): Failure {
  return new Failure('bad_request', { reason });
}
