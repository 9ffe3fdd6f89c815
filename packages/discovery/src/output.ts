import type { Instance, InstanceId } from '@tandem/core';

import type { DiscoveredService } from './config/discover.ts';

/** An operator's deliberate drain (what is begun may finish) or maintenance of an instance. */
export type HoldKind = 'drain' | 'maint';

/** What is to be used of one service. */
export interface Offer {
  readonly service: DiscoveredService;
  /**
   * With IP literals for hosts, in a stable order; the same array, and the same records, as long as nothing has
   * changed. Undefined while nothing is known: an output keeps what it has.
   */
  readonly instances: readonly Instance[] | undefined;
  /** Instances that stay members, but get no traffic from this host. */
  readonly holds: ReadonlyMap<InstanceId, HoldKind>;
}

/** By the name of the service. */
export type Offers = ReadonlyMap<string, Offer>;

/** Something that is kept in step with the services: HAProxy, files. */
export interface Output {
  /** What is wanted from now on. Returns at once; the newest wins. */
  offer(offers: Offers): void;
  /** Resolves when the signal is aborted. Failures are logged and tried again; they never end it. */
  run(signal: AbortSignal): Promise<void>;
}
