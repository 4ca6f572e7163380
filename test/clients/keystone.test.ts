/**
 * The Keystone that other files test against is what they take it for. What Quarry does with its tokens is not tested here.
 */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { KEYSTONE_START_MS, type Keystone, startKeystone } from '../support/keystone.ts';
import { tryRun } from '../support/peers.ts';
import { describeWithPython } from '../support/python.ts';

await describeWithPython('openstack', 'the Keystone of the tests', (python) => {
  let keystone: Keystone;

  beforeAll(async () => {
    keystone = await startKeystone(python);
    await keystone.publish('http://127.0.0.1:1/v3');
  }, KEYSTONE_START_MS);

  afterAll(() => keystone?.stop());

  it('knows each account by its password, in its project', async () => {
    for (const name of ['admin', 'demo', 'alt', 'reader', 'manager', 'quarry'] as const)
      expect(await keystone.token(name)).toMatch(/^gAAAA/);
    expect(keystone.user('demo').projectId).toBe(keystone.user('reader').projectId);
    expect(keystone.user('demo').projectId).not.toBe(keystone.user('alt').projectId);
  });

  it('gives tokens of the system scope to its administrator, and tokens without a scope to anybody', async () => {
    expect(await keystone.token('admin', 'system')).toMatch(/^gAAAA/);
    expect(await keystone.token('demo', 'none')).toMatch(/^gAAAA/);
    await expect(keystone.token('demo', 'system')).rejects.toThrow('401');
  });

  it('names the block storage service in the catalog that a client sees', async () => {
    const { code, stdout, stderr } = await tryRun(python.program('openstack'), ['catalog', 'list', '-f', 'json'], {
      env: { ...python.env, ...keystone.env('demo') },
    });
    expect(stderr).toBe('');
    expect(code).toBe(0);
    const { projectId } = keystone.user('demo');
    const urls = new Map<string, string[]>();
    for (const { Type, Endpoints } of JSON.parse(stdout))
      urls.set(
        Type,
        Endpoints.map((endpoint: { url: string }) => endpoint.url),
      );
    expect(urls.get('block-storage')).toEqual(Array(3).fill('http://127.0.0.1:1/v3'));
    expect(urls.get('volumev3')).toEqual(Array(3).fill(`http://127.0.0.1:1/v3/${projectId}`));
  });
});
