/**
 * Attachments by the openstack command line. Its `create` looks the server up in a compute service, which is not here: that
 * one call is made over HTTP, as the compute service itself makes it.
 */
import { describe, expect, it } from 'vitest';
import type { Suite } from './world.ts';

const SERVER = '5e12e12e-0000-4000-8000-5e12e12e5e12';

export const attachments: Suite = (world) => {
  let attachmentId = '';

  describe('volume attachment', () => {
    it('list and show what another service reserved', async () => {
      const { user, daemon, projectId, headers } = world();
      const volume = await user.show('volume create --size 1 disk');
      await user.settled('volume show disk');
      const reply = await daemon.request(
        'POST',
        `/v3/${projectId}/attachments`,
        { attachment: { volume_uuid: volume['id'], instance_uuid: SERVER } },
        { ...headers, 'openstack-api-version': 'volume 3.71' },
      );
      expect(reply.status).toBe(200);
      const { attachment } = reply.body as { attachment: { id: string } };
      attachmentId = attachment.id;
      const listed = { ID: attachmentId, 'Volume ID': volume['id'], 'Server ID': SERVER, Status: 'reserved' };
      expect(await user.list('volume attachment list')).toEqual([listed]);
      expect(await user.list(`volume attachment list --volume-id ${volume['id']} --status reserved`)).toEqual([listed]);
      expect(await user.list('volume attachment list --status attached')).toEqual([]);
      expect(await user.show(`volume attachment show ${attachmentId}`)).toMatchObject({
        ID: attachmentId,
        'Volume ID': volume['id'],
        'Instance ID': SERVER,
        Status: 'reserved',
        Properties: {},
      });
      expect(await user.show('volume show disk')).toMatchObject({ status: 'reserved' });
      expect(await user.refused('volume delete disk')).toMatch(/400|reserved/);
    });

    it('set gives the connector, and gets what to connect to', async () => {
      const { user } = world();
      const connector =
        '--host compute-1 --ip 127.0.0.1 --initiator iqn.1993-08.org.debian:01:abc --mountpoint /dev/vdb';
      const shown = await user.show(`volume attachment set ${connector} ${attachmentId}`);
      expect(shown['Properties']).toMatchObject({ driver_volume_type: 'nbd', access_mode: 'rw' });
      expect(await user.show('volume show disk')).toMatchObject({ status: 'attaching' });
    });

    it('complete makes the volume in use, as a list and a show tell', async () => {
      const { user } = world();
      await user.ok(`volume attachment complete ${attachmentId}`);
      expect(await user.show(`volume attachment show ${attachmentId}`)).toMatchObject({
        Status: 'attached',
        'Attach Mode': 'rw',
      });
      const volume = await user.show('volume show disk');
      expect(volume).toMatchObject({ status: 'in-use' });
      expect(volume['attachments']).toMatchObject([{ attachment_id: attachmentId, server_id: SERVER }]);
      expect(await user.list('volume list --name disk')).toMatchObject([
        { Status: 'in-use', 'Attached to': [{ attachment_id: attachmentId, server_id: SERVER }] },
      ]);
    });

    it('a volume in use is not deleted, but grows', async () => {
      const { user } = world();
      expect(await user.refused('volume delete disk')).toMatch(/400/);
      await user.ok('volume set --size 2 disk');
      expect(await user.settled('volume show disk')).toMatchObject({ status: 'in-use', size: 2 });
    });

    // This client leaves force away, as from 3.66 on, but asks in 3.65, where it is needed: Cinder refuses the same.
    it('a volume in use is not snapshotted by the version that this client asks in', async () => {
      const { user } = world();
      expect(await user.refused('volume snapshot create --volume disk running')).toMatch(/400.*in-use/);
      expect(await user.list('volume snapshot list')).toEqual([]);
    });

    it('delete ends it, and the volume is available', async () => {
      const { user } = world();
      await user.ok(`volume attachment delete ${attachmentId}`);
      expect(await user.list('volume attachment list')).toEqual([]);
      expect(await user.refused(`volume attachment show ${attachmentId}`)).toMatch(/404|not/i);
      expect(await user.settled('volume show disk')).toMatchObject({ status: 'available', attachments: [] });
      await user.ok('volume delete disk');
      await user.gone('volume show disk');
    });
  });
};
