/** Group types, groups and their snapshots, transfers and messages by the openstack command line. */
import { describe, expect, it } from 'vitest';
import type { Suite } from './world.ts';

export const groups: Suite = (world) => {
  describe('volume group type', () => {
    it('create, set, show, list', async () => {
      const { admin } = world();
      expect(await admin.show('volume group type create --description together pair')).toMatchObject({
        Name: 'pair',
        Description: 'together',
        'Is Public': true,
        Properties: {},
      });
      const property = 'consistent_group_snapshot_enabled=<is> True';
      await admin.ok('volume group type set --property', property, 'pair');
      expect(await admin.show('volume group type show pair')).toMatchObject({
        Properties: { consistent_group_snapshot_enabled: '<is> True' },
      });
      expect((await admin.list('volume group type list')).map((row) => row['Name'])).toContain('pair');
      // There is a type of this name, but none that a group without one would get: a group always names its type.
      expect((await admin.list('volume group type list')).map((row) => row['Name'])).toContain(
        'default_cgsnapshot_type',
      );
      expect(await admin.refused('volume group type list --default')).toMatch(/default/i);
      expect(await admin.refused('volume group type create pair')).toMatch(/409|exists/);
    });
  });

  describe('volume group', () => {
    it('create, show and list', async () => {
      const { user } = world();
      const made = await user.show(
        'volume group create --volume-group-type pair --volume-type __DEFAULT__ --name both --description two',
      );
      expect(made).toMatchObject({ Name: 'both', Description: 'two' });
      expect(await user.settled('volume group show both')).toMatchObject({ ID: made['ID'], Status: 'available' });
      expect(await user.list('volume group list')).toEqual([{ ID: made['ID'], Status: 'available', Name: 'both' }]);
    });

    it('add volume and remove volume change who is in it', async () => {
      const { user } = world();
      const one = await user.show('volume create --size 1 one');
      const two = await user.show('volume create --size 1 two');
      await user.settled('volume show one');
      await user.settled('volume show two');
      await user.ok('volume group add volume both one two');
      const group = await user.settled('volume group show --volumes both');
      expect([...(group['Volumes'] as string[])].sort()).toEqual([one['id'], two['id']].sort());
      expect(await user.show('volume show one')).toMatchObject({ group_id: group['ID'] });
      expect(await user.refused('volume delete one')).toMatch(/group|400/);
      await user.ok('volume group remove volume both two');
      expect(await user.settled('volume group show --volumes both')).toMatchObject({ Volumes: [one['id']] });
      await user.ok('volume group add volume both two');
      await user.settled('volume group show both');
    });

    it('set renames it', async () => {
      const { user } = world();
      await user.show('volume group set --name renamed --description new both');
      expect(await user.settled('volume group show renamed')).toMatchObject({ Description: 'new' });
      await user.show('volume group set --name both renamed');
    });

    it('a snapshot of it has one of each volume, and a group can be made of that', async () => {
      const { user } = world();
      const made = await user.show('volume group snapshot create --name moment --description now both');
      expect(await user.settled('volume group snapshot show moment')).toMatchObject({
        ID: made['ID'],
        Status: 'available',
        Description: 'now',
      });
      expect(await user.list('volume group snapshot list')).toMatchObject([{ Name: 'moment', Status: 'available' }]);
      expect(await user.list('volume snapshot list')).toHaveLength(2);
      const copy = await user.show('volume group create --group-snapshot moment --name copy');
      expect(await user.settled('volume group show copy')).toMatchObject({ ID: copy['ID'], Status: 'available' });
      const clone = await user.show('volume group create --source-group both --name clone');
      expect(await user.settled('volume group show clone')).toMatchObject({ ID: clone['ID'], Status: 'available' });
      expect(await user.list('volume list')).toHaveLength(6);
    });

    it('failover is refused: there is no replication', async () => {
      const { admin } = world();
      expect(await admin.refused('volume group failover both')).not.toBe('');
    });

    it('delete goes from the snapshot to the group, with its volumes only by --force', async () => {
      const { user, admin } = world();
      expect(await user.refused('volume group delete both')).toMatch(/400|volumes|delete/i);
      await user.ok('volume group snapshot delete moment');
      await user.gone('volume group snapshot show moment');
      for (const name of ['both', 'copy', 'clone']) {
        await user.ok(`volume group delete --force ${name}`);
        await user.gone(`volume group show ${name}`);
      }
      expect(await user.list('volume list')).toEqual([]);
      await admin.ok('volume group type delete pair');
      expect(await admin.refused('volume group type show pair')).toContain('pair');
    });
  });
};

export const transfers: Suite = (world) => {
  describe('volume transfer request', () => {
    it('create locks the volume and shows the key once', async () => {
      const { user } = world();
      const volume = await user.show('volume create --size 1 leaving');
      await user.settled('volume show leaving');
      const made = await user.show('volume transfer request create --name away leaving');
      expect(made).toMatchObject({
        name: 'away',
        volume_id: volume['id'],
        auth_key: expect.stringMatching(/^[0-9a-f]{16}$/),
      });
      expect(await user.show('volume show leaving')).toMatchObject({ status: 'awaiting-transfer' });
      const shown = await user.show('volume transfer request show away');
      expect(shown).toMatchObject({ id: made['id'], name: 'away', volume_id: volume['id'] });
      expect(shown['auth_key']).toBeUndefined();
      expect(await user.list('volume transfer request list')).toEqual([
        { ID: made['id'], Name: 'away', Volume: volume['id'] },
      ]);
      expect(await user.refused('volume delete leaving')).toMatch(/400|awaiting/);
    });

    it('delete gives the volume back', async () => {
      const { user } = world();
      const { id } = await user.show('volume transfer request show away');
      // Its help offers the name as well, which it hands on as if it were an id.
      expect(await user.refused('volume transfer request delete away')).toContain('404');
      await user.ok(`volume transfer request delete ${id}`);
      expect(await user.show('volume show leaving')).toMatchObject({ status: 'available' });
      expect(await user.list('volume transfer request list')).toEqual([]);
      expect(await user.refused('volume transfer request show away')).toContain('away');
    });

    it('accept takes the right key only', async () => {
      const { user } = world();
      const volume = await user.show('volume show leaving');
      const made = await user.show('volume transfer request create leaving');
      const accept = `volume transfer request accept ${made['id']} --auth-key`;
      expect(await user.refused(`${accept} 0000000000000000`)).toMatch(/400|key/);
      expect(await user.show(`${accept} ${made['auth_key']}`)).toMatchObject({
        id: made['id'],
        volume_id: volume['id'],
      });
      expect(await user.show('volume show leaving')).toMatchObject({ status: 'available' });
      await user.ok('volume delete leaving');
      await user.gone('volume show leaving');
    });
  });
};

export const messages: Suite = (world) => {
  describe('volume message', () => {
    it('says why a volume could not be made, and goes when it was read', async () => {
      const { admin, user } = world();
      // Without a version this client checks what the server could speak, and then asks in 3.0, which has no messages.
      expect(await user.refused('volume message list')).toContain('404');
      const reader = user.in('3.71');
      await admin.ok('volume type create --property storage_protocol=carrier-pigeon impossible');
      await user.ok('volume create --size 1 --type impossible hopeless');
      const volume = await user.settled('volume show hopeless');
      expect(volume).toMatchObject({ status: 'error' });
      const rows = await reader.list('volume message list');
      const found = rows.find((row) => row['Resource UUID'] === volume['id']);
      expect(found).toMatchObject({
        'Resource Type': 'VOLUME',
        'Message Level': 'ERROR',
        'Event ID': expect.stringMatching(/^VOLUME_VOLUME_\d{3}_\d{3}$/),
        'User Message': expect.stringMatching(/\S/),
        'Request ID': expect.stringMatching(/^req-/),
        'Guaranteed Until': expect.any(String),
      });
      // It looks for one message below the key of many: of one it shows no more than the id it asked for.
      expect(await reader.show(`volume message show ${found?.['ID']}`)).toMatchObject({ ID: found?.['ID'] });
      await admin.in('3.71').ok(`volume message delete ${found?.['ID']}`);
      expect(await reader.refused(`volume message show ${found?.['ID']}`)).toMatch(/404|not/i);
      await user.ok('volume delete hopeless');
      await user.gone('volume show hopeless');
      await admin.ok('volume type delete impossible');
    });
  });
};
