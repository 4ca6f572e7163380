/** Where the command line gets its token and the daemon's address from. */
import { describe, expect, test } from 'vitest';
import { connect, DEFAULT_URL } from '../../src/cli/connection.ts';
import { Identity } from '../support/identity.ts';

const DEMO = { OS_USERNAME: 'demo', OS_PASSWORD: 'secret', OS_PROJECT_NAME: 'web' };

async function identityWith(catalog: unknown): Promise<Identity> {
  const identity = await Identity.open();
  identity.catalog = catalog;
  return identity;
}

function service(type: string, endpoints: readonly [string, string, string][]): unknown {
  return { type, endpoints: endpoints.map(([face, region, url]) => ({ interface: face, region_id: region, url })) };
}

describe('a token', () => {
  test('is the flag’s, else the environment’s, and then nobody is asked for one', async () => {
    const none = { OS_AUTH_URL: 'http://127.0.0.1:1/v3', ...DEMO };
    expect(await connect({ token: 'a', url: 'http://x' }, { QUARRY_TOKEN: 'b', ...none })).toMatchObject({
      token: 'a',
      url: 'http://x',
    });
    expect(await connect({}, { QUARRY_TOKEN: 'b', QUARRY_URL: 'http://y', ...none })).toMatchObject({
      token: 'b',
      url: 'http://y',
    });
    expect(await connect({}, {})).toMatchObject({ token: null, url: DEFAULT_URL });
    expect(await connect({}, { ...none, OS_AUTH_TYPE: 'none' })).toMatchObject({ token: null, url: DEFAULT_URL });
  });

  test.each([
    [
      'a password',
      { ...DEMO, OS_USER_DOMAIN_NAME: 'Users', OS_PROJECT_DOMAIN_ID: 'projects' },
      {
        identity: {
          methods: ['password'],
          password: { user: { name: 'demo', domain: { name: 'Users' }, password: 'secret' } },
        },
        scope: { project: { name: 'web', domain: { id: 'projects' } } },
      },
    ],
    [
      'a password for the system',
      { OS_USER_ID: 'u', OS_PASSWORD: 'secret', OS_SYSTEM_SCOPE: 'all' },
      {
        identity: { methods: ['password'], password: { user: { id: 'u', password: 'secret' } } },
        scope: { system: { all: true } },
      },
    ],
    [
      'a token',
      { OS_TOKEN: 't', OS_PROJECT_ID: 'p' },
      { identity: { methods: ['token'], token: { id: 't' } }, scope: { project: { id: 'p' } } },
    ],
    [
      'an application credential',
      { OS_APPLICATION_CREDENTIAL_ID: 'c', OS_APPLICATION_CREDENTIAL_SECRET: 's', OS_PROJECT_NAME: '' },
      { identity: { methods: ['application_credential'], application_credential: { id: 'c', secret: 's' } } },
    ],
  ])('comes from the identity service for %s', async (_, variables, auth) => {
    await using identity = await identityWith([]);
    const connection = await connect({ url: 'http://q' }, { OS_AUTH_URL: identity.url, ...variables });
    expect(connection).toMatchObject({ url: 'http://q', token: 'login-1' });
    expect(identity.logins).toEqual([{ auth }]);
  });

  test('that is refused is a refusal, and an identity service that is not there cannot be used', async () => {
    await using identity = await identityWith([]);
    identity.refuses = true;
    const env = { OS_AUTH_URL: identity.url, ...DEMO };
    await expect(connect({}, env)).rejects.toMatchObject({ code: 'unauthorized' });
    const nowhere = { ...env, OS_AUTH_URL: 'http://127.0.0.1:1' };
    await expect(connect({}, nowhere)).rejects.toMatchObject({ code: 'identity_unavailable' });
  });

  test.each([
    [{ OS_USERNAME: 'demo' }, 'OS_PASSWORD is not'],
    [{ OS_PASSWORD: 'x' }, 'OS_USERNAME is not'],
    [{ ...DEMO, OS_AUTH_TYPE: 'kerberos' }, "OS_AUTH_TYPE is 'kerberos'"],
    [{ ...DEMO, OS_CACERT: '/nonexistent.pem' }, 'The authority /nonexistent.pem (--cacert, OS_CACERT) cannot be read'],
  ])('cannot be had with %j, and the message names the variable', async (variables, message) => {
    const env = { OS_AUTH_URL: 'http://127.0.0.1:1', ...variables };
    await expect(connect({}, env)).rejects.toThrow(message);
  });
});

describe('the daemon of the catalog', () => {
  const catalog = [
    service('volumev3', [['public', 'north', 'http://north/v3/p']]),
    service('block-storage', [
      ['internal', 'south', 'http://south-internal/v3'],
      ['public', 'south', 'http://south/v3'],
    ]),
    service('identity', [['public', 'east', 'http://east/v3']]),
  ];

  test.each([
    [{}, 'http://south/v3'],
    [{ OS_REGION_NAME: 'south', OS_INTERFACE: 'internal' }, 'http://south-internal/v3'],
    [{ OS_REGION_NAME: 'north', OS_ENDPOINT_TYPE: 'publicURL' }, 'http://north/v3/p'],
  ])('is, with %j, the one of that region and interface', async (variables, url) => {
    await using identity = await identityWith(catalog);
    const connection = await connect({}, { OS_AUTH_URL: identity.url, ...DEMO, ...variables });
    expect(connection.url).toBe(url);
  });

  test('that does not exist is an error that says what to change', async () => {
    await using identity = await identityWith(catalog);
    const env = { OS_AUTH_URL: identity.url, ...DEMO, OS_REGION_NAME: 'east' };
    await expect(connect({}, env)).rejects.toThrow(/no public block-storage service in region east.*--url/);
  });
});
