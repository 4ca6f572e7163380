/**
 * Runs accepted work to its end: at once when it is accepted, and again at every start until it has ended. Tasks that
 * touch the same object run in the order of their acceptance; a task's last commit removes its row and ends the status
 * of its object together. It knows no kind of task; those are in `tasks/`.
 */
import { Failure } from '../base/errors.ts';
import type { TaskRow, Writer } from '../catalog/schema.ts';
import { forgetOldFailures, insertTask, removeTask, unfinishedTasks, updateTask } from '../catalog/tasks.ts';
import type { Control } from './control.ts';
import type { Caller } from './policy.ts';
import type { Locks, TaskKind } from './tasks/kind.ts';
import { KINDS, type TaskArgs, type TaskKindName } from './tasks/kinds.ts';

/** Tasks that work at the same time. Each is a handful of calls into the backend, which orders its own commits. */
const TASKS_AT_ONCE_MAX = 32;
/** Of those that move the bytes of whole volumes; each takes some 150 MiB of memory meanwhile. */
const LONG_TASKS_AT_ONCE_MAX = 2;
/** A task that was under way at that many crashes is taken to be their cause. */
const ATTEMPTS_MAX = 10;
/** Waits between tries of a last commit that the catalog refused (its disk is full, say). */
const COMMIT_RETRY_MS = [100, 500, 2000, 5000] as const;

export type Task = { readonly row: TaskRow; readonly kind: TaskKind; readonly args: unknown };

export class Tasks {
  readonly #control: Control;
  readonly #pause: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly #stop = new AbortController();
  readonly #running = new Set<Promise<void>>();
  readonly #order = new Order();
  readonly #slots = new Slots(TASKS_AT_ONCE_MAX);
  readonly #longSlots = new Slots(LONG_TASKS_AT_ONCE_MAX);

  constructor(control: Control, pause: (ms: number, signal: AbortSignal) => Promise<void>) {
    this.#control = control;
    this.#pause = pause;
  }

  /** Part of the write that accepts the work. The task begins with `start`, after that write. */
  async accept<Name extends TaskKindName>(
    writer: Writer,
    order: { kind: Name; subject: string; args: TaskArgs[Name]; caller?: Caller },
  ): Promise<Task> {
    const nowUs = this.#control.nowUs();
    const row: TaskRow = {
      id: this.#control.newId(),
      kind: order.kind,
      args: JSON.stringify(order.args),
      cursor: null,
      attempts: 1,
      state: 'running',
      failure: null,
      subject: order.subject,
      created_at: nowUs,
      updated_at: nowUs,
      request_id: order.caller?.requestId ?? null,
    };
    await insertTask(writer, row);
    return decode(row);
  }

  start(task: Task): void {
    if (this.#stop.signal.aborted) return;
    const { ready, done } = this.#order.enter(task.kind.locks(task.args));
    const work = this.#perform(task, ready).finally(() => {
      done();
      this.#running.delete(work);
    });
    this.#running.add(work);
    this.#control.metrics.tasksUnderWay.set(this.#running.size);
  }

  /** What an earlier run of the daemon left. */
  async load(): Promise<Task[]> {
    const { catalog, log } = this.#control;
    const rows = await unfinishedTasks(catalog.reader, null);
    const tasks: Task[] = [];
    for (const row of rows) {
      if (Object.hasOwn(KINDS, row.kind)) tasks.push(decode({ ...row, attempts: row.attempts + 1 }));
      else log.error({ task: row.id, kind: row.kind }, 'a task of an unknown kind is left alone');
    }
    if (rows.length === 0) return tasks;
    const nowUs = this.#control.nowUs();
    await catalog.write(async (writer) => {
      await forgetOldFailures(writer);
      for (const { row } of tasks) await updateTask(writer, row.id, { attempts: row.attempts, updated_at: nowUs });
    });
    return tasks;
  }

  resume(tasks: readonly Task[]): void {
    if (tasks.length > 0) this.#control.log.info({ tasks: tasks.length }, 'going on with unfinished tasks');
    for (const task of tasks) this.start(task);
  }

  /** Resolves when nothing is under way. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }

  /** Nothing more is begun, and no failure is recorded from now on. */
  stop(): void {
    this.#stop.abort();
    this.#slots.wakeAll();
    this.#longSlots.wakeAll();
  }

  async close(): Promise<void> {
    this.stop();
    await this.idle();
  }

  async #perform(task: Task, ready: Promise<void>): Promise<void> {
    await ready;
    const slots = task.kind.isLong ? this.#longSlots : this.#slots;
    await slots.take();
    try {
      if (!this.#stop.signal.aborted) await this.#run(task);
    } catch (error) {
      // Not the task's failure, which #run records: what could not be recorded. The next start takes the task up.
      this.#control.log.error({ task: task.row.id, kind: task.row.kind, err: error }, 'a task could not be ended');
    } finally {
      slots.give();
    }
  }

  async #run(task: Task): Promise<void> {
    const { row, kind, args } = task;
    const failure = await this.#attempt(task);
    // What fails while everything stops may have failed for that reason: the next start tries again.
    if (failure !== null && this.#stop.signal.aborted) return;
    if (failure instanceof Failure && failure.code === 'shutting_down') return;
    const outcome = failure === null ? 'done' : 'failed';
    await this.#commit(async (writer) => {
      if (failure === null) {
        await kind.done(this.#control, writer, args);
        await removeTask(writer, row.id);
      } else {
        const code = failure instanceof Failure ? failure.code : null;
        await kind.failed(this.#control, writer, args, failure.message, row.request_id, code);
        const nowUs = this.#control.nowUs();
        await updateTask(writer, row.id, { state: 'failed', failure: failure.message, updated_at: nowUs });
      }
    });
    await kind.after(this.#control, args);
    const { metrics } = this.#control;
    metrics.tasksEnded.inc({ kind: row.kind, outcome });
    metrics.taskSeconds.observe({ kind: row.kind }, (this.#control.nowUs() - row.created_at) / 1e6);
    metrics.tasksUnderWay.set(this.#running.size - 1);
  }

  async #attempt({ row, kind, args }: Task): Promise<Error | null> {
    const { log } = this.#control;
    const fields = { task: row.id, kind: row.kind, subject: row.subject };
    if (row.attempts >= ATTEMPTS_MAX) {
      const reason = `the task was interrupted ${row.attempts} times`;
      log.error(fields, 'a task is given up');
      return new Failure('io_error', { reason });
    }
    try {
      await kind.run(this.#control, args);
      log.debug(fields, 'task done');
      return null;
    } catch (error) {
      if (error instanceof Failure) {
        log.warn({ ...fields, code: error.code, reason: error.message }, 'task failed');
        return error;
      }
      log.error({ ...fields, err: error }, 'task failed for a reason nobody thought of');
      return new Error('internal error; the log of the daemon says more');
    }
  }

  async #commit(change: (writer: Writer) => Promise<void>): Promise<void> {
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await this.#control.catalog.write(change);
      } catch (error) {
        if (this.#stop.signal.aborted) throw error;
        this.#control.log.error({ err: error }, 'the catalog refused the end of a task; trying again');
        await this.#pause(COMMIT_RETRY_MS[Math.min(attempt, COMMIT_RETRY_MS.length - 1)] ?? 0, this.#stop.signal);
      }
    }
  }
}

function decode(row: TaskRow): Task {
  const kind: TaskKind | undefined = (KINDS as Readonly<Record<string, TaskKind>>)[row.kind];
  if (kind === undefined) throw new Error(`no task kind ${row.kind}`);
  return { row, kind, args: kind.decode(JSON.parse(row.args)) };
}

/** So many at a time, the others in the order in which they came. */
class Slots {
  readonly #waiting: (() => void)[] = [];
  #free: number;

  constructor(count: number) {
    this.#free = count;
  }

  async take(): Promise<void> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  give(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free += 1;
    else next();
  }

  /** For those who look whether to begin at all. */
  wakeAll(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }
}

type Line = { lastWriter: Promise<void> | null; readers: Promise<void>[] };

/** Lines up tasks by the objects they touch. Everybody queues in one step, so there is no circle to wait in. */
class Order {
  readonly #lines = new Map<string, Line>();

  enter(locks: Locks): { ready: Promise<void>; done: () => void } {
    let end = (): void => {};
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    const before: (Promise<void> | null)[] = [];
    for (const id of locks.writes) {
      const line = this.#lines.get(id);
      if (line !== undefined) before.push(line.lastWriter, ...line.readers);
      this.#lines.set(id, { lastWriter: ended, readers: [] });
    }
    for (const id of locks.reads) {
      const line = this.#lines.get(id) ?? { lastWriter: null, readers: [] };
      before.push(line.lastWriter);
      line.readers.push(ended);
      this.#lines.set(id, line);
    }
    const done = (): void => {
      end();
      for (const id of [...locks.writes, ...locks.reads]) this.#leave(id, ended);
    };
    return { ready: Promise.all(before).then(() => undefined), done };
  }

  #leave(id: string, ended: Promise<void>): void {
    const line = this.#lines.get(id);
    if (line === undefined) return;
    if (line.lastWriter === ended) line.lastWriter = null;
    line.readers = line.readers.filter((reader) => reader !== ended);
    if (line.lastWriter === null && line.readers.length === 0) this.#lines.delete(id);
  }
}
