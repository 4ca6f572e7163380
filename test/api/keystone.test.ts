/** How answers of an identity service are asked for, shared, remembered and forgotten. */
import { describe, expect, test } from 'vitest';
import { Keystone, type KeystoneOptions } from '../../src/api/auth/keystone.ts';
import { SILENT_LOG } from '../../src/base/log.ts';
import { IdentityClient } from '../../src/identity/client.ts';
import { Identity } from '../support/identity.ts';
import { Api } from './api.ts';

const MINUTE_MS = 60_000;

const ask = (keystone: Keystone, token: string) => keystone.identify(token, { mayBeExpired: false });

async function open(options: Partial<KeystoneOptions> = {}) {
  const identity = await Identity.open();
  const clock = { nowMs: Date.now() };
  const client = new IdentityClient({ url: identity.url, certificates: null });
  const keystone = new Keystone({
    client,
    credentials: {
      kind: 'password',
      user: { name: 'quarry', domain: { name: 'Default' } },
      password: 'secret',
      scope: { kind: 'project', project: { name: 'service', domain: { name: 'Default' } } },
    },
    publicUrl: identity.url,
    endpoint: null,
    cacheSeconds: 300,
    log: SILENT_LOG,
    now: () => clock.nowMs,
    ...options,
  });
  return {
    identity,
    keystone,
    clock,
    async [Symbol.asyncDispose]() {
      await keystone.close();
      await identity[Symbol.asyncDispose]();
    },
  };
}

describe('a token', () => {
  test('that has expired counts for a service that acts for its bearer, and for nobody else', async () => {
    await using world = await open();
    const { identity, keystone, clock } = world;
    identity.grant('user', { expiresAtMs: clock.nowMs - 1 });
    identity.grant('nova', { roles: ['service'] });
    identity.grant('other', { roles: ['member'] });
    await using api = await Api.open({ server: { authenticator: keystone } });
    const asked = async (more: Record<string, string>): Promise<number> =>
      (await api.ask('GET', '/v3/volumes', { headers: { 'x-auth-token': 'user', ...more } })).status;
    expect(await asked({ 'x-service-token': 'nova' })).toBe(200);
    expect(await asked({ 'x-service-token': 'other' })).toBe(401);
    expect(await asked({})).toBe(401);
    identity.revoke('user');
    clock.nowMs += 5 * MINUTE_MS;
    expect(await asked({ 'x-service-token': 'nova' })).toBe(401);
  });

  test('is asked about once, and not again until the answer is too old', async () => {
    await using world = await open({ cacheSeconds: 120 });
    const { identity, keystone, clock } = world;
    identity.grant('t', { userId: 'ann', projectId: 'web', roles: ['member', 'reader'] });
    const expected = { userId: 'ann', projectId: 'web', roles: ['member', 'reader'] };
    expect(await ask(keystone, 't')).toMatchObject(expected);
    clock.nowMs += 119_000;
    expect(await ask(keystone, 't')).toMatchObject(expected);
    expect(identity.asked.get('t')).toBe(1);
    clock.nowMs += 1_000;
    expect(await ask(keystone, 't')).toMatchObject(expected);
    expect(identity.asked.get('t')).toBe(2);
    expect(identity.logins).toHaveLength(1);
  });

  test('that is revoked ends within the cache time, five minutes at most', async () => {
    await using world = await open({ cacheSeconds: 100_000 });
    const { identity, keystone, clock } = world;
    identity.grant('t', {});
    await ask(keystone, 't');
    identity.revoke('t');
    clock.nowMs += 5 * MINUTE_MS - 1;
    expect(await ask(keystone, 't')).not.toBeNull();
    clock.nowMs += 1;
    expect(await ask(keystone, 't')).toBeNull();
  });

  test('ends when it expires, however fresh the answer is', async () => {
    await using world = await open();
    const { identity, keystone, clock } = world;
    identity.grant('t', { expiresAtMs: clock.nowMs + 30_000 });
    expect(await ask(keystone, 't')).not.toBeNull();
    clock.nowMs += 30_000;
    expect(await ask(keystone, 't')).toBeNull();
  });

  test('that is asked about by many at once costs one question', async () => {
    await using world = await open();
    const { identity, keystone } = world;
    identity.grant('t', {});
    let release = (): void => {};
    identity.gate = new Promise((resolve) => {
      release = resolve;
    });
    const answers = Array.from({ length: 20 }, () => ask(keystone, 't'));
    release();
    for (const answer of await Promise.all(answers)) expect(answer).not.toBeNull();
    expect(identity.asked.get('t')).toBe(1);
    expect(identity.logins).toHaveLength(1);
  });

  test('that is refused is not asked about again for ten seconds', async () => {
    await using world = await open();
    const { identity, keystone, clock } = world;
    for (const wait of [0, 9_999]) {
      clock.nowMs += wait;
      expect(await ask(keystone, 'bad')).toBeNull();
    }
    expect(identity.asked.get('bad')).toBe(1);
    identity.grant('bad', {});
    clock.nowMs += 1;
    expect(await ask(keystone, 'bad')).not.toBeNull();
  });

  test('is always asked about when nothing may be remembered', async () => {
    await using world = await open({ cacheSeconds: 0 });
    const { identity, keystone } = world;
    identity.grant('t', {});
    for (const token of ['t', 't', 'bad', 'bad']) await ask(keystone, token);
    expect([identity.asked.get('t'), identity.asked.get('bad')]).toEqual([2, 2]);
  });

  test('for the system, or of another project than the admin project, is told as such', async () => {
    await using world = await open();
    const { identity, keystone } = world;
    identity.grant('system', { projectId: null, isSystem: true, roles: ['admin'] });
    identity.grant('other', { isAdminProject: false });
    expect(await ask(keystone, 'system')).toMatchObject({ projectId: null, isSystem: true, isAdminProject: true });
    expect(await ask(keystone, 'other')).toMatchObject({ isSystem: false, isAdminProject: false });
  });

  test('made up by somebody does not push known ones out', async () => {
    await using world = await open();
    const { identity, keystone } = world;
    identity.grant('t', {});
    await ask(keystone, 't');
    for (let number = 0; number < 1_200; number++) await ask(keystone, `bad-${number}`);
    await ask(keystone, 't');
    await ask(keystone, 'bad-1199');
    await ask(keystone, 'bad-0');
    const asked = ['t', 'bad-1199', 'bad-0'].map((token) => identity.asked.get(token));
    expect(asked).toEqual([1, 1, 2]);
  });
});

describe('the daemon’s own token', () => {
  test('is got with what the configuration says', async () => {
    await using world = await open();
    await ask(world.keystone, 't');
    expect(world.identity.logins[0]).toEqual({
      auth: {
        identity: {
          methods: ['password'],
          password: { user: { name: 'quarry', domain: { name: 'Default' }, password: 'secret' } },
        },
        scope: { project: { name: 'service', domain: { name: 'Default' } } },
      },
    });
    const credential = { kind: 'application-credential', credential: { id: 'c' }, secret: 's' } as const;
    await using other = await open({ credentials: credential });
    await ask(other.keystone, 't');
    expect(other.identity.logins[0]).toEqual({
      auth: {
        identity: { methods: ['application_credential'], application_credential: { id: 'c', secret: 's' } },
      },
    });
  });

  test('is renewed before it ends', async () => {
    await using world = await open();
    const { identity, keystone, clock } = world;
    await ask(keystone, 'a');
    clock.nowMs += 60 * MINUTE_MS - 61_000;
    await ask(keystone, 'b');
    expect(identity.logins).toHaveLength(1);
    clock.nowMs += 2_000;
    await ask(keystone, 'c');
    expect(identity.logins).toHaveLength(2);
  });

  test('that is no longer accepted is renewed once, by all who meet it together', async () => {
    await using world = await open();
    const { identity, keystone } = world;
    const tokens = ['a', 'b', 'c', 'd'];
    for (const token of tokens) identity.grant(token, {});
    await ask(keystone, 'first');
    identity.forgetLogins();
    for (const answer of await Promise.all(tokens.map((token) => ask(keystone, token)))) expect(answer).not.toBeNull();
    expect(identity.logins).toHaveLength(2);
  });

  test('that is not given is 503, is tried again after a while and not before', async () => {
    await using world = await open();
    const { identity, keystone, clock } = world;
    identity.grant('t', {});
    identity.refuses = true;
    for (let time = 0; time < 3; time++)
      await expect(ask(keystone, 't')).rejects.toMatchObject({ code: 'identity_unavailable' });
    expect(identity.logins).toHaveLength(1);
    identity.refuses = false;
    clock.nowMs += 10_000;
    expect(await ask(keystone, 't')).not.toBeNull();
  });
});

describe('an identity service that', () => {
  test.each([
    ['fails', 500, '{}'],
    ['does not let us ask', 403, '{"error":{"message":"no"}}'],
    ['is none', 200, '<html>'],
    ['says nothing of use', 200, '{"token":{}}'],
  ])('%s makes no token valid and none invalid: 503, and asked again', async (_, status, body) => {
    await using world = await open();
    const { identity, keystone } = world;
    identity.grant('t', {});
    identity.answer = { status, body };
    await expect(ask(keystone, 't')).rejects.toMatchObject({ code: 'identity_unavailable' });
    identity.answer = null;
    expect(await ask(keystone, 't')).not.toBeNull();
  });

  test('closes connections that were kept costs nobody his request', async () => {
    await using world = await open();
    const { identity, keystone } = world;
    for (const token of ['a', 'b', 'c']) {
      identity.grant(token, {});
      expect(await ask(keystone, token)).not.toBeNull();
      identity.dropConnections();
    }
  });

  test('is gone is 503 for new tokens, while those it has answered for go on', async () => {
    const world = await open();
    const { identity, keystone } = world;
    identity.grant('known', { roles: ['member'] });
    await using api = await Api.open({ server: { authenticator: keystone } });
    const asked = (token: string) => api.ask('GET', '/v3/volumes', { headers: { 'x-auth-token': token } });
    expect((await asked('known')).status).toBe(200);
    await identity[Symbol.asyncDispose]();
    expect((await asked('known')).status).toBe(200);
    const reply = await asked('unknown');
    expect(reply.status).toBe(503);
    expect(reply.body.serviceUnavailable.message).toContain(`${identity.url} cannot be used: connection refused`);
    expect((await api.ask('GET', '/v3/volumes')).headers['www-authenticate']).toBe(`Keystone uri="${identity.url}"`);
    await keystone.close();
  });
});
