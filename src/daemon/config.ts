/**
 * From flags and a configuration file to settings that are complete and checked. Flags win over the file, the file over
 * the defaults. What is not built yet is refused by name here, so that nothing behind it has to know.
 */
import { readFileSync } from 'node:fs';
import { isIPv6 } from 'node:net';
import { hostname } from 'node:os';
import { resolve } from 'node:path';
import { parse as parseToml, TomlError } from 'smol-toml';
import type { RateLimits } from '../api/rate-limits.ts';
import { BODY_BYTES_MAX } from '../api/server.ts';
import { Failure } from '../base/errors.ts';
import { isLogLevel, LOG_LEVELS, type LogFormat, type LogLevel } from '../base/log.ts';
import { QUOTA_RESOURCES, type QuotaDefaults } from '../control/control.ts';
import { NO_LIMITS, UNLIMITED, USUAL_LIMITS } from '../control/quotas.ts';
import type { PoolSettings } from '../engine/engine.ts';
import type { Compression } from '../format/backup-pack.ts';
import type { ConnectionLimits, TlsOptions } from '../native/plane.ts';
import { type Address, isLoopback, parseAddress, splitAddresses } from './address.ts';
import type { ApiTlsFiles } from './api-tls.ts';
import { type Access, accessOf, rateLimitsOf } from './config-access.ts';
import {
  type BackupTarget,
  backupKeyOf,
  backupRateOf,
  backupTargetOf,
  compressionOf,
  previousKeysOf,
  restoreWaitOf,
} from './config-backups.ts';
import { poolOf } from './config-pool.ts';

/** As the command line gives them; whatever is absent comes from the file or is the default. */
export type ServeFlags = {
  readonly data?: string | undefined;
  readonly config?: string | undefined;
  readonly api?: string | readonly string[] | undefined;
  readonly apiTlsCert?: string | undefined;
  readonly apiTlsKey?: string | undefined;
  readonly nbd?: string | readonly string[] | undefined;
  readonly nbdTls?: string | undefined;
  readonly nbdTlsCert?: string | undefined;
  readonly nbdTlsKey?: string | undefined;
  readonly nbdTlsClientCa?: string | undefined;
  readonly auth?: string | undefined;
  readonly insecure?: boolean | undefined;
  readonly catalog?: string | undefined;
  readonly backups?: string | undefined;
  readonly s3Endpoint?: string | undefined;
  readonly logLevel?: string | undefined;
  readonly logFormat?: string | undefined;
};

export type Config = {
  readonly dataDir: string;
  readonly api: readonly Address[];
  /** For its addresses on TCP; null: they speak plain HTTP. */
  readonly apiTls: ApiTlsFiles | null;
  readonly nbd: readonly string[];
  readonly nbdTls: TlsOptions | null;
  readonly access: Access;
  readonly rateLimits: RateLimits;
  readonly bodyBytesMax: number;
  readonly openMetrics: boolean;
  readonly nbdLimits: ConnectionLimits;
  readonly catalogPath: string;
  readonly logLevel: LogLevel;
  readonly logFormat: LogFormat;
  readonly publicEndpoint: string | null;
  readonly availabilityZone: string;
  readonly host: string;
  /** How clients reach the NBD listeners on TCP, when that is not the address they listen on. */
  readonly nbdPublicHost: string | null;
  readonly requireServiceToken: boolean;
  readonly quotaDefaults: QuotaDefaults;
  readonly pool: PoolSettings;
  readonly backups: BackupTarget;
  /** The key that backups are encrypted under; null: they are not. */
  readonly backupKey: Buffer | null;
  /** Those before it, which still open what they have wrapped. */
  readonly previousBackupKeys: readonly Buffer[];
  readonly backupCompression: Compression;
  /** At which rate backups may use their place; null: as fast as it goes. */
  readonly backupBytesPerSecond: number | null;
  /** How long clients of a volume that is being restored wait for what cannot be had. */
  readonly restoreWaitMs: number;
};

type Plain = Readonly<Record<string, unknown>>;

/** Keys of the file, each with the shape of its value. A flag's key is its name with `_` for `-`. */
const KEYS = {
  data: 'text',
  api: 'texts',
  api_tls_cert: 'text',
  api_tls_key: 'text',
  nbd: 'texts',
  nbd_connections_max: 'count',
  nbd_export_connections_max: 'count',
  nbd_tls: 'text',
  nbd_tls_cert: 'text',
  nbd_tls_key: 'text',
  nbd_tls_client_ca: 'text',
  auth: 'text',
  insecure: 'truth',
  catalog: 'text',
  backups: 'text',
  s3_endpoint: 'text',
  s3: 'table',
  backup_key_file: 'text',
  backup_previous_key_files: 'texts',
  backup_compression: 'text',
  log_level: 'text',
  log_format: 'text',
  public_endpoint: 'text',
  availability_zone: 'text',
  host: 'text',
  nbd_public_host: 'text',
  require_service_token: 'truth',
  quota: 'table',
  pool: 'table',
  tokens: 'tables',
  keystone: 'table',
  rate_limit: 'table',
  body_bytes_max: 'number',
  backup_bytes_per_second: 'number',
  restore_wait_seconds: 'number',
  open_metrics: 'truth',
} as const;

/** Their values are not repeated in messages. */
const SECRET: ReadonlySet<string> = new Set(['tokens', 'keystone']);

/** One volume with all its metadata fits into the smallest. */
const BODY_BYTES_LIMITS = { min: 65_536, max: 16 * 1024 * 1024 };
/** Of connections: more than any process may have open. */
const COUNT_MAX = 1_000_000;

export function readConfig(flags: ServeFlags, options: { isTerminal: boolean }): Config {
  const file = flags.config === undefined ? {} : readFile(flags.config);
  const text = (key: keyof typeof KEYS, flag: string | undefined): string | undefined =>
    flag ?? (file[key] as string | undefined);
  const texts = (key: 'api' | 'nbd', flag: string | readonly string[] | undefined, fallback: string): string[] =>
    splitAddresses([flag ?? (file[key] as string | string[] | undefined) ?? fallback].flat());

  const count = (key: 'nbd_connections_max' | 'nbd_export_connections_max', fallback: number): number =>
    (file[key] as number | undefined) ?? fallback;

  const dataDir = resolve(text('data', flags.data) ?? './quarry-data');
  const insecure = flags.insecure ?? file['insecure'] === true;
  const access = accessOf(text('auth', flags.auth) ?? 'none', file);
  const api = texts('api', flags.api, '127.0.0.1:8776').map((address) => parseAddress('api', address));
  const nbd = texts('nbd', flags.nbd, `unix:${dataDir}/nbd.sock`).map((address) => parseAddress('nbd', address));
  const nbdTls = tlsOf({
    mode: text('nbd_tls', flags.nbdTls) ?? 'off',
    certificate: text('nbd_tls_cert', flags.nbdTlsCert),
    key: text('nbd_tls_key', flags.nbdTlsKey),
    clientCa: text('nbd_tls_client_ca', flags.nbdTlsClientCa),
  });
  // Whoever shows a certificate of the authority has been let in by somebody.
  const isNbdGuarded = nbdTls?.isRequired === true && nbdTls.clientCa !== undefined;
  if (access.kind === 'none' && !insecure)
    for (const address of isNbdGuarded ? api : [...api, ...nbd]) requireLoopback(address);
  return {
    dataDir,
    api,
    apiTls: apiTlsOf(text('api_tls_cert', flags.apiTlsCert), text('api_tls_key', flags.apiTlsKey)),
    nbd: nbd.map((address) => address.text),
    nbdTls,
    access,
    rateLimits: rateLimitsOf(file['rate_limit']),
    bodyBytesMax: bodyBytesOf(file['body_bytes_max'] as number | undefined),
    openMetrics: file['open_metrics'] === true,
    nbdLimits: {
      connectionsMax: count('nbd_connections_max', 8192),
      exportConnectionsMax: count('nbd_export_connections_max', 1024),
    },
    catalogPath: catalogPathOf(text('catalog', flags.catalog) ?? `sqlite:${dataDir}/catalog.db`),
    logLevel: logLevelOf(text('log_level', flags.logLevel) ?? 'info'),
    logFormat: logFormatOf(text('log_format', flags.logFormat) ?? (options.isTerminal ? 'pretty' : 'json')),
    publicEndpoint: endpointOf(text('public_endpoint', undefined)),
    availabilityZone: text('availability_zone', undefined) ?? 'nova',
    host: text('host', undefined) ?? hostname(),
    nbdPublicHost: publicHostOf(text('nbd_public_host', undefined)),
    requireServiceToken: file['require_service_token'] === true,
    quotaDefaults: quotaOf((file['quota'] as Plain | undefined) ?? {}, access.kind),
    pool: poolOf((file['pool'] as Plain | undefined) ?? {}),
    backups: backupTargetOf(text('backups', flags.backups) ?? `file:${dataDir}/backups`, {
      endpoint: text('s3_endpoint', flags.s3Endpoint) ?? null,
      table: (file['s3'] as Plain | undefined) ?? {},
    }),
    restoreWaitMs: restoreWaitOf(file['restore_wait_seconds'] as number | undefined),
    backupBytesPerSecond: backupRateOf(file['backup_bytes_per_second'] as number | undefined),
    backupCompression: compressionOf(text('backup_compression', undefined) ?? 'lz4'),
    backupKey: backupKeyOf(text('backup_key_file', undefined)),
    previousBackupKeys: previousKeysOf(
      text('backup_key_file', undefined),
      [(file['backup_previous_key_files'] as string | string[] | undefined) ?? []].flat(),
    ),
  };
}

function refuse(reason: string): Failure {
  return new Failure('bad_request', { reason });
}

function readFile(path: string): Plain {
  let content: string;
  try {
    content = readFileSync(path, 'utf8');
  } catch (error) {
    throw refuse(`The configuration file ${path} cannot be read: ${(error as Error).message}`);
  }
  const plain = parsed(path, content);
  for (const [key, value] of Object.entries(plain)) {
    const shape = Object.hasOwn(KEYS, key) ? KEYS[key as keyof typeof KEYS] : undefined;
    if (shape === undefined) throw refuse(`${path}: unknown key '${key}'.${suggestion(key)}`);
    if (!hasShape(shape, value))
      throw refuse(
        `${path}: ${key} is ${SECRET.has(key) ? 'something else' : JSON.stringify(value)}, but must be ${WANTED[shape]}.`,
      );
  }
  return plain;
}

function parsed(path: string, content: string): Plain {
  try {
    const plain: unknown = path.endsWith('.json') ? JSON.parse(content) : parseToml(content);
    if (typeof plain === 'object' && plain !== null && !Array.isArray(plain)) return plain as Plain;
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof TomlError)) throw error;
    throw refuse(`${path} is not ${path.endsWith('.json') ? 'JSON' : 'TOML'}: ${error.message}`);
  }
  throw refuse(`${path} must hold a table of keys.`);
}

function suggestion(key: string): string {
  const likely = key.replaceAll('-', '_');
  if (Object.hasOwn(KEYS, likely)) return ` Did you mean '${likely}'?`;
  return ` Known keys: ${Object.keys(KEYS).join(', ')}.`;
}

const WANTED = {
  text: 'a text',
  texts: 'a text or a list of texts',
  truth: 'true or false',
  count: `a whole number from 1 to ${COUNT_MAX}`,
  table: 'a table',
  tables: 'a list of tables',
  number: 'a number',
} as const;

function hasShape(shape: keyof typeof WANTED, value: unknown): boolean {
  switch (shape) {
    case 'text':
      return typeof value === 'string';
    case 'texts':
      return [value].flat().every((item) => typeof item === 'string');
    case 'number':
      return typeof value === 'number';
    case 'tables':
      return Array.isArray(value);
    case 'count':
      return typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= COUNT_MAX;
    case 'truth':
      return typeof value === 'boolean';
    case 'table':
      return typeof value === 'object' && value !== null && !Array.isArray(value);
  }
}

function bodyBytesOf(bytes: number | undefined): number {
  if (bytes === undefined) return BODY_BYTES_MAX;
  const { min, max } = BODY_BYTES_LIMITS;
  if (Number.isSafeInteger(bytes) && bytes >= min && bytes <= max) return bytes;
  throw refuse(`body_bytes_max is ${bytes}, but must be a whole number from ${min} to ${max}.`);
}

/** Read when the daemon begins to listen, and again when it is asked to. */
function apiTlsOf(certificate: string | undefined, key: string | undefined): ApiTlsFiles | null {
  if (certificate === undefined && key === undefined) return null;
  if (certificate === undefined || key === undefined)
    throw refuse('--api-tls-cert and --api-tls-key need each other: a certificate and its key.');
  return { certificate: resolve(certificate), key: resolve(key) };
}

type TlsTexts = Readonly<Record<'mode' | 'certificate' | 'key' | 'clientCa', string | undefined>>;

/** The files are read, and refused if they are not what they should be, by the plane. */
function tlsOf({ mode, certificate, key, clientCa }: TlsTexts): TlsOptions | null {
  if (mode === 'off') {
    if (certificate ?? key ?? clientCa)
      throw refuse('--nbd-tls-cert, --nbd-tls-key and --nbd-tls-client-ca need --nbd-tls allow or require.');
    return null;
  }
  if (mode !== 'allow' && mode !== 'require')
    throw refuse(`--nbd-tls is '${mode}', but must be off, allow or require.`);
  if (certificate === undefined || key === undefined)
    throw refuse(`--nbd-tls ${mode} needs --nbd-tls-cert and --nbd-tls-key.`);
  const files = { certificate: resolve(certificate), key: resolve(key), isRequired: mode === 'require' };
  return clientCa === undefined ? files : { ...files, clientCa: resolve(clientCa) };
}

function requireLoopback(address: Address): void {
  if (isLoopback(address)) return;
  throw refuse(
    `--auth none lets everybody who reaches ${address.text} do everything. Listen on loopback or a unix socket, ` +
      'or say --insecure.',
  );
}

function catalogPathOf(url: string): string {
  if (url.startsWith('sqlite:')) return resolve(url.slice('sqlite:'.length));
  if (/^postgres(ql)?:/.test(url))
    throw new Failure('not_supported', {
      reason: `--catalog ${url.split(':')[0]}: is not built yet; use sqlite:PATH.`,
    });
  throw refuse(`--catalog is '${url}', but must be sqlite:PATH.`);
}

function logLevelOf(word: string): LogLevel {
  if (isLogLevel(word)) return word;
  throw refuse(`--log-level is '${word}', but must be one of ${LOG_LEVELS.join(', ')}.`);
}

function logFormatOf(word: string): LogFormat {
  if (word === 'json' || word === 'pretty') return word;
  throw refuse(`--log-format is '${word}', but must be json or pretty.`);
}

function endpointOf(url: string | undefined): string | null {
  if (url === undefined) return null;
  if (/^https?:$/.test(URL.canParse(url) ? new URL(url).protocol : '')) return url;
  throw refuse(`public_endpoint is '${url}', but must be an http or https URL.`);
}

function publicHostOf(host: string | undefined): string | null {
  if (host === undefined) return null;
  if (/^[A-Za-z0-9._-]{1,253}$/.test(host) || isIPv6(host)) return host;
  throw refuse(`nbd_public_host is '${host}', but must be a host name or an address without a port.`);
}

export function quotaOf(table: Plain, auth: string): QuotaDefaults {
  const limits: Record<string, number> = { ...(auth === 'none' ? NO_LIMITS : USUAL_LIMITS) };
  for (const [resource, limit] of Object.entries(table)) {
    if (!Object.hasOwn(limits, resource))
      throw refuse(`unknown key 'quota.${resource}'. Known: ${QUOTA_RESOURCES.join(', ')}.`);
    if (typeof limit !== 'number' || !Number.isSafeInteger(limit) || limit < UNLIMITED)
      throw refuse(`quota.${resource} is ${JSON.stringify(limit)}, but must be a whole number, -1 for no limit.`);
    limits[resource] = limit;
  }
  return limits as QuotaDefaults;
}
