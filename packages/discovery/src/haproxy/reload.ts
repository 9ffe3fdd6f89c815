import { sleep, TandemError } from '@tandem/core';

import { alertsOf } from './output-file.ts';
import type { HaproxyProcess } from './process.ts';
import type { RunningIdentity } from './runtime.ts';
import type { Workers } from './workers.ts';

const POLL_MS = 10;
/** A signal that meets a master in the middle of another reload is lost without a word (HAProxy reference 3.2). */
const MIN_ASK_AGAIN_MS = 3_000;

const RETRY_MS = 10_000;
const MAX_RETRY_MS = 10 * 60_000;

export interface ReloadDeps {
  readonly process: HaproxyProcess;
  readonly workers: Workers;
  readonly deadlineMs: number;
  readonly signal: AbortSignal;
}

const MIN_RELOAD_INTERVAL_MS = 1_000;
const MAX_RELOAD_INTERVAL_MS = 60_000;

/**
 * How long after a reload the next may come. Reloads that do not bring about what they are for come ever more slowly.
 * @param reloads since all was last as desired
 */
export function reloadIntervalMs(reloads: number): number {
  return Math.min(MIN_RELOAD_INTERVAL_MS * 2 ** Math.max(0, reloads - 1), MAX_RELOAD_INTERVAL_MS);
}

/** Resolves when a new worker shows the mark; however the reload was asked for, nothing else is believed. */
export async function reloadTo(mark: string, before: RunningIdentity, deps: ReloadDeps): Promise<void> {
  const { process, deadlineMs, signal } = deps;
  const giveUpAt = performance.now() + deadlineMs;
  const isRight = (identity: RunningIdentity) =>
    identity.mark === mark && identity.incarnation !== before.incarnation;
  for (;;) {
    const answer = await process.requestReload(signal);
    if (answer.kind === 'refused') throw failed(alertsOf(answer.output));
    const askAgainAt = performance.now() + Math.max(MIN_ASK_AGAIN_MS, deadlineMs / 3);
    const shown = await waitFor(isRight, deps, Math.min(giveUpAt, askAgainAt));
    if (shown.kind === 'right') return;
    const complaint = await process.complaint();
    if (shown.kind === 'ended') throw failed(`it has ended. ${complaint}`);
    if (performance.now() < giveUpAt) continue;
    throw failed(
      shown.mark === undefined
        ? `no worker answers within ${deadlineMs} ms. ${complaint}`
        : `after ${deadlineMs} ms HAProxy still shows "${shown.mark}". ${complaint}`,
    );
  }
}

/** Resolves when a HAProxy that has just been started shows the mark; rejects with `HAPROXY_UNREACHABLE`. */
export async function waitForStart(mark: string, deps: ReloadDeps): Promise<void> {
  const { process, deadlineMs } = deps;
  const shown = await waitFor((identity) => identity.mark === mark, deps, performance.now() + deadlineMs);
  if (shown.kind === 'right') return;
  const reason = shown.kind === 'ended' ? 'it has ended' : `it does not serve within ${deadlineMs} ms`;
  throw new TandemError(
    'HAPROXY_UNREACHABLE',
    `HAProxy does not start: ${reason}. ${await process.complaint()}`.trim(),
  );
}

/**
 * When a reload that has failed may be tried again: ever more slowly, since it may cost new connections for 2 s
 * (HAProxy reference 3.3). Before each one the addresses are tried again, so that one that was lost in a race costs
 * that only once. After a reload that has cost HAProxy its life, not before somebody can have looked at it.
 */
export function createRetryPace(): (mark: string, isFatal: boolean) => number {
  let last: { readonly mark: string; readonly failures: number } | undefined;
  return (mark, isFatal) => {
    const failures = last?.mark === mark ? last.failures + 1 : 1;
    last = { mark, failures };
    return isFatal ? MAX_RETRY_MS : Math.min(MAX_RETRY_MS, RETRY_MS * 2 ** (failures - 1));
  };
}

type Shown =
  | { readonly kind: 'right' }
  | { readonly kind: 'ended' }
  /** What the newest worker shows at last; undefined when none answers. */
  | { readonly kind: 'wrong'; readonly mark: string | undefined };

async function waitFor(
  isRight: (identity: RunningIdentity) => boolean,
  { process, workers, signal }: ReloadDeps,
  until: number,
): Promise<Shown> {
  let mark: string | undefined;
  for (;;) {
    try {
      const identity = await workers.identity(signal);
      if (isRight(identity)) return { kind: 'right' };
      mark = identity.mark;
    } catch {
      signal.throwIfAborted();
    }
    if (!process.isRunning()) return { kind: 'ended' };
    if (performance.now() > until) return { kind: 'wrong', mark };
    await sleep(POLL_MS, signal);
  }
}

function failed(reason: string): TandemError {
  return new TandemError(
    'HAPROXY_RELOAD_FAILED',
    `HAProxy has not loaded the new configuration: ${reason.trim()}`,
  );
}
