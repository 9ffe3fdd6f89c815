import { createBackoff } from '@tandem/core';

const QUICK_MS = 50;
const MAX_MS = 10_000;
/** A handshake alone proves nothing: two clients fighting for a session complete one after the other (B17). */
const STABLE_MS = 2_000;

/** How long to wait before the next attempt to connect. */
export interface ReconnectDelay {
  /** Milliseconds; the first attempt after a stable connection is immediate, then one quick round, then it backs off. */
  next(): number;
  connected(): void;
  disconnected(): void;
}

/** The longest wait stays well below the session timeout: a server that comes back must be found before it expires us. */
export function createReconnectDelay(
  options: { serverCount: number; sessionTimeoutMs: number },
  random: () => number,
): ReconnectDelay {
  const maxMs = Math.min(MAX_MS, options.sessionTimeoutMs / 4);
  const backoff = createBackoff({ baseMs: QUICK_MS, maxMs }, random);
  let attempts = 0;
  let stable: NodeJS.Timeout | undefined;

  return {
    next() {
      attempts += 1;
      if (attempts === 1) return 0;
      return attempts <= options.serverCount ? QUICK_MS * random() : backoff.next();
    },
    connected() {
      stable = setTimeout(() => {
        attempts = 0;
        backoff.reset();
      }, STABLE_MS);
    },
    disconnected() {
      clearTimeout(stable);
    },
  };
}
