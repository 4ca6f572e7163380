/**
 * The client programs once more as an administrator who logs in at a Keystone and finds the daemon in its catalog: every area
 * of each. One after another and in one project, which each leaves empty.
 */
import { afterAll, beforeAll, describe } from 'vitest';
import { testChecks } from '../support/checks.ts';
import { type Cloud, startCloud } from '../support/cloud.ts';
import { describeWithGo } from '../support/go.ts';
import { KEYSTONE_START_MS } from '../support/keystone.ts';
import { describeWithPython } from '../support/python.ts';
import { cinderClient, GOPHERCLOUD, gophercloud, sdk } from './programs.ts';

await describeWithPython('openstack', 'through Keystone', async (python) => {
  let cloud: Cloud;

  beforeAll(async () => {
    cloud = await startCloud(python);
  }, KEYSTONE_START_MS);

  afterAll(() => cloud?.stop());

  const admin = () => cloud.keystone.env('admin');

  describe('python-cinderclient', async () => {
    await testChecks(cinderClient(python), admin);
  });

  describe('openstacksdk', async () => {
    await testChecks(sdk(python), admin);
  });

  await describeWithGo(GOPHERCLOUD, 'gophercloud', async (program) => {
    await testChecks(gophercloud(program), () => ({ ...admin(), OS_DOMAIN_NAME: 'Default' }));
  });
});
