import { duration } from '@tandem/core';
import * as z from 'zod';

/** When a service that goes down again and again is held down, and for how long. */
export interface FlapDamping {
  /** As many times in a window are no offence. */
  readonly max: number;
  readonly windowMs: number;
  /** Of the first offence; each further one holds twice as long, up to the most. */
  readonly holdMs: number;
  readonly maxHoldMs: number;
}

/** `flap_damping`, of the host file for all services and of a service file for its own. */
export const FlapDampingSection = z
  .strictObject({
    enabled: z.boolean().default(true).describe('false: a service of a host that damps all is not damped'),
    max: z
      .number()
      .int()
      .min(1)
      .max(1000)
      .default(5)
      .describe('going down this often in a window is still in order'),
    window: duration({ minMs: 100 })
      .prefault('1m')
      .describe('time in which it is counted how often a service goes down'),
    hold: duration({ minMs: 100 })
      .prefault('30s')
      .describe(
        'how long a service that went down too often is held down; twice as long with each further time',
      ),
    max_hold: duration({ minMs: 100 }).prefault('10m').describe('no hold is longer'),
  })
  .refine(({ hold, max_hold }) => hold <= max_hold, {
    path: ['max_hold'],
    error: 'must not be shorter than hold: raise it, or lower hold',
  })
  .transform(
    ({ enabled, max, window, hold, max_hold }): FlapDamping | false =>
      enabled && { max, windowMs: window, holdMs: hold, maxHoldMs: max_hold },
  );

/** What is remembered of how often a service went down. Times are of a clock that only grows. Immutable. */
export interface FlapState {
  /** When it went down, as far as that still counts. */
  readonly downs: readonly number[];
  /** Offences that are not forgotten yet. */
  readonly offences: number;
  /** Before this it is held down. */
  readonly heldUntil: number;
  /** The end of the last hold, or when it went down after that: how long it has been quiet counts from here. */
  readonly restlessUntil: number;
}

export const CALM: FlapState = { downs: [], offences: 0, heldUntil: -Infinity, restlessUntil: -Infinity };

/**
 * The service has gone down once more, inside a hold or not. More than `max` times in a window are an offence, which
 * begins a hold, or a longer one in place of one that is still on. What led to an offence is not counted again.
 */
export function noteDown(state: FlapState, damping: FlapDamping, now: number): FlapState {
  const { max, windowMs, holdMs, maxHoldMs } = damping;
  const offences = offencesAt(state, damping, now);
  const downs = [...state.downs.filter((at) => at > now - windowMs), now];
  if (downs.length <= max)
    return { ...state, downs, offences, restlessUntil: Math.max(now, state.heldUntil) };
  const heldUntil = Math.max(
    state.heldUntil,
    now + Math.min(maxHoldMs, holdMs * 2 ** Math.min(offences, 30)),
  );
  return { downs: [], offences: offences + 1, heldUntil, restlessUntil: heldUntil };
}

/** Milliseconds that the service is still held down; 0 when it is not. */
export function heldForMs({ heldUntil }: FlapState, now: number): number {
  return Math.max(0, heldUntil - now);
}

/** Offences that still count: each quiet window after a hold takes one away. */
export function offencesAt(state: FlapState, { windowMs }: FlapDamping, now: number): number {
  if (state.offences === 0) return 0;
  const quietMs = Math.max(0, now - state.restlessUntil);
  return Math.max(0, state.offences - Math.floor(quietMs / windowMs));
}
