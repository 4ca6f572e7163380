/**
 * The catalog as control sees it: reads of what is committed, and writes that are atomic and share commits. It knows no
 * table and no database: `sqlite.ts` opens one, another dialect would give the same two handles.
 */
import { sql } from 'kysely';
import type { Reader, Writer } from './schema.ts';

/** Writes that share one commit at most. */
const WRITES_PER_COMMIT_MAX = 256;

export interface Catalog {
  /** The committed state. Does not wait for writes under way. */
  readonly reader: Reader;
  /**
   * Runs a change atomically and resolves when it is durable. Writes run one after the other, so what a change reads
   * cannot change before it commits; therefore it awaits nothing but the writer. Writes asked for together share a
   * commit, each behind its own savepoint: one that throws undoes itself alone.
   */
  write<T>(change: (writer: Writer) => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

type Waiting = {
  readonly change: (writer: Writer) => Promise<unknown>;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
};

export class SharedCommitCatalog implements Catalog {
  readonly reader: Reader;
  readonly #writer: Reader;
  readonly #waiting: Waiting[] = [];
  #draining: Promise<void> | null = null;

  constructor(handles: { reader: Reader; writer: Reader }) {
    this.reader = handles.reader;
    this.#writer = handles.writer;
  }

  write<T>(change: (writer: Writer) => Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#waiting.push({ change, resolve: (value) => resolve(value as T), reject });
      this.#draining ??= this.#drain();
    });
  }

  async close(): Promise<void> {
    await this.#draining;
    await this.#writer.destroy();
    await this.reader.destroy();
  }

  async #drain(): Promise<void> {
    // One turn of the event loop: requests that arrived together join the first commit.
    await new Promise((resolve) => setImmediate(resolve));
    while (this.#waiting.length > 0) {
      await this.#commit(this.#waiting.splice(0, WRITES_PER_COMMIT_MAX));
    }
    this.#draining = null;
  }

  async #commit(batch: readonly Waiting[]): Promise<void> {
    const answers: (() => void)[] = [];
    try {
      await this.#writer.transaction().execute(async (writer) => {
        for (const waiting of batch) answers.push(await apart(writer, waiting));
      });
    } catch (error) {
      for (const waiting of batch) waiting.reject(error);
      return;
    }
    for (const answer of answers) answer();
  }
}

async function apart(writer: Writer, waiting: Waiting): Promise<() => void> {
  await sql`savepoint one_write`.execute(writer);
  try {
    const value = await waiting.change(writer);
    await sql`release savepoint one_write`.execute(writer);
    return () => waiting.resolve(value);
  } catch (error) {
    await sql`rollback to savepoint one_write`.execute(writer);
    await sql`release savepoint one_write`.execute(writer);
    return () => waiting.reject(error);
  }
}
