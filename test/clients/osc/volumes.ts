/** Volumes and snapshots by the openstack command line: the commands a tenant uses every day. */
import { describe, expect, it } from 'vitest';
import type { Suite } from './world.ts';

export const volumes: Suite = (world) => {
  describe('volume', () => {
    it('create shows what was asked for, and the volume becomes available', async () => {
      const { user, projectId } = world();
      const made = await user.show(
        'volume create --size 2 --availability-zone nova --property tier=gold --property team=blue',
        '--description',
        'two words',
        'plain',
      );
      expect(made).toMatchObject({
        name: 'plain',
        size: 2,
        status: 'creating',
        description: 'two words',
        availability_zone: 'nova',
        properties: { tier: 'gold', team: 'blue' },
        type: '__DEFAULT__',
        bootable: false,
        encrypted: false,
        multiattach: false,
        snapshot_id: null,
        source_volid: null,
        attachments: [],
      });
      const shown = await user.settled('volume show', 'plain');
      expect(shown).toMatchObject({ id: made['id'], status: 'available', 'os-vol-tenant-attr:tenant_id': projectId });
      expect(shown['created_at']).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$/);
      expect(await user.show('volume show', String(made['id']))).toMatchObject({ name: 'plain' });
    });

    it('list finds it by name, by status and in full, and pages by a marker', async () => {
      const { user } = world();
      await user.ok('volume create --size 1 second');
      const second = await user.settled('volume show second');
      const all = await user.list('volume list');
      expect(all.map((row) => row['Name'])).toEqual(['second', 'plain']);
      expect(await user.list('volume list --name plain')).toEqual([
        { ID: expect.any(String), Name: 'plain', Status: 'available', Size: 2, 'Attached to': [] },
      ]);
      expect(await user.list('volume list --status error')).toEqual([]);
      const long = await user.list('volume list --long --name plain');
      expect(long[0]).toMatchObject({
        Type: '__DEFAULT__',
        Bootable: false,
        Properties: { tier: 'gold', team: 'blue' },
      });
      const page = await user.list(`volume list --limit 1 --marker ${second['id']}`);
      expect(page.map((row) => row['Name'])).toEqual(['plain']);
      expect(await user.refused('volume list --marker 00000000-0000-4000-8000-000000000000')).toMatch(/404|not/);
    });

    it('list filters by a property', async () => {
      const { user } = world();
      const rows = await user.list('volume list --property tier=gold');
      expect(rows.map((row) => row['Name'])).toEqual(['plain']);
      expect(await user.list('volume list --property tier=lead')).toEqual([]);
    });

    it('set renames, describes and adds properties; unset takes one away; --no-property takes all', async () => {
      const { user } = world();
      await user.ok('volume set --name renamed --property tier=silver --property extra=1 --description new plain');
      expect(await user.show('volume show renamed')).toMatchObject({
        description: 'new',
        properties: { tier: 'silver', team: 'blue', extra: '1' },
      });
      await user.ok('volume unset --property team renamed');
      expect(await user.show('volume show renamed')).toMatchObject({ properties: { tier: 'silver', extra: '1' } });
      await user.ok('volume set --no-property --property only=this renamed');
      expect(await user.show('volume show renamed')).toMatchObject({ properties: { only: 'this' } });
      await user.ok('volume set --name plain renamed');
      expect(await user.refused('volume show renamed')).toContain('renamed');
    });

    it('set --size grows it, and neither shrinks it nor leaves it as it is', async () => {
      const { user } = world();
      await user.ok('volume set --size 3 plain');
      expect(await user.settled('volume show plain')).toMatchObject({ size: 3, status: 'available' });
      expect(await user.refused('volume set --size 2 plain')).toContain('New size must be greater than 3 GB');
    });

    it('set marks it bootable and read-only, and back', async () => {
      const { user } = world();
      await user.ok('volume set --bootable --read-only plain');
      expect(await user.show('volume show plain')).toMatchObject({
        bootable: true,
        properties: { only: 'this', readonly: 'True' },
      });
      await user.ok('volume set --non-bootable --read-write plain');
      expect(await user.show('volume show plain')).toMatchObject({
        bootable: false,
        properties: { only: 'this', readonly: 'False' },
      });
    });

    it('set and unset --image-property change what an image would have said', async () => {
      const { user } = world();
      await user.ok('volume set --image-property os_type=linux --image-property min_disk=1 plain');
      expect(await user.show('volume show plain')).toMatchObject({
        volume_image_metadata: { os_type: 'linux', min_disk: '1' },
      });
      await user.ok('volume unset --image-property min_disk plain');
      expect(await user.show('volume show plain')).toMatchObject({ volume_image_metadata: { os_type: 'linux' } });
      expect(await user.refused('volume unset --image-property min_disk plain')).toContain('min_disk');
      await user.ok('volume unset --image-property os_type plain');
    });

    it('set --state is an administrator who forces a status', async () => {
      const { user, admin } = world();
      const { id } = await user.show('volume show plain');
      await admin.ok(`volume set --state error ${id}`);
      expect(await user.show('volume show plain')).toMatchObject({ status: 'error' });
      expect(await user.refused('volume snapshot create --volume plain of-broken')).toContain('error');
      await admin.ok(`volume set --state available ${id}`);
      await admin.ok(`volume set --detached ${id}`);
      expect(await admin.refused(`volume set --state nonsense ${id}`)).toContain('nonsense');
    });

    it('create clones a volume, and grows the clone when asked', async () => {
      const { user } = world();
      const source = await user.show('volume show plain');
      await user.ok('volume create --source plain clone');
      expect(await user.settled('volume show clone')).toMatchObject({ size: 3, source_volid: source['id'] });
      await user.ok('volume create --source plain --size 5 larger');
      expect(await user.settled('volume show larger')).toMatchObject({ size: 5, status: 'available' });
      await user.ok('volume delete clone larger');
      await user.gone('volume show clone');
      await user.gone('volume show larger');
    });

    it('create refuses what cannot be made, and makes nothing', async () => {
      const { user } = world();
      expect(await user.refused('volume create no-size')).toContain('--size');
      expect(await user.refused('volume create --size 1 --type no-such-type x')).toContain('no-such-type');
      expect(await user.refused('volume create --size 1 --availability-zone mars x')).toContain('mars');
      expect(await user.refused('volume create --size 0 x')).not.toBe('');
      expect(await user.refused('volume create --source no-such-volume x')).toContain('no-such-volume');
      expect((await user.list('volume list')).map((row) => row['Name'])).toEqual(['second', 'plain']);
    });

    it('create takes hints and a negated flag without complaint', async () => {
      const { user } = world();
      const command = 'volume create --size 1 --non-bootable --read-write --hint different_host=a hinted';
      expect(await user.show(command)).toMatchObject({ name: 'hinted' });
      await user.settled('volume show hinted');
      await user.ok('volume delete hinted');
      await user.gone('volume show hinted');
    });

    it('summary counts volumes and sizes, and collects metadata', async () => {
      const { user } = world();
      expect(await user.show('volume summary')).toEqual({
        'Total Count': 2,
        'Total Size': 4,
        Metadata: { only: ['this'] },
      });
    });

    it('names that two volumes bear are refused as ambiguous, and their ids are not', async () => {
      const { user } = world();
      const twin = await user.show('volume create --size 1 second');
      await user.settled('volume show', String(twin['id']));
      expect(await user.refused('volume show second')).toMatch(/more than one|multiple/i);
      await user.ok(`volume delete ${twin['id']}`);
      await user.gone(`volume show ${twin['id']}`);
    });

    it('migrate is refused: there is one backend', async () => {
      const { user, admin } = world();
      const { id } = await user.show('volume show plain');
      const reason = await admin.refused(`volume migrate --host other@backend#pool ${id}`);
      expect(reason).toMatch(/400|404/);
      expect(await user.show('volume show plain')).toMatchObject({ status: 'available' });
    });
  });

  describe('volume snapshot', () => {
    it('create, show and list', async () => {
      const { user } = world();
      const volume = await user.show('volume show plain');
      const made = await user.show(
        'volume snapshot create --volume plain --property kind=daily',
        '--description',
        'before the change',
        'first',
      );
      expect(made).toMatchObject({
        name: 'first',
        description: 'before the change',
        size: 3,
        volume_id: volume['id'],
        properties: { kind: 'daily' },
      });
      expect(await user.settled('volume snapshot show first')).toMatchObject({ id: made['id'], status: 'available' });
      expect(await user.list('volume snapshot list')).toEqual([
        { ID: made['id'], Name: 'first', Description: 'before the change', Status: 'available', Size: 3 },
      ]);
      const long = await user.list('volume snapshot list --long --volume plain --name first --status available');
      expect(long[0]).toMatchObject({ Volume: volume['id'], Properties: { kind: 'daily' } });
      expect(await user.list('volume snapshot list --volume second')).toEqual([]);
    });

    it('set and unset change name, description and properties', async () => {
      const { user } = world();
      await user.ok('volume snapshot set --name renamed --description now --property a=1 first');
      expect(await user.show('volume snapshot show renamed')).toMatchObject({
        description: 'now',
        properties: { kind: 'daily', a: '1' },
      });
      await user.ok('volume snapshot unset --property kind renamed');
      expect(await user.show('volume snapshot show renamed')).toMatchObject({ properties: { a: '1' } });
      await user.ok('volume snapshot set --no-property --name first renamed');
      expect(await user.show('volume snapshot show first')).toMatchObject({ properties: {} });
    });

    it('set --state is an administrator who forces a status', async () => {
      const { user, admin } = world();
      const { id } = await user.show('volume snapshot show first');
      await admin.ok(`volume snapshot set --state error ${id}`);
      expect(await user.show('volume snapshot show first')).toMatchObject({ status: 'error' });
      expect(await user.refused('volume create --snapshot first of-broken')).toMatch(/400|error|available/);
      await admin.ok(`volume snapshot set --state available ${id}`);
    });

    it('a volume made of a snapshot has its size, and outlives it', async () => {
      const { user } = world();
      const snapshot = await user.show('volume snapshot show first');
      await user.ok('volume create --snapshot first restored');
      expect(await user.settled('volume show restored')).toMatchObject({
        size: 3,
        snapshot_id: snapshot['id'],
        status: 'available',
      });
      await user.ok('volume snapshot delete first');
      await user.gone('volume snapshot show first');
      expect(await user.show('volume show restored')).toMatchObject({ snapshot_id: snapshot['id'] });
      await user.ok('volume delete restored');
      await user.gone('volume show restored');
    });

    it('revert puts a volume back to its newest snapshot, and not to an older one', async () => {
      const { user } = world();
      await user.ok('volume snapshot create --volume plain old');
      await user.settled('volume snapshot show old');
      await user.ok('volume snapshot create --volume plain new');
      await user.settled('volume snapshot show new');
      await user.ok('volume revert new');
      expect(await user.settled('volume show plain')).toMatchObject({ status: 'available' });
      expect(await user.refused('volume revert old')).toMatch(/400|latest|newest/);
    });

    it('a volume with snapshots is not deleted without --cascade', async () => {
      const { user } = world();
      expect(await user.refused('volume delete plain')).toMatch(/snapshot/);
      await user.ok('volume delete --cascade plain');
      await user.gone('volume show plain');
      expect(await user.list('volume snapshot list')).toEqual([]);
    });

    it('delete --force is an administrator, in any status', async () => {
      const { user, admin } = world();
      await user.ok('volume snapshot create --volume second stuck');
      const { id } = await user.settled('volume snapshot show stuck');
      await admin.ok(`volume snapshot set --state deleting ${id}`);
      expect(await user.refused('volume snapshot delete stuck')).toMatch(/deleting|400/);
      await admin.ok(`volume snapshot delete --force ${id}`);
      await user.gone(`volume snapshot show ${id}`);
    });

    it('delete reports each that is not there, and deletes the others', async () => {
      const { user } = world();
      await user.ok('volume snapshot create --volume second there');
      await user.settled('volume snapshot show there');
      const reason = await user.refused('volume snapshot delete not-there there');
      expect(reason).toContain('1 of 2 snapshots failed to delete');
      await user.gone('volume snapshot show there');
      expect(await user.refused('volume delete not-there second')).toContain('1 of 2 volumes failed to delete');
      await user.gone('volume show second');
      expect(await user.list('volume list')).toEqual([]);
    });

    it('delete --force of a volume is an administrator, in any status', async () => {
      const { user, admin } = world();
      const { id } = await user.show('volume create --size 1 stuck');
      await user.settled('volume show stuck');
      await admin.ok(`volume set --state maintenance ${id}`);
      expect(await user.refused('volume delete stuck')).toMatch(/400/);
      await admin.ok(`volume delete --force ${id}`);
      await user.gone(`volume show ${id}`);
    });
  });
};
