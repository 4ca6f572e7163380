/**
 * The openstack command line against a daemon without authentication in the
 * order of a real day. The suites are in osc/, each in a project of its own.
 */
import { afterAll, beforeAll, describe } from 'vitest';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { OpenstackCli, Osc } from '../support/openstack-cli.ts';
import { describeWithPython } from '../support/python.ts';
import { services } from './osc/services.ts';
import { types } from './osc/types.ts';
import { volumes } from './osc/volumes.ts';

const SUITES = { volumes, services, types };

await describeWithPython('openstack', 'the openstack command line', (python) => {
  let daemon: Daemon;
  let cli: OpenstackCli;

  beforeAll(async () => {
    daemon = await startDaemon({ api: 'tcp' });
    cli = new OpenstackCli(python);
  });

  afterAll(async () => {
    await cli?.[Symbol.asyncDispose]();
    await daemon?.stop();
  });

  describe.each(Object.entries(SUITES))('%s', (name, suite) => {
    const projectId = Buffer.from(name.padEnd(16, '-').slice(0, 16)).toString('hex');
    suite(() => {
      const osc = new Osc(cli, ['--os-auth-type', 'none', '--os-endpoint', `${daemon.url}/v3/${projectId}`]);
      return { admin: osc, user: osc, projectId, daemon, headers: {} };
    });
  });
});
