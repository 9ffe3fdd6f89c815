import { isTandemError, messageOf, sleepOrAborted, withDeadline } from '@tandem/core';

import { type Check, failure, type ProbeResult, type Schedule } from './check.ts';
import { createHealth, type Health, nextHealth } from './health.ts';

/** Time, from outside. */
export interface Clock {
  /** Milliseconds that only ever grow. */
  now(): number;
  /** Resolves with false after `ms` milliseconds, or with true as soon as the signal is aborted. Never rejects. */
  pause(ms: number, signal: AbortSignal): Promise<boolean>;
}

export const systemClock: Clock = {
  now: () => performance.now(),
  pause: sleepOrAborted,
};

/** One check that is probed again and again: the first time at once, never twice at the same time. */
export interface ProbeLoop {
  readonly health: Health;
  /** Why the last probe failed; undefined if it passed. */
  readonly reason: string | undefined;
  /** Ends the probe that is under way and every one after. Resolves when nothing of it is left. */
  stop(): Promise<void>;
}

export function createProbeLoop(deps: {
  check: Check;
  schedule: Schedule;
  clock: Clock;
  /** Called after the health has changed, before the next probe. */
  onHealth: (health: Health, reason: string | undefined) => void;
  /** Called when the check threw, once for each different exception in a row. */
  onBroken: (error: unknown) => void;
}): ProbeLoop {
  const { check, schedule, clock } = deps;
  const stopping = new AbortController();
  const { signal } = stopping;
  let state = createHealth(schedule);
  let reason: string | undefined;
  let lastException: string | undefined;

  async function run(): Promise<void> {
    while (!signal.aborted) {
      const startedAt = clock.now();
      const result = await probeOnce();
      if (signal.aborted) return;
      accept(result);
      const rest = schedule.intervalMs - (clock.now() - startedAt);
      if (rest > 0 && (await clock.pause(rest, signal))) return;
    }
  }

  async function probeOnce(): Promise<ProbeResult> {
    try {
      await check.prepare?.();
      const result = await withDeadline(signal, schedule.timeoutMs, async (signal) => {
        const result = await check.probe(signal);
        // Its deadline has passed: what it says about that is not the result.
        signal.throwIfAborted();
        return result;
      });
      lastException = undefined;
      return result;
    } catch (error) {
      if (signal.aborted) return failure('called off');
      if (isTandemError(error, 'DEADLINE_EXCEEDED'))
        return failure(`timed out after ${schedule.timeoutMs} ms`);
      return broken(error);
    }
  }

  /** A mistake of ours, not of the service. It costs this check its health and nobody else anything. */
  function broken(error: unknown): ProbeResult {
    const message = messageOf(error);
    if (message !== lastException) deps.onBroken(error);
    lastException = message;
    return failure(`the check is broken: ${message}`);
  }

  function accept(result: ProbeResult): void {
    const before = state.health;
    state = nextHealth(state, result.ok);
    reason = result.ok ? undefined : result.reason;
    if (state.health !== before) deps.onHealth(state.health, reason);
  }

  const ended = run().finally(() => check.close?.());
  return {
    get health() {
      return state.health;
    },
    get reason() {
      return reason;
    },
    stop() {
      stopping.abort();
      return ended;
    },
  };
}
