/** Programs on python-cinderclient against a daemon without authentication. What they check is in python/cinder_client.py. */
import { afterAll, beforeAll, describe } from 'vitest';
import { testChecks } from '../support/checks.ts';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { describeWithPython } from '../support/python.ts';
import { cinderClient } from './programs.ts';

const PROJECT = 'c17de40000000000000000000c17de40';

await describeWithPython('openstack', 'python-cinderclient', async (python) => {
  let daemon: Daemon;

  beforeAll(async () => {
    daemon = await startDaemon({ api: 'tcp' });
  });

  afterAll(() => daemon?.stop());

  describe('without authentication', async () => {
    await testChecks(cinderClient(python), () => ({
      OS_AUTH_TYPE: 'none',
      OS_ENDPOINT: `${daemon.url}/v3/${PROJECT}`,
    }));
  });
});
