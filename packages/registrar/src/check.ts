import { type AddressResolver, duration } from '@tandem/core';
import * as z from 'zod';

import { INITIAL_HEALTHS, type HealthLimits } from './health.ts';
import type { Reports } from './reports.ts';

/**
 * What one attempt found. A failing service is an expected outcome, so it is a value with a reason. A warning is shown,
 * and counts as a pass.
 */
export type ProbeResult =
  { readonly ok: true; readonly warning?: string } | { readonly ok: false; readonly reason: string };

/** What a check may need to know of the world that it was configured in. */
export interface CheckContext {
  /** The service that is probed; another one after it was renamed. */
  readonly service: string;
  /** Where it knocks, unless it names a port of its own. */
  readonly port: number;
  /** What the names of hosts stand for. */
  readonly resolver: AddressResolver;
  /** What services report of themselves. */
  readonly reports: Reports;
}

/** One configured way of finding out whether a service works. */
export interface Check {
  /** The key that names it in the configuration. */
  readonly kind: string;

  /** Loads what the probes need. Cheap when repeated, and not counted against the time limit of a probe. */
  prepare?(): Promise<void>;

  /**
   * Tries once, on fresh resources. Whatever the service does is a result; an exception means that our own code or
   * its world is broken. When the signal is aborted it ends at once, as a failure, and leaves nothing behind:
   * no socket, no process, no listener on the signal.
   */
  probe(signal: AbortSignal): Promise<ProbeResult>;

  /** Called once, after the last probe: gives up what was taken when the check was made. */
  close?(): void;
}

/** When a check probes, and how many results in a row change its health. */
export interface Schedule extends HealthLimits {
  /** From the start of one probe to the start of the next, on average. */
  readonly intervalMs: number;
  readonly timeoutMs: number;
}

/** The keys that every kind of check has. Kinds spread them into their own schema. */
export const scheduleKeys = {
  interval: duration({ minMs: 10 })
    .prefault('2s')
    .describe('time from the start of one probe to the start of the next'),
  timeout: duration()
    .prefault('500ms')
    .describe('a probe that takes longer has failed; may exceed the interval'),
  rise: z.number().int().min(1).max(1000).default(1).describe('passes in a row that make it healthy'),
  fall: z.number().int().min(1).max(1000).default(1).describe('failures in a row that make it unhealthy'),
  initial: z
    .enum(INITIAL_HEALTHS)
    .default('first_result')
    .describe(
      'before there are enough results: what the first one says; or down, until it has passed rise times',
    ),
};

export function toSchedule(keys: z.output<z.ZodObject<typeof scheduleKeys>>): Schedule {
  const { interval: intervalMs, timeout: timeoutMs, rise, fall, initial } = keys;
  return { intervalMs, timeoutMs, rise, fall, initial };
}

export const PASS: ProbeResult = { ok: true };

export function failure(reason: string): Extract<ProbeResult, { ok: false }> {
  return { ok: false, reason };
}

/** The result of a probe whose signal was aborted. */
export const CALLED_OFF = failure('called off');
