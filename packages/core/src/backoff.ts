/** Waiting times that grow: `base · 2^(attempt-1)`, capped, each between half and all of that by chance. */
export interface Backoff {
  /** The wait before the next attempt, in milliseconds. */
  next(): number;
  /** The last attempt worked: start over. */
  reset(): void;
}

/**
 * @param limits first and longest wait in milliseconds
 * @param random uniform in [0, 1); a fleet must not come back in step
 */
export function createBackoff(
  limits: { baseMs: number; maxMs: number },
  random: () => number = Math.random,
): Backoff {
  let attempt = 0;
  return {
    next() {
      const full = Math.min(limits.maxMs, limits.baseMs * 2 ** Math.min(attempt, 30));
      attempt += 1;
      return full * (0.5 + random() / 2);
    },
    reset() {
      attempt = 0;
    },
  };
}
