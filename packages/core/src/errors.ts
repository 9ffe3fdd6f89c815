/** Every code that a user of Tandem can meet, with what it means. One table, so that docs and tests can read it. */
export const ERROR_CODES = {
  ALREADY_RUNNING: 'another process of the same kind already serves this state_dir',
  CONFIG_INVALID: 'the configuration has mistakes; each is named with its place',
  CONTROL_REFUSED: 'the daemon refused what it was asked for',
  CONTROL_UNREACHABLE: 'the control socket of the daemon does not answer',
  DEADLINE_EXCEEDED: 'the work took longer than it was allowed to',
  FILE_WRITE_FAILED: 'a file could not be written; what was there before is untouched',
  HAPROXY_MISSING: 'the haproxy binary cannot be started',
  HAPROXY_REJECTED: 'haproxy -c refused the configuration; the previous one stays in force',
  HAPROXY_TOO_OLD: 'the running HAProxy lacks what Tandem needs (2.6 or later)',
  HAPROXY_UNREACHABLE: 'the runtime socket of HAProxy does not answer',
  HAPROXY_RELOAD_FAILED: 'HAProxy did not load the new configuration; the previous one stays in force',
  REGISTRY_AUTH_FAILED: 'the registry refused the credentials',
  REGISTRY_CLOSED: 'the registry client has been closed',
  REGISTRY_CONNECTION_LOST: 'the connection was lost before the registry answered; the outcome is unknown',
  REGISTRY_PROTOCOL: 'the registry sent something that is not its protocol',
  REGISTRY_REFUSED: 'the registry answered with an error',
  TEMPLATE_BROKEN: 'a template cannot be read or rendered; its last good version stays in use',
  TEMPLATE_REFUSED: 'the check command refused what a template became; its target is untouched',
  TEMPLATE_RELOAD_FAILED: 'the reload command of a template failed; it is run again',
} as const;

export type ErrorCode = keyof typeof ERROR_CODES;

/** An error with a code for programs, a sentence for people and the facts for logs. */
export class TandemError extends Error {
  readonly code: ErrorCode;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(
    code: ErrorCode,
    message: string,
    options: { cause?: unknown; details?: Readonly<Record<string, unknown>> } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'TandemError';
    this.code = code;
    this.details = options.details ?? {};
  }
}

export function isTandemError(error: unknown, code?: ErrorCode): error is TandemError {
  return error instanceof TandemError && (code === undefined || error.code === code);
}

/** The code of a Node.js system error (`ENOENT`, `ECONNREFUSED`, …), if it is one. */
export function systemErrorCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** A sentence about any thrown value. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
