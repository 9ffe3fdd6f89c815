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

/** What waits for a full disk or a reader that is gone; beyond that, lines are lost. */
const MAX_PENDING_BYTES = 1 << 20;

/**
 * JSON lines on a file descriptor, written at once so that nothing is lost when the process ends. Lines that cannot be
 * written are kept for the next attempt as far as there is room: the daemon is worth more than its log.
 */
export function createLog(options: { level: LogLevel; name: string; fd?: number }): Log {
  const destination = pino.destination({ fd: options.fd ?? 1, sync: true, maxLength: MAX_PENDING_BYTES });
  // There is no place left where to say it.
  destination.on('error', () => {});
  const logger = pino(
    {
      level: options.level,
      base: { daemon: options.name, pid: process.pid },
      formatters: { level: (label) => ({ level: label }) },
      timestamp: pino.stdTimeFunctions.isoTime,
    },
    destination,
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
  const writer =
    (level: LogLevel): Write =>
    (facts, message) => {
      try {
        logger[level](facts, message);
      } catch {
        // Whoever logs has more important things to do than to log.
      }
    };
  return {
    debug: writer('debug'),
    info: writer('info'),
    warn: writer('warn'),
    error: writer('error'),
    child: (facts) => wrap(logger.child(facts)),
  };
}
