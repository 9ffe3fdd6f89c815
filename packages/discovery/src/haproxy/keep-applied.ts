import { createBackoff, isTandemError, type Log, messageOf, sleepOrAborted } from '@tandem/core';

import type { Applier } from './apply.ts';
import type { Desired } from './desired.ts';

const WATCH_MS = 250;

/**
 * Keeps HAProxy as desired until the signal is aborted: applies what is new, and looks every 250 ms whether the file
 * and HAProxy are still as they were left. Failures are logged and tried again; they never end the loop.
 */
export async function keepApplied(deps: {
  applier: Pick<Applier, 'apply' | 'look'>;
  desired: () => Desired | undefined;
  changes: AsyncIterable<unknown>;
  look: () => void;
  log: Log;
  signal: AbortSignal;
}): Promise<void> {
  const { applier, changes, log, signal } = deps;
  const backoff = createBackoff({ baseMs: 100, maxMs: 5_000 });
  const timer = setInterval(deps.look, WATCH_MS);
  let later: NodeJS.Timeout | undefined;
  let applied: Desired | undefined;
  try {
    for await (const _ of changes) {
      try {
        const desired = deps.desired();
        if (desired === undefined) continue;
        const seen = desired === applied ? await applier.look(signal) : 'due';
        if (seen === 'as-left') continue;
        if (seen === 'disturbed') log.warn({}, 'HAProxy is not as it was left, looking after it');
        const outcome = await applier.apply(desired, signal);
        backoff.reset();
        if (outcome.kind === 'later') {
          // What comes meanwhile is part of it.
          applied = undefined;
          clearTimeout(later);
          later = setTimeout(deps.look, outcome.ms);
          continue;
        }
        applied = desired;
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
    clearTimeout(later);
  }
}
