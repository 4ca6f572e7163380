/** A program on gophercloud, which Terraform and Kubernetes use, against a daemon without authentication. Its checks are in gophercloud/. */
import { afterAll, beforeAll, describe } from 'vitest';
import { testChecks } from '../support/checks.ts';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { describeWithGo } from '../support/go.ts';
import { GOPHERCLOUD, gophercloud } from './programs.ts';

const PROJECT = '60f3c10ad000000000000000060f3c10';

await describeWithGo(GOPHERCLOUD, 'gophercloud', async (program) => {
  let daemon: Daemon;

  beforeAll(async () => {
    daemon = await startDaemon({ api: 'tcp' });
  });

  afterAll(() => daemon?.stop());

  describe('without authentication', async () => {
    await testChecks(gophercloud(program), () => ({
      QUARRY_ENDPOINT: `${daemon.url}/v3`,
      QUARRY_PROJECT: PROJECT,
    }));
  });
});
