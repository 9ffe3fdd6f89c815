import { sleep, TandemError } from '@tandem/core';

import { alertsOf } from './output-file.ts';
import type { HaproxyProcess } from './process.ts';
import type { RunningIdentity } from './runtime.ts';
import type { Workers } from './workers.ts';

const POLL_MS = 10;
/** A signal that meets a master in the middle of another reload is lost without a word (HAProxy reference 3.2). */
const MIN_ASK_AGAIN_MS = 3_000;

/** Resolves when a new worker shows the mark; however the reload was asked for, nothing else is believed. */
export async function reloadTo(
  mark: string,
  before: RunningIdentity,
  deps: { process: HaproxyProcess; workers: Workers; deadlineMs: number; signal: AbortSignal },
): Promise<void> {
  const { process, deadlineMs, signal } = deps;
  const giveUpAt = performance.now() + deadlineMs;
  for (;;) {
    const answer = await process.requestReload(signal);
    if (answer.kind === 'refused') throw failed(alertsOf(answer.output));
    const askAgainAt = performance.now() + Math.max(MIN_ASK_AGAIN_MS, deadlineMs / 3);
    const shown = await waitForMark(mark, before, { ...deps, until: Math.min(giveUpAt, askAgainAt) });
    if (shown === mark) return;
    if (performance.now() < giveUpAt) continue;
    const complaint = await process.complaint();
    throw failed(
      shown === undefined
        ? `no worker answers within ${deadlineMs} ms. ${complaint}`
        : `after ${deadlineMs} ms HAProxy still shows "${shown}". ${complaint}`,
    );
  }
}

/** The mark that the newest worker shows at last; undefined when none answers. */
async function waitForMark(
  mark: string,
  before: RunningIdentity,
  {
    process,
    workers,
    signal,
    until,
  }: { process: HaproxyProcess; workers: Workers; signal: AbortSignal; until: number },
): Promise<string | undefined> {
  let shown: string | undefined;
  for (;;) {
    try {
      const identity = await workers.identity(signal);
      shown = identity.mark;
      if (identity.mark === mark && identity.incarnation !== before.incarnation) return mark;
    } catch {
      signal.throwIfAborted();
    }
    if (!process.isRunning()) throw failed(`it has ended: ${await process.complaint()}`);
    if (performance.now() > until) return shown;
    await sleep(POLL_MS, signal);
  }
}

function failed(reason: string): TandemError {
  return new TandemError(
    'HAPROXY_RELOAD_FAILED',
    `HAProxy has not loaded the new configuration: ${reason.trim()}`,
  );
}
