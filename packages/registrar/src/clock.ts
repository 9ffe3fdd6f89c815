/** Time and chance, from outside. */
export interface Clock {
  /** Milliseconds that only ever grow: a wall clock that is set changes nothing. */
  now(): number;
  /** Calls the task after `ms` milliseconds, unless what it returns is called before. */
  after(ms: number, task: () => void): () => void;
  /** Milliseconds since 1970, for what outlives this process. May jump. */
  wallNow(): number;
  /** Uniform in [0, 1). */
  readonly random: () => number;
}

export const systemClock: Clock = {
  now: () => performance.now(),
  after(ms, task) {
    const timer = setTimeout(task, ms);
    return () => clearTimeout(timer);
  },
  wallNow: () => Date.now(),
  random: Math.random,
};
