import type { Clock } from './clock.ts';

/** Probes that begin together are this far apart: a thousand of them take half a second, and the process stays awake. */
const APART_MS = 0.5;
/** So many begin at once before that. */
const AT_ONCE = 20;

/** The wait before a probe that should begin now, so that a crowd of them does not stall the process. */
export type Spread = () => number;

export function createSpread(clock: Clock): Spread {
  let taken = -Infinity;
  return () => {
    const now = clock.now();
    taken = Math.max(now, taken + APART_MS);
    const waitMs = taken - now;
    return waitMs < AT_ONCE * APART_MS ? 0 : waitMs;
  };
}

/** How much an interval is longer or shorter by chance, as a part of it. */
const JITTER = 0.05;

/**
 * From the start of one probe to the start of the next: the interval on average. The first time by half an interval more or
 * less, so that checks that began together, on one host or on a thousand, have nothing in common from then on; later a
 * little, so that they never fall into step.
 */
export function nextInterval(intervalMs: number, isFirst: boolean, random: () => number): number {
  const part = isFirst ? 1 : 2 * JITTER;
  return intervalMs * (1 + part * (random() - 0.5));
}
