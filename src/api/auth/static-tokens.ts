/**
 * Tokens that the operator wrote into the configuration. It keeps their digests only, so a dump of the process shows none,
 * and compares a caller's with every one of them in constant time.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { Authenticator, Identity } from './authenticator.ts';

export type StaticToken = {
  /** SHA-256 of the token: 32 bytes. */
  readonly digest: Buffer;
  readonly projectId: string;
  readonly userId: string;
  readonly roles: readonly string[];
};

export class StaticTokens implements Authenticator {
  readonly challenge = 'Token realm="quarry"';
  #tokens: readonly StaticToken[];

  constructor(tokens: readonly StaticToken[]) {
    this.#tokens = tokens;
  }

  /** From now on these and no others: a token that was taken out of the configuration ends at once. */
  replace(tokens: readonly StaticToken[]): void {
    this.#tokens = tokens;
  }

  async identify(token: string): Promise<Identity | null> {
    const digest = digestOf(token);
    let found: StaticToken | null = null;
    // Never left early: how long it takes says nothing about which one it was.
    for (const known of this.#tokens) if (timingSafeEqual(known.digest, digest)) found = known;
    if (found === null) return null;
    const { projectId, userId, roles } = found;
    return { projectId, userId, roles, isSystem: false, isAdminProject: true };
  }

  async close(): Promise<void> {}
}

export function digestOf(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}
