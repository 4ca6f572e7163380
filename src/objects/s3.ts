/**
 * Objects in a bucket of an S3 server. Requests are repeated by the SDK; a body that breaks off or fails its checksum
 * half way is repeated here, because the SDK does not. The server's word on integrity is never taken: uploads carry
 * an MD5 that every known server checks, and what counts are the repository's own hashes.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import {
  DeleteObjectsCommand,
  GetObjectCommand,
  ListObjectsV2Command,
  type ListObjectsV2CommandOutput,
  NoSuchKey,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import { Failure } from '../base/errors.ts';
import {
  type ObjectInfo,
  type ObjectRange,
  type ObjectStore,
  type PutOptions,
  requireKey,
  unavailable,
} from './objects.ts';

const REQUEST_TRIES = 5;
const BODY_TRIES = 4;
const CONNECT_TIMEOUT_MS = 10_000;
/** Until an answer begins: 16 MiB up at 300 KB/s. */
const REQUEST_TIMEOUT_MS = 60_000;
/** Without a byte on the connection, in the middle of a body too: else an answer that stops coming holds its work for ever. */
const IDLE_TIMEOUT_MS = 60_000;
const SOCKETS_MAX = 16;
const DELETES_PER_REQUEST = 1000;

export type S3Options = {
  readonly bucket: string;
  /** Before every key; no slash at either end, may be empty. */
  readonly prefix: string;
  /** Null: Amazon's own. */
  readonly endpoint: string | null;
  readonly region: string;
  /** Bucket in the path and not in the host name; what servers other than Amazon's want. */
  readonly pathStyle: boolean;
  /** Certificates to trust beside the system's, as a PEM file. */
  readonly caFile: string | null;
  /** `required-only` for servers that stumble over the newer checksum headers. */
  readonly checksums: 'supported' | 'required-only';
  /** Null: the usual environment, files and roles. */
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string } | null;
  readonly requestTimeoutMs?: number;
  readonly idleTimeoutMs?: number;
};

export class S3Objects implements ObjectStore {
  readonly place: string;
  readonly #client: S3Client;
  readonly #options: S3Options;

  constructor(options: S3Options) {
    this.#options = options;
    this.place = `s3://${options.bucket}${options.prefix === '' ? '' : `/${options.prefix}`}`;
    const agent = { keepAlive: true, maxSockets: SOCKETS_MAX };
    const ca = options.caFile === null ? {} : { ca: readCertificates(options.caFile) };
    const when = options.checksums === 'supported' ? 'WHEN_SUPPORTED' : 'WHEN_REQUIRED';
    this.#client = new S3Client({
      region: options.region,
      forcePathStyle: options.pathStyle,
      maxAttempts: REQUEST_TRIES,
      requestChecksumCalculation: when,
      responseChecksumValidation: when,
      requestHandler: {
        connectionTimeout: CONNECT_TIMEOUT_MS,
        requestTimeout: options.requestTimeoutMs ?? REQUEST_TIMEOUT_MS,
        socketTimeout: options.idleTimeoutMs ?? IDLE_TIMEOUT_MS,
        // Without it the SDK only warns and waits on.
        throwOnRequestTimeout: true,
        httpAgent: new HttpAgent(agent),
        httpsAgent: new HttpsAgent({ ...agent, ...ca }),
      },
      ...(options.endpoint !== null && { endpoint: options.endpoint }),
      ...(options.credentials !== null && { credentials: options.credentials }),
    });
  }

  async put(key: string, body: Buffer, { ifAbsent }: PutOptions): Promise<'stored' | 'exists'> {
    const command = new PutObjectCommand({
      ...this.#at(key),
      Body: body,
      ContentMD5: createHash('md5').update(body).digest('base64'),
      ...(ifAbsent && { IfNoneMatch: '*' }),
    });
    try {
      await this.#client.send(command);
      return 'stored';
    } catch (error) {
      if (!ifAbsent || statusOf(error) !== 412) throw this.#failed(error);
    }
    // A first try may have worked although its answer was lost; then what is there is ours.
    const there = await this.get(key, null);
    return there?.equals(body) ? 'stored' : 'exists';
  }

  async get(key: string, range: ObjectRange | null): Promise<Buffer | null> {
    const at = this.#at(key);
    if (range !== null && ('last' in range ? range.last : range.length) === 0) return Buffer.alloc(0);
    for (let attempt = 1; ; attempt += 1) {
      try {
        const answer = await this.#client.send(
          new GetObjectCommand({ ...at, ...(range !== null && { Range: rangeHeader(range) }) }),
        );
        if (answer.Body === undefined) return Buffer.alloc(0);
        const bytes = await answer.Body.transformToByteArray();
        if (answer.ContentLength !== undefined && bytes.length !== answer.ContentLength)
          throw new Error(`${bytes.length} bytes of ${answer.ContentLength} arrived`);
        return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
      } catch (error) {
        const status = statusOf(error);
        // Not any 404: a bucket that is missing, or keys the server does not know, must never look like a missing object.
        if (error instanceof NoSuchKey) return null;
        // A range that begins at or after the end: there is nothing.
        if (status === 416) return Buffer.alloc(0);
        if ((status !== null && status >= 400 && status < 500) || attempt === BODY_TRIES) throw this.#failed(error);
      }
    }
  }

  async *list(prefix: string): AsyncGenerator<ObjectInfo> {
    requireKey(prefix.replace(/\/$/, ''));
    for await (const page of this.#pages(prefix, null)) {
      for (const { Key, Size, LastModified } of page.Contents ?? []) {
        if (Key === undefined) continue;
        yield { key: Key.slice(this.#full('').length), sizeBytes: Size ?? 0, modifiedMs: LastModified?.getTime() ?? 0 };
      }
    }
  }

  async folders(prefix: string): Promise<string[]> {
    requireKey(prefix.replace(/\/$/, ''));
    const found: string[] = [];
    const start = this.#full(prefix).length;
    for await (const page of this.#pages(prefix, '/'))
      for (const { Prefix } of page.CommonPrefixes ?? []) if (Prefix !== undefined) found.push(Prefix.slice(start, -1));
    return found.sort();
  }

  async delete(keys: readonly string[]): Promise<void> {
    for (const key of keys) requireKey(key);
    for (let first = 0; first < keys.length; first += DELETES_PER_REQUEST) {
      const some = keys.slice(first, first + DELETES_PER_REQUEST);
      const Delete = { Objects: some.map((key) => ({ Key: this.#full(key) })), Quiet: true };
      let refused: { Key?: string | undefined; Message?: string | undefined; Code?: string | undefined } | undefined;
      try {
        const answer = await this.#client.send(new DeleteObjectsCommand({ Bucket: this.#options.bucket, Delete }));
        refused = answer.Errors?.find(({ Code }) => Code !== 'NoSuchKey');
      } catch (error) {
        throw this.#failed(error);
      }
      if (refused !== undefined)
        throw unavailable(this.place, new Error(`${refused.Key} was not deleted: ${refused.Message ?? refused.Code}`));
    }
  }

  close(): void {
    this.#client.destroy();
  }

  async *#pages(prefix: string, delimiter: string | null): AsyncGenerator<ListObjectsV2CommandOutput> {
    let token: string | undefined;
    do {
      const command = new ListObjectsV2Command({
        Bucket: this.#options.bucket,
        Prefix: this.#full(prefix),
        ...(delimiter !== null && { Delimiter: delimiter }),
        ...(token !== undefined && { ContinuationToken: token }),
      });
      const page = await this.#client.send(command).catch((error: unknown) => {
        throw this.#failed(error);
      });
      yield page;
      token = page.NextContinuationToken;
    } while (token !== undefined);
  }

  #full(key: string): string {
    return this.#options.prefix === '' ? key : `${this.#options.prefix}/${key}`;
  }

  #at(key: string): { Bucket: string; Key: string } {
    requireKey(key);
    return { Bucket: this.#options.bucket, Key: this.#full(key) };
  }

  #failed(error: unknown): Failure {
    return unavailable(this.place, error);
  }
}

function rangeHeader(range: ObjectRange): string {
  return 'last' in range ? `bytes=-${range.last}` : `bytes=${range.offset}-${range.offset + range.length - 1}`;
}

function statusOf(error: unknown): number | null {
  const metadata = (error as { $metadata?: { httpStatusCode?: number } } | null)?.$metadata;
  return metadata?.httpStatusCode ?? null;
}

function readCertificates(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new Failure('bad_request', {
      reason: `The certificates ${path} cannot be read: ${(error as Error).message}`,
    });
  }
}
