/**
 * Stands between control and what it works on, counts every step (before and after each call into the backend, before
 * and after each commit), and at a chosen one either stops the world, as a crash would, or makes the call fail.
 */
import type { VolumeBackend } from '../../src/backend/backend.ts';
import type { MemoryBackend } from '../../src/backend/memory.ts';
import { Failure } from '../../src/base/errors.ts';
import type { Catalog } from '../../src/catalog/catalog.ts';

type Wired = VolumeBackend & { readonly nbdAddresses: readonly string[] };

export class Interrupter {
  readonly #at: number;
  readonly #mode: 'crash' | 'fail';
  #steps = 0;
  #isDead = false;
  #die = (): void => {};
  /** Resolves when the chosen step is reached. */
  readonly reached: Promise<'reached'>;
  /** What happened there. */
  where = '';

  constructor(options: { at: number; mode: 'crash' | 'fail' }) {
    this.#at = options.at;
    this.#mode = options.mode;
    this.reached = new Promise((resolve) => {
      this.#die = () => resolve('reached');
    });
  }

  get isReached(): boolean {
    return this.where !== '';
  }

  readonly aroundBackend = (backend: MemoryBackend): Wired => {
    const around = <Argument, Result>(name: string, work: (argument: Argument) => Promise<Result>) => {
      return async (argument: Argument): Promise<Result> => {
        await this.#step(`before ${name}`, true);
        const result = await work(argument);
        // A call that fails has not happened: afterwards there is only a crash.
        if (this.#mode === 'crash') await this.#step(`after ${name}`, false);
        return result;
      };
    };
    return {
      nbdAddresses: backend.nbdAddresses,
      createVolume: around('createVolume', (argument) => backend.createVolume(argument)),
      delete: around('delete', (argument) => backend.delete(argument)),
      resizeVolume: around('resizeVolume', (argument) => backend.resizeVolume(argument)),
      createSnapshot: around('createSnapshot', (argument) => backend.createSnapshot(argument)),
      createSnapshots: around('createSnapshots', (argument) => backend.createSnapshots(argument)),
      revertVolume: around('revertVolume', (argument) => backend.revertVolume(argument)),
      setLimits: around('setLimits', (argument) => backend.setLimits(argument)),
      publish: around('publish', (argument) => backend.publish(argument)),
      unpublish: around('unpublish', (argument) => backend.unpublish(argument)),
      beginFill: around('beginFill', (argument) => backend.beginFill(argument)),
      narrowFill: around('narrowFill', (argument) => backend.narrowFill(argument)),
      failFill: around('failFill', (argument) => backend.failFill(argument)),
      endFill: around('endFill', (argument) => backend.endFill(argument)),
      publishFill: around('publishFill', (argument) => backend.publishFill(argument)),
      usage: (argument) => backend.usage(argument),
      map: (argument) => backend.map(argument),
      diff: (argument) => backend.diff(argument),
      space: (argument) => backend.space(argument),
      startScrub: () => backend.startScrub(),
      scrubStatus: () => backend.scrubStatus(),
      heal: () => backend.heal(),
      stats: () => backend.stats(),
      close: () => backend.close(),
    };
  };

  readonly aroundCatalog = (catalog: Catalog): Catalog => ({
    reader: catalog.reader,
    write: async (change) => {
      if (this.#mode === 'crash') await this.#step('before a commit', false);
      const result = await catalog.write(change);
      if (this.#mode === 'crash') await this.#step('after a commit', false);
      return result;
    },
    close: () => catalog.close(),
  });

  async #step(where: string, canFail: boolean): Promise<void> {
    if (this.#isDead) return forever();
    this.#steps += 1;
    if (this.#steps !== this.#at) return;
    this.where = where;
    this.#die();
    if (this.#mode === 'fail' && canFail) throw new Failure('io_error', { reason: `as the test wants, ${where}` });
    this.#isDead = true;
    return forever();
  }
}

function forever(): Promise<never> {
  return new Promise(() => {});
}
