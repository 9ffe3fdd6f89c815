import type { Clock } from './clock.ts';

const EVERY_MS = 1_000;
/** A tick that is this late tells of a stall. */
const LATE_MS = 1_000;
/** After a stall everything has this long to catch up. */
const RECOVERY_MS = 10_000;

/** Finds out whether this process as a whole was stopped or starved: nobody is to blame then for being late. */
export interface Stalls {
  /** Whether there is a stall, or was one a moment ago. */
  isRecent(now: number): boolean;
  stop(): void;
}

export function watchStalls(clock: Clock): Stalls {
  let lastTick = clock.now();
  let recoversUntil = -Infinity;
  let cancel = () => {};

  function plan(): void {
    cancel = clock.after(EVERY_MS, () => {
      const now = clock.now();
      if (now - lastTick > EVERY_MS + LATE_MS) recoversUntil = now + RECOVERY_MS;
      lastTick = now;
      plan();
    });
  }
  plan();
  return {
    isRecent: (now) => now < recoversUntil || now - lastTick > EVERY_MS + LATE_MS,
    stop: () => cancel(),
  };
}
