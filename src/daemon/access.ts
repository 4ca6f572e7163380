/**
 * From the configuration's word on authentication to the part that does it.
 */
import type { Authenticator } from '../api/auth/authenticator.ts';
import { Keystone } from '../api/auth/keystone.ts';
import { StaticTokens } from '../api/auth/static-tokens.ts';
import type { Log } from '../base/log.ts';
import { IdentityClient } from '../identity/client.ts';
import type { Access } from './config-access.ts';

export type OpenAccess = {
  readonly authenticator: Authenticator;
  /** Another list of tokens applies at once; what else changed waits for the next start. */
  reload(access: Access): void;
};

/** Null: none. */
export function openAccess(access: Access, log: Log): OpenAccess | null {
  switch (access.kind) {
    case 'none':
      return null;
    case 'token': {
      const authenticator = new StaticTokens(access.tokens);
      const reload = (again: Access): void => {
        if (again.kind === 'token') authenticator.replace(again.tokens);
      };
      return { authenticator, reload };
    }
    case 'keystone': {
      const { url, certificates, ...options } = access.keystone;
      const client = new IdentityClient({ url, certificates });
      return { authenticator: new Keystone({ ...options, client, log, now: Date.now }), reload: () => {} };
    }
  }
}
