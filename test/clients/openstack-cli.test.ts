/**
 * The openstack command line against a daemon without authentication in the
 * order of a real day. The suites are in osc/, each in a project of its own.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { OpenstackCli, Osc } from '../support/openstack-cli.ts';
import { describeWithPython } from '../support/python.ts';
import { attachments } from './osc/attachments.ts';
import { backups } from './osc/backups.ts';
import { groups, messages, transfers } from './osc/groups.ts';
import { services } from './osc/services.ts';
import { retypes, types } from './osc/types.ts';
import { volumes } from './osc/volumes.ts';

const SUITES = { volumes, services, types, retypes, attachments, transfers, groups, messages, backups };
/** It looks a server up in a compute service before it asks us. */
const NEED_OTHERS = ['volume attachment create'];

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

  // Which commands there are is the client's own list: a new version of it cannot have one that nobody tries.
  it('every block storage command was tried', async () => {
    const { stdout } = await cli.run(['command', 'list', '--group', 'openstack.volume.v3', '-f', 'json']);
    const [group] = JSON.parse(stdout) as { Commands: string[] }[];
    const commands = group?.Commands ?? [];
    expect(commands.length).toBeGreaterThan(90);
    const untried = commands.filter((command) => !cli.history.some((words) => `${words} `.startsWith(`${command} `)));
    expect(untried).toEqual(NEED_OTHERS);
  });
});
