import { createHeartbeat, type Log, messageOf, type Notify } from '@tandem/core';

/** How a daemon is at this moment. */
export interface Vitals {
  /** Whether it does its work, as far as it depends on itself. */
  readonly isReady: boolean;
  /** Whether all of its parts make progress. */
  readonly isAlive: boolean;
  /** A line for `systemctl status`. */
  readonly status: () => string;
}

const BEAT_MS = 1_000;

/**
 * Tells everybody who watches a daemon from outside how it is, every second: the init system, and who looks at the
 * heartbeat file. Both hear nothing of a daemon that makes no progress. Returns what ends it.
 */
export function superviseDaemon(options: {
  readonly look: () => Vitals;
  /** Called once, when the daemon is ready for the first time. */
  readonly onReady: () => void;
  readonly notify: Pick<Notify, 'alive' | 'isHeard' | 'status'>;
  readonly heartbeatFile: string | undefined;
  readonly log: Log;
  /** Default: a second. */
  readonly beatMs?: number;
}): () => void {
  const { look, onReady, notify, heartbeatFile, log, beatMs = BEAT_MS } = options;
  const heartbeat = heartbeatFile === undefined ? undefined : createHeartbeat(heartbeatFile, log);
  let wasReady = false;

  function beat(): void {
    let vitals: Vitals;
    try {
      vitals = look();
    } catch (error) {
      // A daemon that cannot even be looked at is not well.
      log.error({ err: messageOf(error) }, 'cannot look at the daemon');
      return;
    }
    const { isReady, isAlive, status } = vitals;
    if (notify.isHeard) notify.status(status());
    if (isReady && !wasReady) {
      wasReady = true;
      onReady();
    }
    if (!isAlive) return;
    notify.alive();
    void heartbeat?.beat();
  }

  beat();
  const timer = setInterval(beat, beatMs);
  return () => clearInterval(timer);
}
