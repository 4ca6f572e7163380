/**
 * Volume actions that only an installation with several backends, or with drivers elsewhere, could carry out: each checks
 * what it is asked and says why nothing comes of it.
 */
import { migrateVolume } from '../../control/volume-actions.ts';
import { getVolume } from '../../control/volumes.ts';
import { type Action, action } from '../actions.ts';
import { badRequest } from '../faults.ts';
import { ATTACH_ACTION } from '../schemas/attachments.ts';
import { ACTION, idOf } from '../schemas.ts';

const CLUSTERS_SINCE = 16;

/** `here` is the only backend, as `host@backend#pool`. */
export function placementActions(here: string): (readonly [string, Action])[] {
  return [
    [
      'os-migrate_volume',
      action(
        ATTACH_ACTION.migrate,
        ({ control, asked, id, value }) => {
          const host = value.host ?? '';
          const cluster = value.cluster ?? '';
          if (cluster !== '' && asked.minor < CLUSTERS_SINCE)
            throw badRequest("Additional properties are not allowed ('cluster' was unexpected)");
          if ((host === '') === (cluster === ''))
            throw badRequest('Invalid input received: One and only one of cluster and host must be set.');
          return migrateVolume(control, asked.caller, { id, host: host === '' ? cluster : host, here });
        },
        { rule: 'volume_extension:volume_admin_actions:migrate_volume' },
      ),
    ],
    [
      'os-migrate_volume_completion',
      action(
        ATTACH_ACTION.migrated,
        async ({ control, asked, id, value }) => {
          await getVolume(control, asked.caller, id);
          await getVolume(control, asked.caller, idOf(value.new_volume));
          throw badRequest('Invalid volume: Source volume not mid-migration.');
        },
        { rule: 'volume_extension:volume_admin_actions:migrate_volume_completion' },
      ),
    ],
    [
      'os-extend_volume_completion',
      action(
        ATTACH_ACTION.extended,
        async ({ control, asked, id }) => {
          const { row } = await getVolume(control, asked.caller, id);
          // Extensions here end by themselves: there is never one that waits for this call.
          const why = row.status === 'extending' ? 'is extended by the service itself' : 'is not being extended';
          throw badRequest(`Invalid volume: Volume ${id} ${why}.`);
        },
        { rule: 'volume_extension:volume_admin_actions:extend_volume_completion' },
      ),
    ],
    [
      'os-unmanage',
      action(
        ACTION.nothing,
        async ({ control, asked, id }) => {
          await getVolume(control, asked.caller, id);
          throw badRequest(`Invalid volume: Volume ${id} cannot be unmanaged: nothing else could hold it.`);
        },
        { rule: 'volume_extension:volume_unmanage' },
      ),
    ],
  ];
}
