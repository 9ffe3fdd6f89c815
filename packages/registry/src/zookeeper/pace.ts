/** How often a list may be read, so that no list costs a host more than its share of the network. */
export interface Pace {
  /** Milliseconds to wait before the next read. */
  delay(): number;
  /** A read of so many bytes begins now. */
  read(bytes: number): void;
}

/** 50 KB/s for one list: 1,000 instances in path encoding every 4.7 s, a small service at once (reference 6). */
const BYTES_PER_SECOND = 50_000;
const MAX_INTERVAL_MS = 30_000;
/** All hosts hear of a change in the same instant. */
const JITTER = 0.5;
const FIRST_JITTER = 0.1;

/**
 * A lone change is read at once, except that a fleet spreads its reads of a large list a little; whatever follows
 * waits for its turn.
 */
export function createPace(options: { random?: () => number; now?: () => number } = {}): Pace {
  const { random = Math.random, now = () => performance.now() } = options;
  let intervalMs = 0;
  let nextAt = -Infinity;

  return {
    delay() {
      const waitMs = nextAt - now();
      return waitMs > 0 ? waitMs : intervalMs * FIRST_JITTER * random();
    },
    read(bytes) {
      intervalMs = Math.min((bytes / BYTES_PER_SECOND) * 1_000, MAX_INTERVAL_MS);
      nextAt = now() + intervalMs * (1 + JITTER * random());
    },
  };
}
