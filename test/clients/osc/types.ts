/** Volume types and QoS specs by the openstack command line: an administrator defines them, a tenant uses them. */
import { describe, expect, it } from 'vitest';
import type { Suite } from './world.ts';

export const types: Suite = (world) => {
  describe('volume type', () => {
    it('list names the default type from the first start', async () => {
      const { user } = world();
      expect(await user.list('volume type list')).toEqual([
        { ID: expect.any(String), Name: '__DEFAULT__', 'Is Public': true },
      ]);
      expect(await user.list('volume type list --default')).toMatchObject([{ Name: '__DEFAULT__' }]);
    });

    it('create, show and list', async () => {
      const { admin, user } = world();
      const made = await admin.show(
        'volume type create --property tier=gold',
        '--description',
        'the fast ones',
        'fast',
      );
      expect(made).toMatchObject({
        name: 'fast',
        description: 'the fast ones',
        is_public: true,
        properties: { tier: 'gold' },
      });
      expect(await admin.show('volume type show fast')).toMatchObject({ id: made['id'], properties: { tier: 'gold' } });
      expect(await user.show('volume type show fast')).toMatchObject({ id: made['id'], description: 'the fast ones' });
      const names = (await user.list('volume type list --long')).map((row) => row['Name']);
      expect(names).toContain('fast');
      expect(await admin.refused('volume type create fast')).toMatch(/409|exists/);
    });

    it('set changes names and properties, unset takes properties away', async () => {
      const { admin } = world();
      await admin.ok('volume type set --name faster --description quick --property a=1 --property b=2 fast');
      expect(await admin.show('volume type show faster')).toMatchObject({
        description: 'quick',
        properties: { tier: 'gold', a: '1', b: '2' },
      });
      await admin.ok('volume type unset --property tier --property a --property b faster');
      expect(await admin.show('volume type show faster')).toMatchObject({ properties: {} });
      await admin.ok('volume type set --name fast faster');
      expect(await admin.refused('volume type show faster')).toContain('faster');
    });

    it('list filters by a property', async () => {
      const { admin } = world();
      await admin.ok('volume type create --multiattach shared');
      expect(await admin.show('volume type show shared')).toMatchObject({ properties: { multiattach: '<is> True' } });
      await admin.ok('volume type delete shared');
      expect(await admin.refused('volume type show shared')).toContain('shared');
    });

    it('an encryption of a type is recorded, changed, shown and taken away', async () => {
      const { admin } = world();
      const options = '--encryption-provider luks --encryption-cipher aes-xts-plain64 --encryption-key-size 256';
      const made = await admin.show(`volume type create ${options} sealed`);
      const encryption = { provider: 'luks', cipher: 'aes-xts-plain64', key_size: 256, control_location: 'front-end' };
      expect(made).toMatchObject({ name: 'sealed', encryption });
      expect(await admin.show('volume type show --encryption-type sealed')).toMatchObject({ encryption });
      await admin.ok('volume type set --encryption-key-size 512 sealed');
      expect(await admin.show('volume type show --encryption-type sealed')).toMatchObject({
        encryption: { ...encryption, key_size: 512 },
      });
      await admin.ok('volume type unset --encryption-type sealed');
      expect(await admin.show('volume type show --encryption-type sealed')).toMatchObject({ encryption: {} });
      await admin.ok('volume type delete sealed');
    });

    it('a volume has the type it asked for, is counted by it, and keeps it from deletion', async () => {
      const { admin, user } = world();
      const { id } = await admin.show('volume type show fast');
      await user.ok('volume create --size 1 --type fast typed');
      expect(await user.settled('volume show typed')).toMatchObject({
        status: 'available',
        type: 'fast',
        volume_type_id: id,
      });
      expect(await admin.refused('volume type delete fast')).toContain('1 of 1 volume types failed to delete');
    });

    it('a type that the backend cannot serve makes a volume that ends in error, and a message says why', async () => {
      const { admin, user } = world();
      await admin.ok('volume type create --property storage_protocol=carrier-pigeon impossible');
      await user.ok('volume create --size 1 --type impossible hopeless');
      const volume = await user.settled('volume show hopeless');
      expect(volume).toMatchObject({ status: 'error' });
      await user.ok('volume delete hopeless');
      await user.gone('volume show hopeless');
      await admin.ok('volume type delete impossible');
    });
  });

  describe('volume qos', () => {
    it('create, show, list, set and unset', async () => {
      const { admin } = world();
      const made = await admin.show(
        'volume qos create --consumer front-end --property total_iops_sec=1000 --property note=x limits',
      );
      expect(made).toMatchObject({
        name: 'limits',
        consumer: 'front-end',
        properties: { total_iops_sec: '1000', note: 'x' },
      });
      await admin.ok('volume qos set --property total_iops_sec=2000 --property read_bytes_sec=1048576 limits');
      await admin.ok('volume qos unset --property note limits');
      expect(await admin.show('volume qos show limits')).toMatchObject({
        id: made['id'],
        properties: { total_iops_sec: '2000', read_bytes_sec: '1048576' },
      });
      expect((await admin.list('volume qos list')).map((row) => row['Name'])).toEqual(['limits']);
      expect(await admin.refused('volume qos create limits')).toMatch(/409|exists/);
      expect(await admin.refused('volume qos create --consumer nobody other')).not.toBe('');
    });

    it('associate and disassociate bind it to types', async () => {
      const { admin } = world();
      await admin.ok('volume qos associate limits fast');
      expect(await admin.show('volume qos show limits')).toMatchObject({ associations: ['fast'] });
      expect(await admin.list('volume qos list')).toMatchObject([{ Name: 'limits', Associations: ['fast'] }]);
      expect(await admin.refused('volume qos delete limits')).toContain('1 of 1 QoS specifications failed to delete');
      await admin.ok('volume qos disassociate --volume-type fast limits');
      expect((await admin.show('volume qos show limits'))['associations'] ?? []).toEqual([]);
      await admin.ok('volume qos associate limits fast');
      await admin.ok('volume qos disassociate --all limits');
      expect((await admin.show('volume qos show limits'))['associations'] ?? []).toEqual([]);
    });

    it('delete --force takes it away while it is bound', async () => {
      const { admin } = world();
      await admin.ok('volume qos associate limits fast');
      await admin.ok('volume qos delete --force limits');
      expect(await admin.refused('volume qos show limits')).toContain('limits');
    });

    it('the type goes when no volume bears it', async () => {
      const { admin, user } = world();
      await user.ok('volume delete typed');
      await user.gone('volume show typed');
      await admin.ok('volume type delete fast');
      expect((await user.list('volume type list')).map((row) => row['Name'])).toEqual(['__DEFAULT__']);
      expect(await admin.refused('volume type delete __DEFAULT__')).toContain('failed to delete');
    });
  });
};

export const retypes: Suite = (world) => {
  describe('volume set --type', () => {
    it('changes the type of a volume, but not to its own', async () => {
      const { admin, user } = world();
      for (const name of ['one', 'other']) await admin.ok(`volume type create ${name}`);
      await user.ok('volume create --size 1 --type one typed');
      await user.settled('volume show typed');
      await user.ok('volume set --type other typed');
      expect(await user.settled('volume show typed')).toMatchObject({ status: 'available', type: 'other' });
      expect(await user.refused('volume set --type other typed')).toMatch(/400|same/);
      expect(await user.refused('volume set --type no-such-type typed')).toContain('no-such-type');
      await user.ok('volume set --type one --migration-policy on-demand typed');
      expect(await user.settled('volume show typed')).toMatchObject({ type: 'one' });
      await user.ok('volume delete typed');
      await user.gone('volume show typed');
      for (const name of ['one', 'other']) await admin.ok(`volume type delete ${name}`);
    });
  });
};
