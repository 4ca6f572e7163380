/**
 * One volume that is served while it is filled from a backup: the work in the background, which goes on until all is there,
 * whatever the store does meanwhile; and what clients wait for, which comes first or fails when its time is over. What has come
 * is known by the volume itself, so this begins anywhere, as often as it has to.
 */
import { Filler } from '../backup/fill.ts';
import { keysOf } from '../backup/restore.ts';
import { Failure } from '../base/errors.ts';
import { removeFill, updateFill } from '../catalog/fills.ts';
import type { FillRow } from '../catalog/schema.ts';
import type { Manifest } from '../format/backup-manifest.ts';
import type { Control } from './control.ts';

/** Between tries, as long as the store or the disk does not do its part. */
const RETRY_MS = [500, 1000, 2000, 5000] as const;
/** Damage is looked at again: the store may have been mended. */
const DAMAGED_RETRY_MS = 60_000;

export type FillingOptions = {
  readonly row: FillRow;
  /** Clients that need what cannot be had get an error after so long. */
  readonly waitMs: number;
  readonly pause: (ms: number, signal: AbortSignal) => Promise<void>;
  /** Runs the background work when it is its turn. */
  readonly inTurn: <T>(work: () => Promise<T>) => Promise<T>;
};

export type FillProgress = {
  readonly backupId: string;
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** Why it does not get on at the moment. */
  readonly failure: string | null;
};

export class Filling {
  readonly #control: Control;
  readonly #options: FillingOptions;
  readonly #stop = new AbortController();
  readonly #waiting = new Set<() => void>();
  readonly #wants = new Map<number, Promise<void>>();
  #filler: Filler | null = null;
  #manifest: Manifest | null = null;
  #doneBytes = 0;
  #failure: string | null;
  readonly #ended: Promise<void>;

  constructor(control: Control, options: FillingOptions, onFilled: () => void) {
    this.#control = control;
    this.#options = options;
    this.#failure = options.row.failure;
    this.#ended = this.#work(onFilled);
  }

  get progress(): FillProgress {
    const { backup_id: backupId, total_bytes: totalBytes } = this.#options.row;
    return { backupId, totalBytes, doneBytes: this.#doneBytes, failure: this.#failure };
  }

  /** Nothing is written any more when it returns; clients that wait get an error. The store is not waited for. */
  async stop(): Promise<void> {
    this.#stop.abort();
    this.#wakeAll();
    await this.#ended;
    await Promise.all(this.#wants.values());
  }

  /** Clients wait for what is there. */
  want(offset: number): void {
    if (this.#wants.has(offset)) return;
    const work = this.#bring(offset).finally(() => this.#wants.delete(offset));
    this.#wants.set(offset, work);
  }

  async #work(onFilled: () => void): Promise<void> {
    const { signal } = this.#stop;
    for (let attempt = 0; !signal.aborted; attempt += 1) {
      try {
        await this.#attempt(() => {
          attempt = 0;
        });
        if (!signal.aborted) onFilled();
        return;
      } catch (error) {
        if (signal.aborted) return;
        await this.#note(error);
      } finally {
        this.#filler = null;
      }
      await this.#options.pause(RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)] ?? 0, signal);
    }
  }

  async #attempt(onOpen: () => void): Promise<void> {
    const { backend, backups } = this.#control;
    const { volume_id: volumeId, backup_id: backupId, source_volume_id: sourceId } = this.#options.row;
    const repository = await backups.repository();
    this.#manifest ??= await backups.manifest({ volumeId: sourceId, backupId });
    const manifest = this.#manifest;
    const keys = await keysOf(repository, manifest);
    const mapped = await backend.map(volumeId);
    await backups.data.fill(volumeId, async (target) => {
      const filler = new Filler(repository, {
        manifest,
        keys,
        target,
        mapped,
        narrow: (ranges) => backend.narrowFill({ id: volumeId, ranges }),
        signal: this.#stop.signal,
        onProgress: (doneBytes) => {
          this.#doneBytes = doneBytes;
        },
      });
      this.#filler = filler;
      this.#wakeAll();
      onOpen();
      while (!(await this.#unlessStopped(this.#pass(filler))))
        await this.#unlessStopped(this.#options.pause(DAMAGED_RETRY_MS, this.#stop.signal));
      await this.#complete();
    });
  }

  /** False: something is damaged. */
  async #pass(filler: Filler): Promise<boolean> {
    const damaged = await this.#options.inTurn(() => filler.run());
    const [first] = damaged.values();
    await this.#note(first ?? null);
    return first === undefined;
  }

  /** The row first: a fill that is begun again after clients made holes would undo them. */
  async #complete(): Promise<void> {
    const { backend, catalog, log } = this.#control;
    const { volume_id: volumeId, backup_id: backupId } = this.#options.row;
    await catalog.write((writer) => removeFill(writer, volumeId));
    await backend.endFill(volumeId);
    log.info({ volumeId, backupId }, 'a volume is filled from its backup');
  }

  async #note(error: unknown): Promise<void> {
    const failure = error === null ? null : error instanceof Failure ? error.message : String(error);
    if (failure === this.#failure) return;
    this.#failure = failure;
    const { catalog, log } = this.#control;
    const { volume_id: volumeId, backup_id: backupId } = this.#options.row;
    if (error !== null) log.warn({ volumeId, backupId, err: error }, 'a volume cannot be filled at the moment');
    try {
      await catalog.write((writer) => updateFill(writer, volumeId, { failure }));
    } catch (refusal) {
      log.error({ volumeId, err: refusal }, 'why a volume cannot be filled could not be written down');
    }
  }

  async #bring(offset: number): Promise<void> {
    const { backend, log } = this.#control;
    const { volume_id: id } = this.#options.row;
    const endsAtUs = this.#control.nowUs() + this.#options.waitMs * 1000;
    const { signal } = this.#stop;
    for (let attempt = 0; !signal.aborted; attempt += 1) {
      try {
        const filler = this.#filler ?? (await this.#opened(endsAtUs));
        if (filler !== null) return await this.#unlessStopped(filler.want(offset));
      } catch (error) {
        // What is damaged does not get better by waiting.
        if (error instanceof Failure && error.code === 'corrupt') {
          await this.#note(error);
          break;
        }
        log.debug({ volumeId: id, offset, err: error }, 'what a client waits for could not be had');
      }
      if (this.#control.nowUs() >= endsAtUs) break;
      await this.#options.pause(RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)] ?? 0, signal);
    }
    await backend.failFill({ id, offset }).catch((error: unknown) => {
      // The backend is closing, and its clients are cut off.
      log.debug({ volumeId: id, offset, err: error }, 'nobody waits any more');
    });
  }

  /** Null: not in time. */
  async #opened(endsAtUs: number): Promise<Filler | null> {
    const over = new AbortController();
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        this.#waiting.delete(wake);
        resolve();
      };
      this.#waiting.add(wake);
      const leftMs = Math.max(0, (endsAtUs - this.#control.nowUs()) / 1000);
      void this.#options.pause(leftMs, AbortSignal.any([this.#stop.signal, over.signal])).then(wake);
    });
    over.abort();
    return this.#filler;
  }

  /** Work that goes on without us finds the door closed. */
  async #unlessStopped<T>(work: Promise<T>): Promise<T> {
    const { signal } = this.#stop;
    let stop = (): void => {};
    const stopped = new Promise<never>((_, reject) => {
      stop = () => reject(new Failure('shutting_down'));
      if (signal.aborted) stop();
      else signal.addEventListener('abort', stop, { once: true });
    });
    try {
      return await Promise.race([work, stopped]);
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }

  #wakeAll(): void {
    for (const wake of [...this.#waiting]) wake();
  }
}
