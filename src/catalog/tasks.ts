/**
 * Rows of tasks: work that was accepted and has not ended. A task that ended well has no row; one that failed keeps its
 * row for a while, for whoever asks why.
 */
import type { Reader, TaskRow, Writer } from './schema.ts';

/** Failed tasks that are kept. */
const FAILED_KEPT = 1000;

export async function insertTask(writer: Writer, row: TaskRow): Promise<void> {
  await writer.insertInto('tasks').values(row).execute();
}

export async function removeTask(writer: Writer, id: string): Promise<void> {
  await writer.deleteFrom('tasks').where('id', '=', id).execute();
}

export async function updateTask(
  writer: Writer,
  id: string,
  changes: Partial<Pick<TaskRow, 'cursor' | 'attempts' | 'state' | 'failure' | 'updated_at'>>,
): Promise<void> {
  await writer.updateTable('tasks').set(changes).where('id', '=', id).execute();
}

/** In the order in which they were accepted. */
export async function unfinishedTasks(reader: Reader, limit: number | null): Promise<TaskRow[]> {
  const query = reader.selectFrom('tasks').selectAll().where('state', '=', 'running').orderBy('created_at');
  return (limit === null ? query : query.limit(limit)).execute();
}

export async function forgetOldFailures(writer: Writer): Promise<void> {
  const oldest = await writer
    .selectFrom('tasks')
    .select('created_at')
    .where('state', '=', 'failed')
    .orderBy('created_at', 'desc')
    .limit(1)
    .offset(FAILED_KEPT)
    .executeTakeFirst();
  if (oldest === undefined) return;
  await writer.deleteFrom('tasks').where('state', '=', 'failed').where('created_at', '<=', oldest.created_at).execute();
}
