/** Programs on openstacksdk against a daemon without authentication. What they check is in python/sdk.py. */
import { afterAll, beforeAll, describe } from 'vitest';
import { testChecks } from '../support/checks.ts';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { describeWithPython } from '../support/python.ts';
import { sdk } from './programs.ts';

const PROJECT = '5d4c0000000000000000000000005d4c';

await describeWithPython('openstack', 'openstacksdk', async (python) => {
  let daemon: Daemon;

  beforeAll(async () => {
    daemon = await startDaemon({ api: 'tcp' });
  });

  afterAll(() => daemon?.stop());

  describe('without authentication', async () => {
    await testChecks(sdk(python), () => ({ OS_AUTH_TYPE: 'none', OS_ENDPOINT: `${daemon.url}/v3/${PROJECT}` }));
  });
});
