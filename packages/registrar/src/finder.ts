import type { Log } from '@tandem/core';

import type { ServiceRegistration } from './config.ts';

/** Finds services of this host that no service file names. */
export interface Finder {
  /**
   * Calls back with all that there is now, and with all of it after every change. Silent while whoever tells of it is
   * away: what was found last goes on. Resolves when the signal has ended; never rejects.
   */
  follow(onFound: (found: Found) => void, signal: AbortSignal): Promise<void>;
}

/** All services that a finder knows, in the order in which they may have a place that several want. */
export interface Found {
  readonly registrations: readonly ServiceRegistration[];
  /** False if something could not be read and was never read before: what an earlier life announced may be that. */
  readonly isComplete: boolean;
}

/** What finders need to know of their world. */
export interface FinderScene {
  /** What is announced. */
  readonly address: string;
  /** Where a service stands in the registry unless it says so itself. */
  readonly pathOf: (service: string) => string;
  readonly log: Log;
}
