import { readFile } from 'node:fs/promises';

import { messageOf, runCommand, TandemError } from '@tandem/core';

import { alertsOf } from './output-file.ts';
import { findFatalLine, type Owner } from './preflight.ts';
import { requireSupported } from './runtime.ts';

/** The haproxy program, as far as it is asked about files. */
export interface Binary {
  /** Undefined when HAProxy would take the file, else what speaks against it. Throws `HAPROXY_MISSING`. */
  check(file: string, signal: AbortSignal): Promise<string | undefined>;
}

const CHECK_DEADLINE_MS = 30_000;

/** @param owner whom HAProxy will run as, where that is known */
export function createBinary(program: string, owner?: Owner): Binary {
  let isSupported = false;

  async function requireSupportedOnce(signal: AbortSignal): Promise<void> {
    if (isSupported) return;
    const { output } = await runCommand([program, '-v'], { signal, timeoutMs: CHECK_DEADLINE_MS });
    const version = /version (\S+)/.exec(output)?.[1];
    // A binary that cannot be started is told by the check itself.
    if (version !== undefined) requireSupported(version);
    isSupported = version !== undefined;
  }

  return {
    async check(file, signal) {
      await requireSupportedOnce(signal);
      const result = await runCommand([program, '-c', '-f', file], { signal, timeoutMs: CHECK_DEADLINE_MS });
      switch (result.kind) {
        case 'exited':
          // Exactly 0: an empty file gives 2 and would take every listener away (HAProxy reference 3.3).
          return result.code === 0
            ? findFatalLine(await readFile(file, 'utf8'), owner)
            : alertsOf(result.output);
        case 'timed-out':
          return 'haproxy -c did not end in time';
        case 'killed':
          return `haproxy -c was ended by ${result.signal}`;
        case 'not-started':
          throw missing(program, result.cause);
      }
    },
  };
}

export function missing(program: string, cause: unknown): TandemError {
  return new TandemError(
    'HAPROXY_MISSING',
    `cannot start ${program}: ${messageOf(cause)}. Install HAProxy 2.6 or later, or set haproxy.binary`,
    { cause },
  );
}
