/**
 * Schemathesis makes requests of every kind out of the API's own description, right and wrong ones, and the daemon answers none
 * with a 5xx. A run is short and its seed is fixed, so that it finds in a test what it found at a desk.
 */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { tryRun } from '../support/peers.ts';
import { describeWithPython } from '../support/python.ts';
import { type TempFolder, tempFolder } from '../support/temp.ts';

const SECONDS = 30;
const SEED = 20261124;
/** Not counting what it takes to load the description and to make each failure small. */
const RUN_MS = 150_000;

await describeWithPython('schemathesis', 'schemathesis', (python) => {
  let daemon: Daemon;
  let folder: TempFolder;

  beforeAll(async () => {
    folder = await tempFolder();
    daemon = await startDaemon({ api: 'tcp' });
  });

  afterAll(async () => {
    await daemon?.stop();
    await folder?.remove();
  });

  it(
    'finds no request that the daemon answers with a 5xx',
    async () => {
      const args = ['run', `${daemon.url}/openapi.json`, '--url', daemon.url, '--checks', 'not_a_server_error'];
      const budget = ['--max-time', String(SECONDS), '--phases', 'examples,coverage,fuzzing', '--seed', String(SEED)];
      const options = [
        '--workers',
        '1',
        '--no-color',
        '--warnings',
        'off',
        '--no-shrink',
        '--generation-database',
        'none',
      ];
      const { code, stdout, stderr } = await tryRun(python.program('st'), [...args, ...budget, ...options], {
        env: python.env,
        cwd: folder.path,
        timeoutMs: RUN_MS,
      });
      const shown = `exit code ${code}\n${stdout}\n${stderr}`;
      // 501 is an answer that says what is not there, and the contract allows it.
      const statuses = [...stdout.matchAll(/^\s*\[(5\d\d)\]/gm)].map(([, status]) => status);
      expect(
        statuses.filter((status) => status !== '501'),
        shown,
      ).toEqual([]);
      // Its exit code also counts operations for which it can make no values, as it cannot of some patterns.
      const [, generated, passed] = stdout.match(/(\d+) generated, (\d+) passed/) ?? [];
      expect(Number(generated), shown).toBeGreaterThan(500);
      if (statuses.length === 0) expect(passed, shown).toBe(generated);
      expect((await daemon.request('GET', '/healthcheck')).status).toBe(200);
    },
    RUN_MS + 10_000,
  );
});
