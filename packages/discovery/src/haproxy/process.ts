import type { Log } from '@tandem/core';

import type { HaproxyConfig } from '../config/haproxy.ts';
import { createExternalProcess } from './external.ts';
import { createManagedProcess } from './managed.ts';

/** What became of a request for a reload. */
export type ReloadAnswer =
  /** It was taken. That proves nothing: look at what then runs. */
  | { readonly kind: 'taken' }
  /** It failed for certain: what ran goes on. With what was said about it, as it was said. */
  | { readonly kind: 'refused'; readonly output: string };

/**
 * HAProxy as a process in master-worker mode: a child of this daemon that outlives it and is adopted by the next one
 * (`haproxy.mode: managed`), or somebody else's, which is never started, stopped or killed (`external`).
 */
export interface HaproxyProcess {
  /** Undefined when HAProxy would take the file, else what speaks against it. Throws `HAPROXY_MISSING`. */
  check(file: string, signal: AbortSignal): Promise<string | undefined>;
  /**
   * Makes sure that HAProxy runs and can be asked: finds the one that does, or starts one. One of ours that can no
   * longer be asked, because its sockets were removed, is replaced: it finishes its requests and ends. `absent` when
   * somebody else has to start it; that is said once.
   */
  ensure(signal: AbortSignal): Promise<'found' | 'started' | 'absent'>;
  /** Whether a worker may still come: false once the master that was found or started is certain to be gone. */
  isRunning(): boolean;
  /** Asks for a new worker. Rejects with `HAPROXY_UNREACHABLE` when nobody takes the request. */
  requestReload(signal: AbortSignal): Promise<ReloadAnswer>;
  /** What HAProxy itself has said against the file since the last request, or where to look for that. */
  complaint(): Promise<string>;
  /** Lets requests of a HAProxy of ours finish, then ends it; at once after `graceMs`. */
  stop(graceMs: number): Promise<void>;
  /** Keeps the file that HAProxy writes its output to small. To be called every second or so, whatever else happens. */
  tidy(): Promise<void>;
}

/** @param onExit called when a HAProxy that this process has started is gone */
export function createHaproxyProcess(
  config: HaproxyConfig,
  deps: { log: Log; onExit: () => void },
): HaproxyProcess {
  switch (config.mode) {
    case 'managed':
      return createManagedProcess(config, deps);
    case 'external':
      return createExternalProcess(config, deps);
  }
}
