/** Keeps one connection honest: pings it on time and notices when nothing comes back. */
export interface Beat {
  stop(): void;
}

/** RequestHeader { xid: -2, type: 11 } with its length in front. */
const PING = Buffer.from([0, 0, 0, 8, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 11]);
/** A timer later than this was held up by a busy process, not by the peer. */
const LATE_MS = 200;

/**
 * Pings every third of the session timeout whatever else is sent or received (reference B4), and calls `silent` once
 * when nothing was read for nearly two thirds of it (B1): within two thirds the peer is left, and a third remains to reach
 * another server with the session alive.
 * Times come from a monotonic clock.
 */
export function startHeartbeat(options: {
  sessionTimeoutMs: number;
  lastReadAt: () => number;
  ping: (frame: Buffer) => void;
  silent: (ms: number) => void;
}): Beat {
  const { sessionTimeoutMs } = options;
  const everyMs = Math.max(20, Math.min(sessionTimeoutMs / 20, 1_000));
  // The look that finds it out is at most one interval late.
  const longestMs = (sessionTimeoutMs * 2) / 3 - everyMs;
  let dueAt = performance.now() + everyMs;
  let pingedAt = performance.now();
  let stopped = false;

  function check(): void {
    if (stopped) return;
    const now = performance.now();
    dueAt = now + everyMs;
    const silentMs = now - options.lastReadAt();
    if (silentMs >= longestMs) {
      stop();
      options.silent(silentMs);
      return;
    }
    if (now - pingedAt >= sessionTimeoutMs / 3 - everyMs) {
      pingedAt = now;
      options.ping(PING);
    }
  }

  const timer = setInterval(() => {
    // A process that was stopped or busy has answers waiting in its socket: let it read them before it judges.
    if (performance.now() - dueAt > LATE_MS) setImmediate(() => setImmediate(check));
    else check();
  }, everyMs);

  function stop(): void {
    stopped = true;
    clearInterval(timer);
  }
  return { stop };
}
