import { isTandemError, type Log, messageOf, systemErrorCode } from '@tandem/core';

/** What goes wrong in one place, told when it begins or changes and when it is over, however often it is tried. */
export interface Complaint {
  failed(error: unknown, facts: Readonly<Record<string, unknown>>): void;
  over(facts: Readonly<Record<string, unknown>>): void;
}

export function createComplaint(log: Log, messages: { failed: string; over: string }): Complaint {
  let told: string | undefined;
  return {
    failed(error, facts) {
      const cause = causeOf(error);
      if (cause === told) return;
      told = cause;
      const code = isTandemError(error) ? error.code : undefined;
      log.error({ ...facts, err: messageOf(error), code }, messages.failed);
    },
    over(facts) {
      if (told === undefined) return;
      told = undefined;
      log.info(facts, messages.over);
    },
  };
}

/** The same for equal causes: messages of system errors name temporary files, and so never repeat. */
function causeOf(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined;
  return isTandemError(error) ? `${error.code} ${systemErrorCode(cause) ?? error.message}` : messageOf(error);
}
