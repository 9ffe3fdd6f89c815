import { createBackoff } from '@tandem/core';

const QUICK_MS = 50;
const MAX_MS = 10_000;
/** A handshake alone proves nothing: two clients fighting for a session complete one after the other (B17). */
const STABLE_MS = 2_000;
const REFUSED_MS = 30_000;

/** How long to wait before the next attempt to connect. */
export interface ReconnectDelay {
  /** Milliseconds; the first attempt after a stable connection is immediate, then one quick round, then it backs off. */
  next(): number;
  connected(): void;
  disconnected(): void;
  /** A server has refused our credentials. Returns whether all have, one after the other: then the next wait is long. */
  refused(): boolean;
}

/** The longest wait stays well below the session timeout: a server that comes back must be found before it expires us. */
export function createReconnectDelay(
  options: {
    serverCount: () => number;
    /** The timeout may shrink when the server has its say. */
    sessionTimeoutMs: () => number;
    /** The longest wait after a refusal; default 30 s. */
    refusedMs?: number | undefined;
  },
  random: () => number,
): ReconnectDelay {
  const backoff = createBackoff({ baseMs: QUICK_MS, maxMs: MAX_MS }, random);
  let attempts = 0;
  let refusals = 0;
  let isRefused = false;
  let stable: NodeJS.Timeout | undefined;

  return {
    next() {
      attempts += 1;
      if (isRefused) {
        isRefused = false;
        // An attempt that ends in a refusal keeps the session alive all the same, with what hangs on it.
        const longestMs = Math.min(options.refusedMs ?? REFUSED_MS, options.sessionTimeoutMs() / 2);
        return longestMs * (0.5 + random() / 2);
      }
      if (attempts === 1) return 0;
      if (attempts <= options.serverCount()) return QUICK_MS * random();
      const longestMs = options.sessionTimeoutMs() / 4;
      const waitMs = backoff.next();
      return waitMs <= longestMs ? waitMs : longestMs * (0.5 + random() / 2);
    },
    connected() {
      refusals = 0;
      stable = setTimeout(() => {
        attempts = 0;
        backoff.reset();
      }, STABLE_MS);
    },
    disconnected() {
      clearTimeout(stable);
    },
    refused() {
      refusals += 1;
      isRefused = refusals >= options.serverCount();
      return isRefused;
    },
  };
}
