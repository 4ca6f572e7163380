/**
 * Giving a volume another type. Its data stay where they are, since there is one backend; what changes is what the type
 * says: limits, quota, whether it may be attached more than once.
 */
import { isDeepStrictEqual } from 'node:util';
import { Failure } from '../base/errors.ts';
import type { TypeRow, VolumeRow } from '../catalog/schema.ts';
import { updateVolume } from '../catalog/volumes.ts';
import type { Control } from './control.ts';
import { qosOf } from './limits.ts';
import { requireAllowed } from './placement.ts';
import type { Caller } from './policy.ts';
import { chargeType } from './quotas.ts';
import { begin, requireAction, visibleVolume } from './states.ts';
import { isMultiattach, requireUsableType } from './types.ts';

export type Retype = { readonly id: string; readonly type: string };

export async function retypeVolume(control: Control, caller: Caller, { id, type }: Retype): Promise<void> {
  const { reader } = control.catalog;
  await visibleVolume(reader, caller, id);
  const task = await control.turns.take(id, async () => {
    const volume = await visibleVolume(reader, caller, id);
    const wanted = await requireUsableType(reader, caller, type);
    await requireRetypable(control, volume, wanted);
    await requireAllowed(control, reader, { type: wanted, sizeGib: volume.size_gib });
    const multiattach = (await isMultiattach(reader, wanted)) ? 1 : 0;
    return control.catalog.write(async (writer) => {
      await begin(writer, { table: 'volumes', id, action: 'retype', nowUs: control.nowUs() });
      const charge = { projectId: volume.project_id, type: wanted, volumes: 1, gigabytes: volume.size_gib };
      await chargeType(control, writer, charge);
      // Counted as the new type from here on, so that the last free place cannot be promised twice.
      await updateVolume(writer, id, { type_id: wanted.id, multiattach });
      const args = { volumeId: id, fromTypeId: volume.type_id, fromMultiattach: volume.multiattach };
      return control.tasks.accept(writer, { kind: 'retype-volume', subject: id, args, caller });
    });
  });
  control.tasks.start(task);
}

async function requireRetypable(control: Control, volume: VolumeRow, wanted: TypeRow): Promise<void> {
  requireAction(volume, 'retype');
  if (volume.group_id !== null) {
    const reason = `Invalid volume: Volume ${volume.id} is in group ${volume.group_id}: its type cannot be changed there.`;
    throw new Failure('wrong_state', { reason });
  }
  if (wanted.id === volume.type_id) {
    const reason = `Invalid volume: New volume type must differ from the current one of volume ${volume.id}: ${wanted.name}.`;
    throw new Failure('wrong_state', { reason });
  }
  if (volume.status === 'available') return;
  const multiattach = (await isMultiattach(control.catalog.reader, wanted)) ? 1 : 0;
  if (multiattach !== volume.multiattach) {
    const reason =
      'Invalid input received: Invalid volume_type passed, retypes affecting multiattach are only allowed on available ' +
      `volumes, the specified volume however currently has a status of: ${volume.status}.`;
    throw new Failure('bad_request', { reason });
  }
  // Who attached it was told those and will not ask again.
  const now = (await qosOf(control, volume)).frontEnd;
  const then = (await qosOf(control, { ...volume, type_id: wanted.id })).frontEnd;
  if (isDeepStrictEqual(now, then)) return;
  const reason = `Invalid volume: For in-use volumes front-end qos specs cannot change: volume ${volume.id} to type ${wanted.name}.`;
  throw new Failure('wrong_state', { reason });
}
