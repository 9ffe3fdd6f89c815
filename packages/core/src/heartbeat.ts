import { open, utimes } from 'node:fs/promises';

import { messageOf, systemErrorCode } from './errors.ts';
import type { Log } from './log.ts';

/** A file whose time of change says that a process makes progress, for whoever watches from outside. */
export interface Heartbeat {
  /** Sets the time of the file to now, and makes it where there is none. Never rejects, and never waits for itself. */
  beat(): Promise<void>;
}

/** A file that cannot be touched is logged once, until it can be again. */
export function createHeartbeat(file: string, log: Log): Heartbeat {
  let touching: Promise<void> | undefined;
  let isFailing = false;

  async function touch(): Promise<void> {
    try {
      await setTime(file);
      if (isFailing) log.info({ file }, 'the heartbeat file can be touched again');
      isFailing = false;
    } catch (error) {
      if (!isFailing) log.error({ file, err: reasonOf(error) }, 'cannot touch the heartbeat file');
      isFailing = true;
    }
  }

  return {
    beat() {
      // A disk that hangs would else collect a touch for every beat.
      touching ??= touch().finally(() => {
        touching = undefined;
      });
      return touching;
    },
  };
}

function reasonOf(error: unknown): string {
  switch (systemErrorCode(error)) {
    case 'ENOENT':
      return 'its directory does not exist. Create it, or choose another path';
    case 'EACCES':
      return 'permission denied. Create its directory for this user, or choose another path';
    default:
      return messageOf(error);
  }
}

async function setTime(file: string): Promise<void> {
  const now = new Date();
  try {
    await utimes(file, now, now);
  } catch (error) {
    if (systemErrorCode(error) !== 'ENOENT') throw error;
    const handle = await open(file, 'a', 0o644);
    try {
      // Whoever watches may be anybody, whatever the umask of the daemon.
      await handle.chmod(0o644);
      await handle.utimes(now, now);
    } finally {
      await handle.close();
    }
  }
}
