/**
 * The statements that write a status: compare and set. `control/states.ts` is their only caller.
 */
import type { BackupRow, GroupRow, GroupSnapshotRow, Reader, SnapshotRow, VolumeRow, Writer } from './schema.ts';

export type StatusChange = {
  readonly id: string;
  /** Null: whatever it is. */
  readonly from: readonly string[] | null;
  readonly to: string;
  /** What `previous_status` becomes: the status before, nothing, or what it is. */
  readonly previous: 'remember' | 'forget' | 'keep';
  readonly nowUs: number;
};

type Rows = {
  volumes: VolumeRow;
  snapshots: SnapshotRow;
  groups: GroupRow;
  group_snapshots: GroupSnapshotRow;
  backups: BackupRow;
};

/** The row as changed; nothing when it is gone or in another status. */
export async function changeStatus<Table extends keyof Rows>(
  writer: Writer,
  table: Table,
  change: StatusChange,
): Promise<Rows[Table] | undefined> {
  let query = writer
    .updateTable(table as 'volumes')
    .set((row) => ({
      status: change.to,
      updated_at: change.nowUs,
      ...(change.previous === 'remember' && { previous_status: row.ref('status') }),
      ...(change.previous === 'forget' && { previous_status: null }),
    }))
    .where('id', '=', change.id);
  if (change.from !== null) query = query.where('status', 'in', change.from);
  const row: unknown = await query.returningAll().executeTakeFirst();
  return row as Rows[Table] | undefined;
}

/** For a volume whose work under way ends in its status before, when that is no longer what it would be. */
export async function changePreviousStatus(
  writer: Writer,
  { id, from, to }: { id: string; from: readonly string[]; to: string },
): Promise<void> {
  await writer
    .updateTable('volumes')
    .set({ previous_status: to })
    .where('id', '=', id)
    .where('previous_status', 'in', from)
    .execute();
}

export async function statusOf(
  reader: Reader,
  table: keyof Rows,
  id: string,
): Promise<{ status: string; previous_status: string | null } | undefined> {
  return reader
    .selectFrom(table as 'volumes')
    .select(['status', 'previous_status'])
    .where('id', '=', id)
    .executeTakeFirst();
}
