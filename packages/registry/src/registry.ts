import type { Instance, RecordFormat, Snapshot } from '@tandem/core';

/** Which place in the registry is meant: one instance of one service. Several may share a path. */
export type Place = Pick<Instance, 'name' | 'host' | 'port'>;

/**
 * One place in the registry that belongs to this process. Whatever happens in between (outages, expired sessions,
 * nodes deleted by others, lost answers), the registry ends as the last `set` says. Nothing is ever forgotten.
 *
 * Until the first `set`, an instance that an earlier life of this process announced stays as it is.
 */
export interface Announcer {
  /** What shall stand there: an instance (with the name, host and port of the place), or nothing. Newest wins. */
  set(instance: Instance | undefined): void;
  /** Resolves when the registry has confirmed the last `set`; rejects with the reason of the signal. */
  agreed(signal: AbortSignal): Promise<void>;
  /** Whether it has confirmed the last `set`, as far as is known at this moment. True before the first one. */
  readonly isAgreed: boolean;
  /** Gives the place up without touching what stands there. */
  release(): void;
}

/**
 * Nerve's names for the kinds of node. An ephemeral one goes with the client; a persistent one stays until it is
 * withdrawn, also when its host burns down. A sequential one gets a number; the others have a name that only one of all
 * instances below the path can have.
 */
export const NODE_TYPES = [
  'ephemeral_sequential',
  'ephemeral',
  'persistent_sequential',
  'persistent',
] as const;
export type NodeType = (typeof NODE_TYPES)[number];

/** How an instance is written. A registry without such a choice ignores it. */
export interface AnnounceOptions {
  /** Default: Nerve's. */
  readonly format?: RecordFormat;
  /** Default: `ephemeral_sequential`. */
  readonly nodeType?: NodeType;
  /** Whether the node's name holds the record too. Default: the registry's setting. */
  readonly pathEncoding?: boolean;
  /** How often a persistent node is written again with what it says already, as a sign of life. Default: never. */
  readonly ttlMs?: number;
}

export interface WatchOptions {
  /** Default: Nerve's. */
  readonly format?: RecordFormat;
}

export interface RegistryStatus {
  readonly state: 'connecting' | 'connected' | 'suspended' | 'lost' | 'closed' | 'failed';
}

/** Where instances are announced and watched. Implementations pass one conformance suite. */
export interface Registry {
  /**
   * Claims a place below a path such as `/services/web`. Throws when it is claimed already, or when the name that the
   * node would have is another claim's.
   */
  announce(path: string, place: Place, options?: AnnounceOptions): Announcer;

  /**
   * Withdraws what an earlier life of this process announced and nobody has claimed since.
   * To be called once, after every `announce` of a start. Goes on in the background until the registry agrees.
   */
  withdrawUnclaimed(): void;

  /**
   * Yields a full snapshot first and after every change. Silent, never partial, while the registry is away.
   * A path that does not exist has no instances and is waited for. Ends when the signal is aborted.
   */
  watch(path: string, signal: AbortSignal, options?: WatchOptions): AsyncIterable<Snapshot>;

  readonly status: RegistryStatus;

  /**
   * Ends the client within a few seconds, whatever the registry does.
   * `keep: true` leaves what is announced to a successor that resumes; otherwise it goes with the client, but for
   * persistent nodes: those stay until they are withdrawn.
   */
  close(options?: { keep?: boolean }): Promise<void>;
}
