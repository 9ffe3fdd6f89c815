import { pino } from 'pino';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';
type Write = (facts: Readonly<Record<string, unknown>>, message: string) => void;

/** Where code says what happened: the message is a constant, the facts are fields. */
export interface Log {
  readonly debug: Write;
  readonly info: Write;
  readonly warn: Write;
  readonly error: Write;
  /** A log that adds these fields to every line. */
  child(facts: Readonly<Record<string, unknown>>): Log;
}

/** JSON lines on a file descriptor, written at once so that nothing is lost when the process ends. */
export function createLog(options: { level: LogLevel; name: string; fd?: number }): Log {
  const logger = pino(
    {
      level: options.level,
      base: { daemon: options.name, pid: process.pid },
      formatters: { level: (label) => ({ level: label }) },
      timestamp: pino.stdTimeFunctions.isoTime,
    },
    pino.destination({ fd: options.fd ?? 1, sync: true }),
  );
  return wrap(logger);
}

/** Says nothing; for tests and tools that report in their own way. */
export const silentLog: Log = {
  debug() {},
  info() {},
  warn() {},
  error() {},
  child: () => silentLog,
};

function wrap(logger: pino.Logger): Log {
  return {
    debug: (facts, message) => logger.debug(facts, message),
    info: (facts, message) => logger.info(facts, message),
    warn: (facts, message) => logger.warn(facts, message),
    error: (facts, message) => logger.error(facts, message),
    child: (facts) => wrap(logger.child(facts)),
  };
}
