import { duration, formatDuration, isTandemError, SafeName, withDeadline } from '@tandem/core';
import * as z from 'zod';

import {
  CALLED_OFF,
  type Check,
  type CheckContext,
  failure,
  PASS,
  type ProbeResult,
  scheduleKeys,
  toSchedule,
} from '../check.ts';
import type { Inbox, Report } from '../reports.ts';

/** A probe ends by itself after `ttl`, or after a stall of this process twice that; so much later it hangs. */
const SLACK_MS = 1_000;
/** The service sets the pace, but a flood of reports has its limit. */
const PACE_MS = 10;
/** A deadline that passes so much later tells of a stall of this process: what has come meanwhile is not read yet. */
const STALL_MS = 50;

const { interval: _interval, timeout: _timeout, ...limitKeys } = scheduleKeys;

/** `push`: the service reports itself (`tandem report`, or the control socket); silence is failure. */
export const PushSection = z
  .strictObject({
    name: SafeName.default('push').describe(
      'what reports call it (tandem report --check); only where a service has several',
    ),
    ttl: duration({ minMs: 100 })
      .prefault('30s')
      .describe('how long a report counts; no report for so long is a failure'),
    ...limitKeys,
  })
  .transform(({ name, ttl, ...limits }) => ({
    name,
    ttlMs: ttl,
    schedule: toSchedule({ interval: PACE_MS, timeout: 2 * ttl + SLACK_MS, ...limits }),
  }));

export type PushConfig = z.output<typeof PushSection>;

/** A probe waits for the next report, so that one has its effect at once. */
export function createPushCheck({ name, ttlMs }: PushConfig, context: CheckContext): Check {
  const inbox = context.reports.open(context, name);
  const silence = failure(`no report for ${formatDuration(ttlMs)}`);
  return {
    kind: 'push',
    async probe(signal) {
      if (signal.aborted) return CALLED_OFF;
      const dueAt = performance.now() + ttlMs;
      let report = await nextReport(inbox, ttlMs, signal);
      const lateMs = performance.now() - dueAt;
      if (report === undefined && lateMs > STALL_MS)
        report = await nextReport(inbox, Math.min(ttlMs, lateMs), signal);
      if (signal.aborted) return CALLED_OFF;
      return report === undefined ? silence : resultOf(report);
    },
    close: () => inbox.close(),
  };
}

/** Undefined when none comes within the time, or before the signal is aborted. */
async function nextReport(inbox: Inbox, ms: number, signal: AbortSignal): Promise<Report | undefined> {
  try {
    return await withDeadline(signal, ms, (signal) => inbox.next(signal));
  } catch (error) {
    if (signal.aborted || isTandemError(error, 'DEADLINE_EXCEEDED')) return undefined;
    throw error;
  }
}

function resultOf({ status, reason }: Report): ProbeResult {
  switch (status) {
    case 'pass':
      return PASS;
    case 'warn':
      return { ok: true, warning: reason ?? 'reported as a warning' };
    case 'fail':
      return failure(reason ?? 'reported as failing');
  }
}
