import type { Log, RecordFormat, Snapshot } from '@tandem/core';
import type { Registry } from '@tandem/registry';

/** Where the instances of one service come from. Sources hold no policy: they report what is, whole. */
export interface Source {
  /**
   * Yields a full snapshot first and after every change. Silent, never partial, while the backend is away.
   * Ends when the signal is aborted, and releases what it holds.
   */
  watch(signal: AbortSignal): AsyncIterable<Snapshot>;
}

/** What sources are made of, and where they stand. */
export interface SourceScene {
  readonly registry: Registry;
  /** Where the service stands in the registry. */
  readonly path: string;
  readonly format: RecordFormat;
  readonly log: Log;
}
