import { createBackoff, isTandemError, type Log, messageOf, sleepOrAborted } from '@tandem/core';

import type { Applier } from './apply.ts';
import type { Desired } from './desired.ts';

const WATCH_MS = 250;
const FULL_CHECK_MS = 10_000;

/**
 * Keeps HAProxy as desired until the signal is aborted: applies what is new, looks every 250 ms whether the worker is
 * still the same, and compares everything every 10 s. Failures are logged and tried again; they never end the loop.
 */
export async function keepApplied(deps: {
  applier: Applier;
  desired: () => Desired | undefined;
  changes: AsyncIterable<unknown>;
  look: () => void;
  log: Log;
  signal: AbortSignal;
  onApplied: () => void;
}): Promise<void> {
  const { applier, changes, log, signal } = deps;
  const backoff = createBackoff({ baseMs: 100, maxMs: 5_000 });
  const timer = setInterval(deps.look, WATCH_MS);
  let applied: Desired | undefined;
  let appliedAt = -Infinity;
  try {
    for await (const _ of changes) {
      const desired = deps.desired();
      if (desired === undefined) continue;
      try {
        const isDue = desired !== applied || performance.now() - appliedAt > FULL_CHECK_MS;
        if (!isDue && (await applier.isUndisturbed(signal))) continue;
        if (!isDue) log.warn({}, 'HAProxy is not the one that was left, looking after it');
        await applier.apply(desired, signal);
        applied = desired;
        appliedAt = performance.now();
        backoff.reset();
        deps.onApplied();
      } catch (error) {
        if (signal.aborted) return;
        applied = undefined;
        const retryMs = Math.round(backoff.next());
        log.error(
          { err: messageOf(error), code: isTandemError(error) ? error.code : undefined, retryMs },
          'cannot bring HAProxy to the desired state, trying again',
        );
        if (await sleepOrAborted(retryMs, signal)) return;
        deps.look();
      }
    }
  } finally {
    clearInterval(timer);
  }
}
