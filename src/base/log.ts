/**
 * The log: one line per event, with fields, on standard error (standard output belongs to the ready line). Everything
 * else knows it as the interface `Log`; only `daemon` makes the real one. It knows no event by name.
 */
import { type Level, type Logger, pino } from 'pino';
import pretty from 'pino-pretty';

export const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
export type LogFormat = 'json' | 'pretty';

export type LogFields = Readonly<Record<string, unknown>>;

export interface Log {
  error(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  debug(fields: LogFields, message: string): void;
  child(fields: LogFields): Log;
}

/** The real log. Its level can be changed while it runs (SIGHUP, or by an administrator through the API). */
export interface RootLog extends Log {
  level(): LogLevel;
  setLevel(level: LogLevel): void;
}

export function isLogLevel(text: string): text is LogLevel {
  return LOG_LEVELS.some((level) => level === text);
}

export function openLog(options: { level: LogLevel; format: LogFormat }): RootLog {
  const settings = { level: options.level satisfies Level, base: null };
  // Written synchronously: a line about why the process ends must not be lost with it.
  const logger =
    options.format === 'pretty'
      ? pino(settings, pretty({ destination: 2, sync: true, translateTime: 'SYS:HH:MM:ss.l' }))
      : pino(settings, pino.destination({ dest: 2, sync: true }));
  return wrap(logger);
}

/** Says nothing; for tests and for commands that report by other means. */
export const SILENT_LOG: RootLog = {
  error() {},
  warn() {},
  info() {},
  debug() {},
  child() {
    return SILENT_LOG;
  },
  level: () => 'fatal',
  setLevel() {},
};

function wrap(logger: Logger): RootLog {
  return {
    error: (fields, message) => logger.error(fields, message),
    warn: (fields, message) => logger.warn(fields, message),
    info: (fields, message) => logger.info(fields, message),
    debug: (fields, message) => logger.debug(fields, message),
    child: (fields) => wrap(logger.child(fields)),
    level: () => LOG_LEVELS.find((level) => level === logger.level) ?? 'info',
    setLevel: (level) => {
      logger.level = level;
    },
  };
}
