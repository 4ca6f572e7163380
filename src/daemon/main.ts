/**
 * The life of the daemon: settings, parts, sockets, the ready line, signals, the end. It returns when everything is
 * stopped; the process and its exit code are the caller's.
 */
import { readFileSync } from 'node:fs';
import { createLocalBackend } from '../backend/local.ts';
import { openLog, type RootLog } from '../base/log.ts';
import { loadBinding } from '../native/addon.ts';
import { readApiTls } from './api-tls.ts';
import { type Config, readConfig, type ServeFlags } from './config.ts';
import { type Listener, listen } from './listen.ts';
import { type Notify, openNotify, type SendDatagram } from './notify.ts';
import { type CreateBackend, type Wired, wire } from './wire.ts';

export type { ServeFlags } from './config.ts';

/** Requests in flight get this long, everything together the second; supervisors wait ten seconds. */
const REQUESTS_GRACE_MS = 4000;
const STOP_MS = 9000;
const EXIT_MS = 500;

export type Surroundings = {
  readonly createBackend: CreateBackend;
  readonly sendDatagram: SendDatagram | null;
  readonly notifySocket: string | undefined;
  readonly isTerminal: boolean;
  readonly print: (line: string) => void;
  /** Ends the process soon, with the exit code it has by then, if something still keeps it alive. */
  readonly exitSoon: () => void;
  /** Resolves with a reason to stop. */
  readonly stopAsked: Promise<string>;
  /** Calls back at each wish to reload, until the returned function is called. */
  readonly onReload: (reload: () => void) => () => void;
};

/**
 * Serves until a signal asks to stop. Fails with a `Failure` if it cannot start, and with the cause if it cannot go on.
 */
export async function runServe(flags: ServeFlags, surroundings: Partial<Surroundings> = {}): Promise<void> {
  const around: Surroundings = { ...realSurroundings(surroundings.stopAsked === undefined), ...surroundings };
  const config = readConfig(flags, around);
  const apiTls = config.apiTls === null ? null : readApiTls(config.apiTls);
  const log = openLog({ level: config.logLevel, format: config.logFormat });
  const version = programVersion();
  let broken: Error | null = null;
  let wake = (): void => {};
  const fatal = new Promise<string>((resolve) => {
    wake = () => resolve('fatal');
  });
  const onFatal = (error: Error): void => {
    broken ??= error;
    wake();
  };
  const wired = await wire({ config, log, version, createBackend: around.createBackend, onFatal });
  const listeners: Listener[] = [];
  const notify = openNotify({ socket: around.notifySocket, send: around.sendDatagram, log });
  const stopReloading = around.onReload(() => void reload({ flags, around, log, wired, listeners }));
  try {
    for (const address of config.api) listeners.push(await listen(wired.server, address, apiTls));
    around.print(readyLine({ config, wired, listeners, version }));
    notify('READY=1');
    log.info({ api: listeners.map(({ url }) => url), nbd: wired.control.backend.nbdAddresses, version }, 'serving');
    const reason = await Promise.race([around.stopAsked, fatal]);
    log.info({ reason }, 'stopping');
  } finally {
    stopReloading();
    if (broken === null) await stop({ wired, listeners, notify, log, around });
    // Nothing behind the API answers any more: there is nothing to wait for.
    else await Promise.all(listeners.map((listener) => listener.close(0)));
  }
  if (broken !== null) {
    around.exitSoon();
    throw broken;
  }
}

type Parts = {
  wired: Wired;
  listeners: readonly Listener[];
  notify: Notify;
  log: RootLog;
  around: Surroundings;
};

/** Outside in. What takes too long is left as a crash would leave it, which the next start knows how to take up. */
async function stop({ wired, listeners, notify, log, around }: Parts): Promise<void> {
  notify('STOPPING=1');
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<'late'>((resolve) => {
    timer = setTimeout(() => resolve('late'), STOP_MS);
  });
  const stopped = (async () => {
    await Promise.all(listeners.map((listener) => listener.close(REQUESTS_GRACE_MS)));
    await wired.close();
  })().catch((error: unknown) => log.error({ err: error }, 'stopping did not go well'));
  if ((await Promise.race([stopped, late])) === 'late') {
    log.warn({ ms: STOP_MS }, 'stopping took too long; the next start goes on from here');
    around.exitSoon();
  } else log.info({}, 'stopped');
  clearTimeout(timer);
}

function readyLine(about: { config: Config; wired: Wired; listeners: readonly Listener[]; version: string }): string {
  return JSON.stringify({
    ready: true,
    api: about.listeners.map(({ url }) => url),
    nbd: about.wired.control.backend.nbdAddresses,
    data: about.config.dataDir,
    version: about.version,
  });
}

type Reload = {
  flags: ServeFlags;
  around: Surroundings;
  log: RootLog;
  wired: Wired;
  listeners: readonly Listener[];
};

/** Turning TLS on or off waits for the next start; new certificates, a new authority and allow or require do not. */
async function reload({ flags, around, log, wired, listeners }: Reload): Promise<void> {
  try {
    const config = readConfig(flags, around);
    const { logLevel, nbdTls } = config;
    // What may be refused comes first: then nothing has changed.
    const apiTls = config.apiTls === null ? null : readApiTls(config.apiTls);
    if (nbdTls !== null) await wired.setTls(nbdTls);
    if (apiTls !== null) for (const listener of listeners) listener.setTls(apiTls);
    wired.setAccess(config.access);
    log.setLevel(logLevel);
    const applied =
      'configuration read again: log level, tokens and TLS files apply at once, the rest at the next start';
    log.info({ logLevel, apiTls: apiTls !== null, nbdTls: nbdTls !== null }, applied);
  } catch (error) {
    log.error({ err: error }, 'the configuration could not be read again and stays as it is');
  }
}

function programVersion(): string {
  const file = new URL('../../package.json', import.meta.url);
  const { version } = JSON.parse(readFileSync(file, 'utf8')) as { version: string };
  return version;
}

function realSurroundings(catchSignals: boolean): Surroundings {
  return {
    createBackend: createLocalBackend,
    sendDatagram: (path, text) => loadBinding().notifyServiceManager(path, text),
    notifySocket: process.env['NOTIFY_SOCKET'],
    isTerminal: process.stderr.isTTY === true,
    print: (line) => void process.stdout.write(`${line}\n`),
    exitSoon: () => void setTimeout(() => process.exit(), EXIT_MS).unref(),
    stopAsked: catchSignals ? stopSignal() : new Promise<string>(() => {}),
    onReload: (reload) => {
      process.on('SIGHUP', reload);
      return () => process.off('SIGHUP', reload);
    },
  };
}

/** The first signal stops cleanly; with it the handlers go, so a second one ends the process at once. */
function stopSignal(): Promise<string> {
  return new Promise((resolve) => {
    const asked = (signal: NodeJS.Signals): void => {
      process.off('SIGTERM', asked);
      process.off('SIGINT', asked);
      resolve(signal);
    };
    process.on('SIGTERM', asked);
    process.on('SIGINT', asked);
  });
}
