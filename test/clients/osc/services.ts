/** What an operator looks at by the openstack command line: services, pools, hosts, zones, filters, and what one backend cannot. */
import { describe, expect, it } from 'vitest';
import type { Suite } from './world.ts';

export const services: Suite = (world) => {
  const backendHost = async (): Promise<string> => {
    const rows = await world().admin.list('volume service list --service cinder-volume');
    return String(rows[0]?.['Host']);
  };

  describe('the administrator', () => {
    it('sees the three services, enabled and up', async () => {
      const { admin } = world();
      const rows = await admin.list('volume service list --long');
      const names = rows.map((row) => row['Binary']);
      expect(names).toEqual(expect.arrayContaining(['cinder-scheduler', 'cinder-volume']));
      for (const row of rows) expect(row).toMatchObject({ Status: 'enabled', State: 'up', Zone: expect.any(String) });
      expect(await backendHost()).toMatch(/^[^@]+@[^@#]+$/);
      const host = await backendHost();
      expect(await admin.list(`volume service list --host ${host}`)).toMatchObject([{ Binary: 'cinder-volume' }]);
    });

    it('disables a service with a reason, and enables it again', async () => {
      const { admin } = world();
      const host = await backendHost();
      await admin.ok('volume service set --disable --disable-reason', 'new disks', host, 'cinder-volume');
      expect(await admin.list('volume service list --long --service cinder-volume')).toMatchObject([
        { Status: 'disabled', 'Disabled Reason': 'new disks' },
      ]);
      await admin.ok(`volume service set --enable ${host} cinder-volume`);
      expect(await admin.list('volume service list --long --service cinder-volume')).toMatchObject([
        { Status: 'enabled', 'Disabled Reason': null },
      ]);
      expect(await admin.refused('volume service set --disable nowhere@none cinder-volume')).not.toBe('');
    });

    it('freezes a host, and thaws it', async () => {
      const { admin } = world();
      const host = await backendHost();
      await admin.ok(`volume host set --disable ${host}`);
      await admin.ok(`volume host set --enable ${host}`);
    });

    it('reads of a pool what it is and what is left of it', async () => {
      const { admin } = world();
      const host = await backendHost();
      const [pool] = await admin.list('volume backend pool list');
      expect(String(pool?.['Name']).startsWith(`${host}#`)).toBe(true);
      const [long] = await admin.list('volume backend pool list --long');
      expect(long?.['Capabilities']).toMatchObject({
        storage_protocol: expect.any(String),
        vendor_name: expect.any(String),
        total_capacity_gb: expect.anything(),
        free_capacity_gb: expect.anything(),
        timestamp: expect.any(String),
      });
    });

    it('reads the capabilities that types may ask for', async () => {
      const { admin } = world();
      expect(await admin.list(`volume backend capability show ${await backendHost()}`)).toEqual(expect.any(Array));
      expect(await admin.refused('volume backend capability show nowhere@none')).toMatch(/404|not/);
    });

    it('lists clusters, of which there are none', async () => {
      const { admin } = world();
      expect(await admin.list('block storage cluster list')).toEqual([]);
      expect(await admin.refused('block storage cluster show none')).toMatch(/404|not/i);
      expect(await admin.refused('block storage cluster set --enable none')).toMatch(/404|not/i);
    });

    // This client sends PUT where the API has POST: Cinder answers the same.
    it('is told that the call by which this client cleans up is not there', async () => {
      const { admin } = world();
      const narrowed = `--cluster none --host ${await backendHost()} --binary cinder-volume`;
      expect(await admin.refused(`block storage cleanup ${narrowed}`)).toContain('404');
    });

    it('reads and sets how much a service logs, or is refused as a user can understand', async () => {
      const { admin } = world();
      for (const command of ['block storage log level list', 'block storage log level set INFO']) {
        const { code, stderr } = await admin.try(command);
        if (code !== 0) expect(stderr).toMatch(/40[04]|501|not (found|supported|implemented)/i);
      }
    });

    it('is refused what needs a second backend', async () => {
      const { admin } = world();
      const host = await backendHost();
      expect(await admin.refused(`volume host failover --volume-backend other ${host}`)).toMatch(/40[04]|501/);
    });

    it('adopts nothing that is not a volume already', async () => {
      const { admin } = world();
      const host = await backendHost();
      for (const noun of ['volume', 'snapshot']) {
        const { code, stdout, stderr } = await admin.try(`block storage ${noun} manageable list ${host} -f json`);
        if (code === 0) expect(JSON.parse(stdout)).toEqual([]);
        else expect(stderr).toMatch(/40[04]|501/);
      }
    });
  });

  describe('everybody', () => {
    it('reads the availability zone', async () => {
      const { user } = world();
      expect(await user.list('availability zone list --volume')).toEqual([
        { 'Zone Name': 'nova', 'Zone Status': 'available' },
      ]);
    });

    it('reads which filters each list takes', async () => {
      const { user } = world();
      const rows = await user.list('block storage resource filter list');
      const filters = new Map(rows.map((row) => [row['Resource'], row['Filters']]));
      expect(filters.get('volume')).toEqual(expect.arrayContaining(['name', 'status', 'metadata', 'bootable']));
      expect(filters.get('snapshot')).toEqual(expect.arrayContaining(['name', 'status', 'volume_id']));
      expect(filters.get('backup')).toEqual(expect.arrayContaining(['name', 'status', 'volume_id']));
      expect(await user.show('block storage resource filter show volume')).toMatchObject({
        Resource: 'volume',
        Filters: filters.get('volume'),
      });
    });
  });

  describe('consistency groups', () => {
    it('are refused, since groups took their place', async () => {
      const { user } = world();
      const commands = [
        'consistency group list',
        'consistency group show some',
        'consistency group create --volume-type __DEFAULT__ some',
        'consistency group set --name other some',
        'consistency group delete some',
        'consistency group add volume some other',
        'consistency group remove volume some other',
        'consistency group snapshot list',
        'consistency group snapshot show some',
        'consistency group snapshot create --consistency-group some some',
        'consistency group snapshot delete some',
      ];
      for (const command of commands) {
        const { code, stderr } = await user.try(command);
        // Adding and removing volumes end with 0 whatever happened; what the user reads is what counts.
        if (!command.includes('volume some')) expect(code, command).not.toBe(0);
        expect(stderr, command).not.toBe('');
      }
    });
  });
};
