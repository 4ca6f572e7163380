/**
 * The embedded backend: an extent store in a worker thread of its own, so that API calls, JSON and SQL never delay a
 * flush. This file is the near side of the border: it forwards calls and brings answers, failures and events back.
 */

import { Worker } from 'node:worker_threads';
import { Failure, type FailureCode, failureFrom } from '../base/errors.ts';
import type { PoolSettings } from '../engine/engine.ts';
import type { ConnectionLimits, TlsOptions } from '../native/plane.ts';
import type { BackendEvent, VolumeBackend } from './backend.ts';

/** What crosses the border: the calls of a backend, and what is asked of the embedded one only. */
export type LocalCalls = VolumeBackend & {
  /** New certificates, for connections made from now on. */
  setTls(options: TlsOptions): Promise<void>;
};
export type LocalMethod = keyof LocalCalls;
/** A call as it crosses: its method and, at the same index of both, the arguments of that method. */
export type LocalRequest<Method extends LocalMethod = LocalMethod> = {
  [Each in Method]: { readonly id: number; readonly method: Each; readonly args: Parameters<LocalCalls[Each]> };
}[Method];

export type Addresses = {
  /** As bound. */
  readonly nbdAddresses: readonly string[];
  /** Where the process finds its internal exports. */
  readonly internalAddress: string;
};

export type LocalReply =
  | ({ readonly kind: 'ready' } & Addresses)
  | { readonly kind: 'unable'; readonly failure: PlainFailure }
  | { readonly kind: 'result'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'failure'; readonly id: number; readonly failure: PlainFailure }
  | { readonly kind: 'event'; readonly event: BackendEvent };

/** A Failure as it crosses a thread, or any other error with its stack for the log. */
export type PlainFailure =
  | { readonly code: FailureCode; readonly fields: Readonly<Record<string, string | number | boolean | null>> }
  | { readonly code: null; readonly stack: string };

export type LocalOptions = {
  readonly dataDir: string;
  readonly nbdAddresses: readonly string[];
  readonly nbdTls: TlsOptions | null;
  readonly nbdLimits: ConnectionLimits;
  /** What is absent has the engine's default. */
  readonly pool?: Partial<PoolSettings>;
  readonly onEvent: (event: BackendEvent) => void;
  /** The store can no longer keep its promises (its journal failed, its thread died): the process has to end. */
  readonly onFatal: (error: Error) => void;
};

export type LocalBackend = LocalCalls &
  Addresses & {
    /** As at the start. */
    readonly nbdRequiresTls: boolean;
  };

export async function createLocalBackend(options: LocalOptions): Promise<LocalBackend> {
  const file = import.meta.url.endsWith('.ts') ? '../../dist/backend/local-worker.js' : './local-worker.js';
  const { dataDir, nbdAddresses: addresses, nbdTls, nbdLimits, pool = {} } = options;
  const worker = new Worker(new URL(file, import.meta.url), {
    workerData: { dataDir, nbdAddresses: addresses, nbdTls, nbdLimits, pool },
    name: 'engine',
  });
  const calls = new Calls(worker, options);
  const { nbdAddresses, internalAddress } = await calls.ready;
  const call =
    <Method extends LocalMethod>(method: Method) =>
    (...args: Parameters<LocalCalls[Method]>) =>
      calls.call(method, args);
  return {
    nbdAddresses,
    internalAddress,
    nbdRequiresTls: options.nbdTls?.isRequired === true,
    setTls: call('setTls'),
    createVolume: call('createVolume'),
    delete: call('delete'),
    resizeVolume: call('resizeVolume'),
    createSnapshot: call('createSnapshot'),
    createSnapshots: call('createSnapshots'),
    revertVolume: call('revertVolume'),
    setLimits: call('setLimits'),
    publish: call('publish'),
    unpublish: call('unpublish'),
    beginFill: call('beginFill'),
    narrowFill: call('narrowFill'),
    failFill: call('failFill'),
    endFill: call('endFill'),
    publishFill: call('publishFill'),
    map: call('map'),
    diff: call('diff'),
    startScrub: call('startScrub'),
    scrubStatus: call('scrubStatus'),
    heal: call('heal'),
    usage: call('usage'),
    space: call('space'),
    stats: call('stats'),
    async close() {
      await calls.close();
    },
  };
}

class Calls {
  readonly ready: Promise<Addresses>;
  readonly #worker: Worker;
  readonly #running = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  #lastId = 0;
  #isClosing = false;

  constructor(worker: Worker, options: LocalOptions) {
    this.#worker = worker;
    this.ready = new Promise((resolve, reject) => {
      let isReady = false;
      const fail = (error: Error): void => {
        this.#rejectAll(error);
        if (!isReady) reject(error);
        else if (!this.#isClosing) options.onFatal(error);
      };
      worker.on('message', (reply: LocalReply) => {
        if (reply.kind === 'ready') {
          isReady = true;
          resolve(reply);
        } else if (reply.kind === 'unable') fail(errorFrom(reply.failure));
        else if (reply.kind === 'event') options.onEvent(reply.event);
        else this.#settle(reply);
      });
      worker.on('error', fail);
      worker.on('exit', (code) => fail(new Error(`the engine's thread ended with code ${code}`)));
    });
  }

  /** What comes back over the border is what the engine's method of that name returned. */
  call<Method extends LocalMethod>(
    method: Method,
    args: Parameters<LocalCalls[Method]>,
  ): ReturnType<LocalCalls[Method]> {
    return this.#send(method, args) as ReturnType<LocalCalls[Method]>;
  }

  #send(method: LocalMethod, args: readonly unknown[]): Promise<unknown> {
    if (this.#isClosing && method !== 'close') return Promise.reject(new Failure('shutting_down'));
    this.#lastId += 1;
    const id = this.#lastId;
    return new Promise((resolve, reject) => {
      this.#running.set(id, { resolve, reject });
      this.#worker.postMessage({ id, method, args });
    });
  }

  async close(): Promise<void> {
    if (this.#isClosing) return;
    this.#isClosing = true;
    await this.#send('close', []);
    await this.#worker.terminate();
  }

  #settle(reply: LocalReply & { kind: 'result' | 'failure' }): void {
    const running = this.#running.get(reply.id);
    this.#running.delete(reply.id);
    if (reply.kind === 'result') running?.resolve(reply.value);
    else running?.reject(errorFrom(reply.failure));
  }

  #rejectAll(error: Error): void {
    for (const { reject } of this.#running.values()) reject(error);
    this.#running.clear();
  }
}

function errorFrom(plain: PlainFailure): Error {
  if (plain.code !== null) return failureFrom(plain);
  const error = new Error(plain.stack.split('\n')[0] ?? 'the engine failed');
  error.stack = plain.stack;
  return error;
}
