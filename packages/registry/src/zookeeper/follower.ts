import type { Codec } from '@tandem/core';

import type { Children } from './children.ts';
import type { Session } from './session.ts';

/** One of the ways to keep the children of a path known. */
export interface Follower {
  /** There is a new connection, of the same session or of another. */
  reconnected(session: bigint): void;
  /** Reads what is not known. Rejects when it cannot; what was read by then is kept. */
  sync(signal: AbortSignal): Promise<void>;
  end(): void;
}

export interface FollowerOptions {
  readonly session: Session;
  readonly path: string;
  readonly codec: Codec;
  readonly children: Children;
  /** To be called when there may be something to read or to show. */
  readonly ring: () => void;
}
