/**
 * The far side of the embedded backend: runs in the engine's worker thread, builds plane and engine, and answers calls.
 * The only file that brings the real plane, the real files and the engine together.
 */

import { join } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import { realClock } from '../base/clock.ts';
import { Failure } from '../base/errors.ts';
import { realFiles } from '../base/files.ts';
import { type Engine, openEngine, type PoolSettings } from '../engine/engine.ts';
import { createPlane } from '../native/addon.ts';
import type { ConnectionLimits, Plane, TlsOptions } from '../native/plane.ts';
import { type InternalDoor, openInternalDoor } from './internal-door.ts';
import type { LocalCalls, LocalMethod, LocalReply, LocalRequest, PlainFailure } from './local.ts';

type WorkerOptions = {
  readonly dataDir: string;
  readonly nbdAddresses: readonly string[];
  readonly nbdTls: TlsOptions | null;
  readonly nbdLimits: ConnectionLimits;
  readonly pool: Partial<PoolSettings>;
};

function plainFailure(error: unknown): PlainFailure {
  if (error instanceof Failure) return { code: error.code, fields: error.fields };
  return { code: null, stack: error instanceof Error ? (error.stack ?? error.message) : String(error) };
}

async function main(): Promise<void> {
  const port = parentPort;
  if (port === null) throw new Error('local-worker runs as a worker thread only');
  const options = workerData as WorkerOptions;
  const send = (reply: LocalReply): void => port.postMessage(reply);

  let engine: Engine | null = null;
  let door: InternalDoor | null = null;
  // Events that come before the engine exists wait in the plane until the first drain.
  const plane: Plane = createPlane(options.nbdLimits, () => engine?.onPlaneEvents());
  try {
    engine = await openEngine({
      files: realFiles(join(options.dataDir)),
      plane,
      clock: realClock,
      options: options.pool,
      onEvent: (event) => send({ kind: 'event', event }),
      // Law 5: the main thread ends the process; until then nothing is acknowledged.
      onFatal: (error) => send({ kind: 'unable', failure: plainFailure(error) }),
    });
    // Before the first client can come.
    if (options.nbdTls !== null) plane.setTls(options.nbdTls);
    const nbdAddresses: string[] = [];
    for (const address of options.nbdAddresses) nbdAddresses.push(await plane.listen(address));
    door = await openInternalDoor(plane, options.dataDir);
    send({ kind: 'ready', nbdAddresses, internalAddress: door.address });
  } catch (error) {
    await engine?.close();
    send({ kind: 'unable', failure: plainFailure(error) });
    return;
  }

  const running: Running = { engine, plane, door };
  port.on('message', (request: LocalRequest) => {
    answer(running, request).then(
      (value) => send({ kind: 'result', id: request.id, value }),
      (error: unknown) => send({ kind: 'failure', id: request.id, failure: plainFailure(error) }),
    );
  });
}

type Running = { readonly engine: Engine; readonly plane: Plane; readonly door: InternalDoor };

async function answer({ engine, plane, door }: Running, request: LocalRequest): Promise<unknown> {
  if (request.method === 'close') {
    // Connections first: what they wrote is captured when their volumes close.
    await plane.close();
    await door.close();
    await engine.close();
    return null;
  }
  if (request.method === 'setTls') return plane.setTls(...request.args);
  return ask(engine, request);
}

type Asked = Exclude<LocalMethod, 'close' | 'setTls'>;
type Answers = { [Method in Asked]: (...args: Parameters<LocalCalls[Method]>) => Promise<unknown> };

function ask<Method extends Asked>(store: Answers, { method, args }: LocalRequest<Method>): Promise<unknown> {
  return store[method](...args);
}

await main();
