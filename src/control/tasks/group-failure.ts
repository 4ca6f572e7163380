/** How work on a group, or on a snapshot of one, ends when it failed: for all its parts, and with one message for the user. */
import { updateGroup, updateGroupSnapshot } from '../../catalog/groups.ts';
import type { Writer } from '../../catalog/schema.ts';
import { updateSnapshot } from '../../catalog/snapshots.ts';
import { updateVolume } from '../../catalog/volumes.ts';
import type { Control } from '../control.ts';
import { type MessageDetail, noteFailure } from '../messages.ts';
import { finish } from '../states.ts';

const WHOLES = {
  groups: { parts: 'volumes', updatePart: updateVolume, update: updateGroup, resource: 'VOLUME_GROUP', noun: 'group' },
  group_snapshots: {
    parts: 'snapshots',
    updatePart: updateSnapshot,
    update: updateGroupSnapshot,
    resource: 'VOLUME_GROUP_SNAPSHOT',
    noun: 'group_snapshot',
  },
} as const;

export type GroupFailure = {
  readonly table: keyof typeof WHOLES;
  readonly id: string;
  /** Of its volumes or snapshots; those that are gone already are passed over. */
  readonly partIds: readonly string[];
  readonly action: 'create' | 'delete';
  readonly detail: MessageDetail;
  readonly reason: string;
  readonly requestId: string | null;
};

export async function failGroup(control: Control, writer: Writer, failure: GroupFailure): Promise<void> {
  const { table, id, partIds, action, detail, reason, requestId } = failure;
  const { parts, updatePart, update, resource, noun } = WHOLES[table];
  const nowUs = control.nowUs();
  for (const partId of partIds) {
    await finish(writer, { table: parts, id: partId, action, nowUs, outcome: 'failed' });
    await updatePart(writer, partId, { failure: reason });
  }
  await finish(writer, { table, id, action, nowUs, outcome: 'failed' });
  const row = await update(writer, id, { failure: reason });
  if (row === undefined) return;
  await noteFailure(control, writer, {
    projectId: row.project_id,
    resource,
    resourceId: id,
    action: `${action}_${noun}`,
    detail,
    requestId,
  });
}
