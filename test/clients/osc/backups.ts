/** Backups by the openstack command line: full, incremental, of a snapshot; back into a new volume and over an old one. */
import { describe, expect, it } from 'vitest';
import type { Suite } from './world.ts';

export const backups: Suite = (world) => {
  describe('volume backup', () => {
    it('create, show and list', async () => {
      const { user } = world();
      const volume = await user.show('volume create --size 1 precious');
      await user.settled('volume show precious');
      const made = await user.show(
        'volume backup create --name full --property kept=yes',
        '--description',
        'the first one',
        'precious',
      );
      expect(made).toMatchObject({ name: 'full', volume_id: volume['id'] });
      expect(await user.settled('volume backup show full')).toMatchObject({
        id: made['id'],
        status: 'available',
        size: 1,
        description: 'the first one',
        volume_id: volume['id'],
        is_incremental: false,
        has_dependent_backups: false,
        snapshot_id: null,
        fail_reason: null,
        metadata: { kept: 'yes' },
      });
      expect(await user.settled('volume show precious')).toMatchObject({ status: 'available' });
      const listed = { ID: made['id'], Name: 'full', Status: 'available', Size: 1, Incremental: false };
      expect(await user.list('volume backup list')).toMatchObject([listed]);
      const filters = '--long --name full --status available --volume precious';
      expect(await user.list(`volume backup list ${filters}`)).toMatchObject([{ ...listed, Volume: volume['id'] }]);
      expect(await user.list('volume backup list --status error')).toEqual([]);
    });

    it('an incremental one is complete in itself: nothing depends on the full one', async () => {
      const { user } = world();
      await user.ok('volume backup create --name later --incremental precious');
      expect(await user.settled('volume backup show later')).toMatchObject({
        status: 'available',
        is_incremental: true,
      });
      expect(await user.show('volume backup show full')).toMatchObject({ has_dependent_backups: false });
    });

    it('an incremental one without a full one is refused', async () => {
      const { user } = world();
      await user.ok('volume create --size 1 fresh');
      await user.settled('volume show fresh');
      expect(await user.refused('volume backup create --incremental fresh')).toMatch(
        /No backups available to do an incremental backup/,
      );
      await user.ok('volume delete fresh');
      await user.gone('volume show fresh');
    });

    it('one of a snapshot names it', async () => {
      const { user } = world();
      await user.ok('volume snapshot create --volume precious moment');
      const snapshot = await user.settled('volume snapshot show moment');
      await user.ok('volume backup create --name of-moment --snapshot moment precious');
      expect(await user.settled('volume backup show of-moment')).toMatchObject({
        status: 'available',
        snapshot_id: snapshot['id'],
      });
      expect(await user.settled('volume snapshot show moment')).toMatchObject({ status: 'available' });
    });

    it('set and unset change names, descriptions and properties', async () => {
      const { user } = world();
      await user.ok('volume backup set --name renamed --description new --property more=1 later');
      expect(await user.show('volume backup show renamed')).toMatchObject({
        description: 'new',
        metadata: { more: '1' },
      });
      await user.ok('volume backup unset --property more renamed');
      expect(await user.show('volume backup show renamed')).toMatchObject({ metadata: {} });
      await user.ok('volume backup set --name later renamed');
    });

    it('set --state is an administrator who forces a status', async () => {
      const { user, admin } = world();
      const { id } = await user.show('volume backup show later');
      await admin.ok(`volume backup set --state error ${id}`);
      expect(await user.show('volume backup show later')).toMatchObject({ status: 'error' });
      expect(await user.refused('volume backup restore later nowhere')).toMatch(/400|available/);
      await admin.ok(`volume backup set --state available ${id}`);
    });

    it('restore makes a new volume, or overwrites one by --force', async () => {
      const { user } = world();
      const backup = await user.show('volume backup show later');
      const restored = await user.show('volume backup restore later back');
      const volume = await user.settled('volume show', String(restored['volume_id']));
      expect(volume).toMatchObject({ name: 'back', size: 1, status: 'available' });
      expect(await user.refused('volume backup restore later back')).toContain('--force');
      await user.settled('volume backup show later');
      expect(await user.show('volume backup restore --force later back')).toMatchObject({
        id: backup['id'],
        volume_id: volume['id'],
      });
      expect(await user.settled('volume show back')).toMatchObject({ status: 'available' });
      expect(await user.settled('volume backup show later')).toMatchObject({ status: 'available' });
    });

    it('a volume can be made of one', async () => {
      const { user } = world();
      const backup = await user.show('volume backup show full');
      await user.ok('volume create --backup full --size 2 grown');
      expect(await user.settled('volume show grown')).toMatchObject({
        status: 'available',
        size: 2,
        properties: { src_backup_id: backup['id'] },
      });
      await user.settled('volume backup show full');
    });

    it('its record leaves, and is not taken in twice', async () => {
      const { user, admin, daemon, projectId, headers } = world();
      const backup = await user.show('volume backup show of-moment');
      const record = await admin.show(`volume backup record export ${backup['id']}`);
      expect(record).toEqual({ backup_service: expect.any(String), backup_url: expect.any(String) });
      const again = `volume backup record import ${record['backup_service']} ${record['backup_url']}`;
      // This client sends what it imports to the address of exports.
      expect(await admin.refused(again)).toContain('404');
      const path = `/v3/${projectId}/backups/import_record`;
      const reply = await daemon.request('POST', path, { 'backup-record': record }, headers);
      expect(reply.status).toBe(400);
    });

    it('delete takes them in any order, and the volume may be gone before', async () => {
      const { user } = world();
      for (const name of ['back', 'grown']) await user.ok(`volume delete ${name}`);
      await user.ok('volume delete --cascade precious');
      for (const name of ['back', 'grown', 'precious']) await user.gone(`volume show ${name}`);
      expect(await user.show('volume backup show full')).toMatchObject({ status: 'available' });
      await user.ok('volume backup delete full');
      await user.gone('volume backup show full');
      const restored = await user.show('volume backup restore later again');
      expect(await user.settled('volume show', String(restored['volume_id']))).toMatchObject({ status: 'available' });
      await user.settled('volume backup show later');
      await user.ok('volume delete again');
      await user.gone('volume show again');
      for (const name of ['later', 'of-moment']) {
        await user.ok(`volume backup delete ${name}`);
        await user.gone(`volume backup show ${name}`);
      }
      expect(await user.list('volume backup list')).toEqual([]);
    });
  });
};
