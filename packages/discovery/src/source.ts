import { setMaxListeners } from 'node:events';
import { isDeepStrictEqual } from 'node:util';

import {
  createLatest,
  type Instance,
  instanceId,
  type Log,
  type RecordFormat,
  type Snapshot,
} from '@tandem/core';
import type { Registry } from '@tandem/registry';

/** Where the instances of one service come from. Sources hold no policy: they report what is, whole. */
export interface Source {
  /**
   * Yields a full snapshot first and after every change. Silent, never partial, while the backend is away: the last
   * snapshot holds until the next one. Each identity is once in it, in the order of `compareInstances`; a record that
   * cannot be an instance costs itself only, and stands in `rejected`. Instances that have not changed are the same
   * objects as before where the backend makes that cheap.
   * Ends when the signal is aborted or the reader leaves, and has released what it held by then.
   */
  watch(signal: AbortSignal): AsyncIterable<Snapshot>;
}

/** What sources are made of, and where they stand. */
export interface SourceScene {
  readonly registry: Registry;
  /** Where the service stands in the registry. */
  readonly path: string;
  readonly format: RecordFormat;
  /** What this host is called: hosts that have to choose differently choose by it. */
  readonly hostName: string;
  readonly log: Log;
}

/**
 * Runs a task in the background for as long as somebody reads, and yields what it publishes: the newest, where several
 * wait. The task's signal ends with the given one or with the reader. The iteration is over when the task is, with its
 * error if it fails, and the task is when the iteration is.
 */
export async function* publishedBy<T>(
  signal: AbortSignal,
  task: (publish: (value: T) => void, signal: AbortSignal) => Promise<void>,
): AsyncGenerator<T, void, undefined> {
  if (signal.aborted) return;
  const controller = new AbortController();
  // One signal may end the watches of many services, and of many parts of one.
  for (const each of [signal, controller.signal]) setMaxListeners(0, each);
  const published = createLatest<T>(controller.signal);
  const onAbort = () => controller.abort(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  let failure: { readonly error: unknown } | undefined;
  const done = task((value) => published.set(value), controller.signal)
    .catch((error: unknown) => {
      if (!controller.signal.aborted) failure = { error };
    })
    .finally(() => published.close());
  try {
    yield* published;
  } finally {
    signal.removeEventListener('abort', onAbort);
    controller.abort();
    await done;
  }
  if (failure !== undefined) throw failure.error;
}

/**
 * The newer snapshot, with the records of the older one wherever they say the same; the older one itself if all of it
 * does. What follows may then tell by identity what has changed.
 */
export function reuseRecords(older: Snapshot | undefined, newer: Snapshot): Snapshot {
  if (older === undefined) return newer;
  const known = new Map(older.instances.map((instance) => [instanceId(instance), instance]));
  const instances = newer.instances.map((instance) => {
    const before = known.get(instanceId(instance));
    return before !== undefined && isDeepStrictEqual(before, instance) ? before : instance;
  });
  const isSame =
    areSame(older.instances, instances) &&
    (older.rejected === newer.rejected || isDeepStrictEqual(older.rejected, newer.rejected));
  return isSame ? older : { instances, rejected: newer.rejected };
}

function areSame(a: readonly Instance[], b: readonly Instance[]): boolean {
  return a.length === b.length && a.every((instance, index) => instance === b[index]);
}

/** Tells a trouble when it begins or becomes another one, and its end with undefined; nothing in between. */
export function toldOnce(tell: (trouble: string | undefined) => void): (trouble: string | undefined) => void {
  let told: string | undefined;
  return (trouble) => {
    if (trouble === told) return;
    told = trouble;
    tell(trouble);
  };
}
