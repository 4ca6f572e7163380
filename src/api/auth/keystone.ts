/**
 * Asks an identity service about callers' tokens, with a token of our own that is renewed when it ends, and remembers the
 * answers for a while. Invariants: an answer is never used after the token it is about has expired (unless a service acts
 * for its bearer), nor for longer than the cache time (so a revoked token ends within it); a token is asked about once at
 * a time; tokens are kept as digests only. What a role permits is not known here.
 */
import { createHash } from 'node:crypto';
import { Failure } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import {
  type Credentials,
  type IdentityClient,
  type Issued,
  type Subject,
  versionedUrl,
} from '../../identity/client.ts';
import { endpointOf, type TokenInfo } from '../../identity/token.ts';
import type { Authenticator, Identity } from './authenticator.ts';

/** However long the configuration says: a revoked token must end some time. */
export const CACHE_SECONDS_MAX = 300;
/** A refusal is remembered only to blunt a client that repeats a bad token, and our own failure to log in likewise. */
const REFUSAL_MS = 10_000;
const KNOWN_MAX = 10_000;
/** Apart from the valid ones: tokens that somebody makes up must not push those out. */
const REFUSED_MAX = 1_000;
/** Our own token is renewed this long before its end. */
const RENEW_MS = 60_000;

export type KeystoneOptions = {
  readonly client: IdentityClient;
  readonly credentials: Credentials;
  /** What clients are told to ask for tokens. */
  readonly publicUrl: string;
  /** Which of the identity service's addresses in the catalog is asked about tokens; null: the one we log in at. */
  readonly endpoint: { readonly interface: string; readonly region: string | null } | null;
  readonly cacheSeconds: number;
  readonly log: Log;
  readonly now: () => number;
};

type Known = { readonly identity: Identity; readonly untilMs: number };

export class Keystone implements Authenticator {
  readonly challenge: string;
  readonly #options: KeystoneOptions;
  readonly #cacheMs: number;
  readonly #known = new Map<string, Known>();
  readonly #refused = new Map<string, number>();
  readonly #asking = new Map<string, Promise<Identity | null>>();
  #own: Promise<Issued> | null = null;
  #lockedUntilMs = 0;

  constructor(options: KeystoneOptions) {
    this.#options = options;
    this.#cacheMs = Math.min(options.cacheSeconds, CACHE_SECONDS_MAX) * 1000;
    this.challenge = `Keystone uri="${options.publicUrl}"`;
  }

  async identify(token: string, { mayBeExpired }: { mayBeExpired: boolean }): Promise<Identity | null> {
    // Two questions, two answers: what counts for a service does not count for the bearer alone.
    const digest = `${createHash('sha256').update(token).digest('base64')}${mayBeExpired ? ' or expired' : ''}`;
    const remembered = this.#remembered(digest);
    if (remembered !== undefined) return remembered;
    const under = this.#asking.get(digest);
    if (under !== undefined) return under;
    const asking = this.#ask({ token, mayBeExpired, digest }).finally(() => this.#asking.delete(digest));
    this.#asking.set(digest, asking);
    return asking;
  }

  async close(): Promise<void> {
    await this.#options.client.close();
  }

  #remembered(digest: string): Identity | null | undefined {
    const nowMs = this.#options.now();
    const known = this.#known.get(digest);
    if (known !== undefined && nowMs < known.untilMs) return known.identity;
    this.#known.delete(digest);
    if (nowMs < (this.#refused.get(digest) ?? 0)) return null;
    this.#refused.delete(digest);
    return undefined;
  }

  async #ask({ digest, ...subject }: Subject & { digest: string }): Promise<Identity | null> {
    const askedMs = this.#options.now();
    const info = await this.#validated(subject);
    const endsMs = subject.mayBeExpired ? Number.POSITIVE_INFINITY : (info?.expiresAtMs ?? 0);
    if (info === null || endsMs <= this.#options.now()) {
      remember(this.#refused, { key: digest, value: askedMs + Math.min(REFUSAL_MS, this.#cacheMs), max: REFUSED_MAX });
      return null;
    }
    const { userId, projectId, roles, isSystem, isAdminProject } = info;
    const identity = { userId, projectId, roles, isSystem, isAdminProject };
    // Counted from the question, not from the answer: a revocation in between must not add to the time.
    const untilMs = Math.min(askedMs + this.#cacheMs, endsMs);
    remember(this.#known, { key: digest, value: { identity, untilMs }, max: KNOWN_MAX });
    return identity;
  }

  async #validated(subject: Subject): Promise<TokenInfo | null> {
    const own = await this.#ownToken(null);
    try {
      return await this.#validate(subject, own);
    } catch (error) {
      if (!(error instanceof Failure && error.code === 'unauthorized')) throw error;
    }
    // Revoked, or the identity service has new keys: once more with a new one.
    const renewed = await this.#ownToken(own.token);
    try {
      return await this.#validate(subject, renewed);
    } catch (error) {
      if (!(error instanceof Failure && error.code === 'unauthorized')) throw error;
      throw this.#unusable(`it refuses the token that it has just given this daemon: ${error.message}`);
    }
  }

  async #validate(subject: Subject, own: Issued): Promise<TokenInfo | null> {
    const { client, endpoint } = this.#options;
    const found = endpoint === null ? client.url : endpointOf(own.info.catalog, { types: ['identity'], ...endpoint });
    if (found === null) {
      const where = `interface ${endpoint?.interface}${endpoint?.region == null ? '' : `, region ${endpoint.region}`}`;
      throw this.#unusable(`its catalog has no identity service of ${where}`);
    }
    return client.validate(subject, { token: own.token, url: versionedUrl(found) });
  }

  /** The one in use, unless that is the `refused` one or about to end. Those who need a new one share it. */
  async #ownToken(refused: string | null): Promise<Issued> {
    const before = this.#own;
    if (before !== null) {
      const issued = await before;
      if (issued.token !== refused && this.#options.now() < issued.info.expiresAtMs - RENEW_MS) return issued;
    }
    // Somebody else may have renewed it while we looked at the old one.
    if (this.#own === before || this.#own === null) {
      const renewing = this.#logIn();
      this.#own = renewing;
      renewing.catch(() => {
        if (this.#own === renewing) this.#own = null;
      });
    }
    return this.#own;
  }

  async #logIn(): Promise<Issued> {
    const { client, credentials, now } = this.#options;
    // Identity services lock out who fails too often.
    if (now() < this.#lockedUntilMs) throw this.#unavailable();
    try {
      return await client.authenticate(credentials);
    } catch (error) {
      if (!(error instanceof Failure && error.code === 'unauthorized')) throw error;
      this.#lockedUntilMs = now() + REFUSAL_MS;
      throw this.#unusable(`${error.message} Check [keystone] in the configuration`);
    }
  }

  /** Callers learn that it is not their fault; the operator, in the log, what to do. */
  #unusable(reason: string): Failure {
    const { client, log } = this.#options;
    log.error({ identity: client.url, reason }, 'the identity service cannot be used');
    return this.#unavailable();
  }

  #unavailable(): Failure {
    const { url } = this.#options.client;
    return new Failure('identity_unavailable', { url, reason: 'this daemon cannot log in there' });
  }
}

/** The oldest goes where there are too many. */
function remember<Value>(map: Map<string, Value>, entry: { key: string; value: Value; max: number }): void {
  map.delete(entry.key);
  if (map.size >= entry.max) {
    const [oldest] = map.keys();
    if (oldest !== undefined) map.delete(oldest);
  }
  map.set(entry.key, entry.value);
}
