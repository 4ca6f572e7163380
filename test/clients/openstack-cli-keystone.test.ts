/**
 * The openstack command line as a tenant has it: it logs in at Keystone, finds the service in the catalog, and is what
 * its roles make it. The suites that need no second user run here too, with an administrator of another project.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Cloud, startCloud } from '../support/cloud.ts';
import { KEYSTONE_START_MS, type UserName } from '../support/keystone.ts';
import { OpenstackCli, Osc } from '../support/openstack-cli.ts';
import { describeWithPython } from '../support/python.ts';
import { attachments } from './osc/attachments.ts';
import { groups, messages, transfers } from './osc/groups.ts';
import { retypes } from './osc/types.ts';
import { volumes } from './osc/volumes.ts';

const SUITES = { volumes, attachments, retypes, transfers, groups, messages };

await describeWithPython('openstack', 'the openstack command line through Keystone', (python) => {
  let cloud: Cloud;
  let cli: OpenstackCli;
  let token = '';

  beforeAll(async () => {
    cloud = await startCloud(python);
    cli = new OpenstackCli(python);
    token = await cloud.keystone.token('demo');
  }, KEYSTONE_START_MS);

  afterAll(async () => {
    await cli?.[Symbol.asyncDispose]();
    await cloud?.stop();
  });

  /** The variables of a user's environment, as the options of the same names. */
  const as = (name: UserName): Osc => {
    const options = Object.entries(cloud.keystone.env(name)).map(
      ([variable, value]) => `--${variable.toLowerCase().replaceAll('_', '-')}=${value}`,
    );
    return new Osc(cli, options);
  };

  describe.each(Object.entries(SUITES))('%s', (_name, suite) => {
    suite(() => ({
      admin: as('admin'),
      user: as('demo'),
      projectId: cloud.keystone.user('demo').projectId,
      daemon: cloud.daemon,
      headers: { 'x-auth-token': token },
    }));
  });

  it('a reader sees what its project has, and is refused each change', async () => {
    await as('demo').ok('volume create --size 1 shown');
    const { id } = await as('reader').settled('volume show shown');
    expect(await as('reader').refused('volume create --size 1 mine')).toContain('403');
    expect(await as('reader').refused('volume set --property a=1 shown')).toContain('403');
    expect(await as('reader').refused(`volume delete ${id}`)).toContain('403');
    expect(await as('demo').refused(`volume set --state error ${id}`)).toContain('403');
    expect(await as('demo').show('volume show shown')).toMatchObject({ id, status: 'available', properties: {} });
  });

  it('another project sees nothing of it, by id or by name', async () => {
    const { id } = await as('demo').show('volume show shown');
    expect(await as('alt').list('volume list')).toEqual([]);
    expect(await as('alt').refused('volume show shown')).toContain('No Volume found for shown');
    expect(await as('alt').refused(`volume show ${id}`)).toContain(`No Volume found for ${id}`);
    expect(await as('alt').refused(`volume delete ${id}`)).toContain('1 of 1 volumes failed to delete');
    expect(await as('alt').refused(`volume create --source ${id} mine`)).toContain(`No Volume found for ${id}`);
  });

  it('an administrator lists all projects, or the one that is named', async () => {
    await as('alt').ok('volume create --size 1 elsewhere');
    await as('alt').settled('volume show elsewhere');
    const names = async (options: string) =>
      (await as('admin').list(`volume list ${options}`)).map((row) => row['Name']).sort();
    expect(await names('--all-projects')).toEqual(['elsewhere', 'shown']);
    expect(await names('--project alt')).toEqual(['elsewhere']);
    expect(await names('--name shown')).toEqual([]);
    const own = await as('demo').list('volume list');
    expect(own.map((row) => row['Name'])).toEqual(['shown']);
  });

  it('quota: an administrator sets it, the project reads it and is stopped by it', async () => {
    const demo = as('demo');
    const admin = as('admin');
    const limits = async () => {
      const rows = await demo.list('quota show --volume');
      return new Map(rows.map((row) => [row['Resource'], row['Limit']]));
    };
    await admin.ok('quota set --volumes 1 --gigabytes 5 --per-volume-gigabytes 3 demo');
    expect(Object.fromEntries(await limits())).toMatchObject({
      volumes: 1,
      gigabytes: 5,
      'per-volume-gigabytes': 3,
    });
    const usage = await demo.list('quota show --volume --usage');
    expect(usage).toEqual(
      expect.arrayContaining([expect.objectContaining({ Resource: 'volumes', Limit: 1, 'In Use': 1, Reserved: 0 })]),
    );
    expect(await demo.refused('volume create --size 1 too-many')).toMatch(/413|VolumeLimitExceeded/);
    await admin.ok('quota set --volumes 5 demo');
    expect(await demo.refused('volume create --size 4 too-large')).toMatch(/413|VolumeSizeExceedsLimit/);
    expect(await demo.refused('volume set --size 4 shown')).toMatch(/413|VolumeSizeExceedsLimit/);
    expect(await demo.refused('quota set --volumes 99 demo')).toContain('403');
    const listed = await admin.list('quota list --volume');
    expect(listed).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ 'Project ID': cloud.keystone.user('demo').projectId, Volumes: 5, Gigabytes: 5 }),
      ]),
    );
    await admin.ok('quota delete --volume demo');
    const defaults = await demo.list('quota show --volume --default');
    const wanted = defaults.find((row) => row['Resource'] === 'volumes')?.['Limit'];
    expect((await limits()).get('volumes')).toBe(wanted);
  });

  it('limits show what a project may have, and has', async () => {
    const rows = await as('demo').list('limits show --absolute');
    const values = Object.fromEntries(rows.map((row) => [row['Name'], row['Value']]));
    expect(values).toMatchObject({ total_volumes_used: 1, total_gigabytes_used: 1 });
    expect(await as('demo').list('limits show --rate')).toEqual([]);
  });

  it('each extension of the service is listed', async () => {
    const rows = await as('demo').list('extension list --volume');
    expect(rows.length).toBeGreaterThan(0);
    for (const row of rows) expect(row).toMatchObject({ Name: expect.any(String), Alias: expect.any(String) });
  });
});
