import type { Snapshot } from '@tandem/core';

/** Where the instances of one service come from. Sources hold no policy: they report what is, whole. */
export interface Source {
  /**
   * Yields a full snapshot first and after every change. Silent, never partial, while the backend is away.
   * Ends when the signal is aborted, and releases what it holds.
   */
  watch(signal: AbortSignal): AsyncIterable<Snapshot>;
}
