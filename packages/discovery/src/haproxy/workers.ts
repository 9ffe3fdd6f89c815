import { isTandemError, sleep, TandemError } from '@tandem/core';

import type { RunningBackends } from './plan.ts';
import { readIdentity, readRunning, type Running, type RunningIdentity } from './runtime.ts';

/**
 * Looks at HAProxy's newest worker. While a worker takes over, the one that it replaces may still accept connections
 * on the same socket, without a word about it: what such a worker says is never believed.
 */
export interface Workers {
  /** Rejects with `HAPROXY_UNREACHABLE` when none answers. */
  identity(signal: AbortSignal): Promise<RunningIdentity>;
  /** Undefined when none answers. */
  look(signal: AbortSignal): Promise<Running | undefined>;
  /**
   * Waits a moment for a worker that is just taking over; then rejects with `HAPROXY_UNREACHABLE`. What is as expected
   * is the expected object.
   */
  read(signal: AbortSignal, expected?: RunningBackends): Promise<Running>;
  /** From now on, this worker is known to have a successor. */
  replace(incarnation: string): void;
}

const POLL_MS = 10;
/** A replaced worker stops accepting when its signal arrives; on a machine without a free CPU that takes a while. */
const TAKE_OVER_DEADLINE_MS = 5_000;
const ATTEMPTS = 5;
/** Worker pids come round again; only the latest can still be there. */
const REMEMBERED = 20;

export function createWorkers(socket: string): Workers {
  const replaced: string[] = [];

  /** Asks again as long as a replaced worker answers. */
  async function newest<T extends RunningIdentity>(
    ask: (socket: string, signal: AbortSignal) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    const giveUpAt = performance.now() + TAKE_OVER_DEADLINE_MS;
    for (;;) {
      const said = await ask(socket, signal);
      if (!replaced.includes(said.incarnation)) return said;
      if (performance.now() > giveUpAt) {
        throw new TandemError(
          'HAPROXY_UNREACHABLE',
          `worker ${said.incarnation} was replaced and still answers`,
        );
      }
      await sleep(POLL_MS, signal);
    }
  }

  return {
    identity: (signal) => newest(readIdentity, signal),
    async look(signal) {
      try {
        return await newest((socket, signal) => readRunning(socket, signal), signal);
      } catch (error) {
        signal.throwIfAborted();
        if (!isTandemError(error, 'HAPROXY_UNREACHABLE')) throw error;
        return undefined;
      }
    },
    async read(signal, expected) {
      const readAsExpected = (socket: string, signal: AbortSignal) => readRunning(socket, signal, expected);
      for (let attempt = 1; ; attempt += 1) {
        try {
          return await newest(readAsExpected, signal);
        } catch (error) {
          if (signal.aborted || attempt === ATTEMPTS) throw error;
          await sleep(POLL_MS * attempt, signal);
        }
      }
    },
    replace(incarnation) {
      replaced.push(incarnation);
      if (replaced.length > REMEMBERED) replaced.shift();
    },
  };
}
