/**
 * Where backups go and under which key, from flags and the configuration file. Secrets are never in a message.
 */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { loadZstd } from '../backup/zstd.ts';
import { Failure } from '../base/errors.ts';
import { COMPRESSIONS, type Compression } from '../format/backup-pack.ts';
import type { S3Options } from '../objects/s3.ts';

export type BackupTarget =
  | { readonly kind: 'folder'; readonly path: string }
  | { readonly kind: 's3'; readonly options: S3Options }
  | { readonly kind: 'none' };

type Plain = Readonly<Record<string, unknown>>;

function refuse(reason: string): Failure {
  return new Failure('bad_request', { reason });
}

/** Keys of the table `s3`, which no flag has: keys on a command line are seen by everybody. */
const S3_KEYS = {
  region: 'text',
  path_style: 'truth',
  ca_file: 'text',
  checksums: 'text',
  access_key_id: 'text',
  secret_access_key: 'text',
} as const;

export function backupTargetOf(url: string, s3: { endpoint: string | null; table: Plain }): BackupTarget {
  if (url === 'none') return { kind: 'none' };
  if (url.startsWith('file:') && url.length > 'file:'.length)
    return { kind: 'folder', path: resolve(url.slice('file:'.length).replace(/^\/\/(?=\/)/, '')) };
  const match = /^s3:\/\/([a-z0-9][a-z0-9.-]{1,62})(?:\/(.*))?$/.exec(url);
  if (match === null) throw refuse(`--backups is '${url}', but must be file:DIR, s3://bucket/prefix or none.`);
  const [, bucket = '', path = ''] = match;
  const prefix = path.replace(/\/+$/, '');
  if (prefix !== '' && !/^[A-Za-z0-9_-][A-Za-z0-9._-]*(\/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$/.test(prefix))
    throw refuse(`--backups is '${url}': the prefix may have letters, digits, '-', '_', '.' and single slashes.`);
  return { kind: 's3', options: s3OptionsOf({ bucket, prefix }, s3) };
}

function s3OptionsOf(
  place: { bucket: string; prefix: string },
  { endpoint, table }: { endpoint: string | null; table: Plain },
): S3Options {
  for (const [key, value] of Object.entries(table)) {
    const shape = Object.hasOwn(S3_KEYS, key) ? S3_KEYS[key as keyof typeof S3_KEYS] : undefined;
    if (shape === undefined) throw refuse(`unknown key 's3.${key}'. Known: ${Object.keys(S3_KEYS).join(', ')}.`);
    // The value may be a secret.
    if (typeof value !== (shape === 'text' ? 'string' : 'boolean'))
      throw refuse(`s3.${key} must be ${shape === 'text' ? 'a text' : 'true or false'}.`);
  }
  const text = (key: keyof typeof S3_KEYS): string | null => (table[key] as string | undefined) ?? null;
  const checksums = text('checksums') ?? 'supported';
  if (checksums !== 'supported' && checksums !== 'required-only')
    throw refuse(`s3.checksums is '${checksums}', but must be supported or required-only.`);
  if (endpoint !== null && !/^https?:$/.test(URL.canParse(endpoint) ? new URL(endpoint).protocol : ''))
    throw refuse(`--s3-endpoint is '${endpoint}', but must be an http or https URL.`);
  const [accessKeyId, secretAccessKey] = [text('access_key_id'), text('secret_access_key')];
  if ((accessKeyId === null) !== (secretAccessKey === null))
    throw refuse('s3.access_key_id and s3.secret_access_key belong together: give both or none.');
  return {
    ...place,
    endpoint,
    region: text('region') ?? process.env['AWS_REGION'] ?? process.env['AWS_DEFAULT_REGION'] ?? 'us-east-1',
    pathStyle: (table['path_style'] as boolean | undefined) ?? endpoint !== null,
    caFile: text('ca_file'),
    checksums,
    credentials: accessKeyId === null || secretAccessKey === null ? null : { accessKeyId, secretAccessKey },
  };
}

/** 64 hexadecimal digits in a file of their own, which backups of the configuration need not contain. */
export function backupKeyOf(path: string | undefined): Buffer | null {
  if (path === undefined) return null;
  let content: string;
  try {
    content = readFileSync(path, 'utf8').trim();
  } catch (error) {
    throw refuse(`The backup key ${path} cannot be read: ${(error as Error).message}`);
  }
  if (!/^[0-9a-fA-F]{64}$/.test(content))
    throw refuse(`${path} must hold 64 hexadecimal digits: openssl rand -hex 32.`);
  return Buffer.from(content, 'hex');
}

export function previousKeysOf(current: string | undefined, paths: readonly string[]): Buffer[] {
  if (current === undefined && paths.length > 0)
    throw refuse('backup_previous_key_files are the keys before backup_key_file: give that one too.');
  return paths.flatMap((path) => backupKeyOf(path) ?? []);
}

export function compressionOf(word: string): Compression {
  const found = COMPRESSIONS.find((compression) => compression === word);
  if (found === undefined) throw refuse(`backup_compression is '${word}', but must be ${COMPRESSIONS.join(' or ')}.`);
  // Better than at the first backup.
  if (found === 'zstd') loadZstd();
  return found;
}

/** Slower, and a pack would not be through before its backup is taken for dead. */
const BYTES_PER_SECOND_MIN = 65_536;

export function backupRateOf(rate: number | undefined): number | null {
  if (rate === undefined) return null;
  if (Number.isSafeInteger(rate) && rate >= BYTES_PER_SECOND_MIN) return rate;
  throw refuse(`backup_bytes_per_second is ${rate}, but must be a whole number of ${BYTES_PER_SECOND_MIN} or more.`);
}

const RESTORE_WAIT_SECONDS = { standard: 30, max: 86_400 };

/** In milliseconds. */
export function restoreWaitOf(seconds: number | undefined): number {
  const { standard, max } = RESTORE_WAIT_SECONDS;
  if (seconds === undefined) return standard * 1000;
  if (seconds >= 0 && seconds <= max) return seconds * 1000;
  throw refuse(`restore_wait_seconds is ${seconds}, but must be a number from 0 to ${max}.`);
}
