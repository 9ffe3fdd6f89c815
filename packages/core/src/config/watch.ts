import { type FSWatcher, watch } from 'node:fs';

import { sleepOrAborted } from '../deadline.ts';
import { createLatest } from '../latest.ts';

/**
 * Yields whenever something in one of the directories may have changed, after `quietMs` of quiet.
 * Says only that it is time to read again: editors, config management and Kubernetes all replace files in their own
 * way. A rescan every `rescanMs` covers file systems without events and directories that are deleted and re-created.
 */
export async function* watchDirectories(
  directories: readonly string[],
  options: { quietMs?: number; rescanMs?: number; signal: AbortSignal },
): AsyncGenerator<void> {
  const { quietMs = 100, rescanMs = 30_000, signal } = options;
  const changes = createLatest<true>(signal);
  const watchers = new Map<string, FSWatcher>();

  function arm(): void {
    for (const directory of directories) {
      if (watchers.has(directory)) continue;
      try {
        const watcher = watch(directory, () => changes.set(true));
        watcher.on('error', () => disarm(directory));
        watchers.set(directory, watcher);
      } catch {
        // Not there at present: the rescan tries again.
      }
    }
  }
  function disarm(directory: string): void {
    watchers.get(directory)?.close();
    watchers.delete(directory);
  }
  function rescan(): void {
    // A watcher of a deleted directory stays silent for ever, so they are all made anew.
    for (const directory of directories) disarm(directory);
    arm();
    changes.set(true);
  }

  arm();
  const timer = setInterval(rescan, rescanMs);
  try {
    for await (const _ of changes) {
      if (await sleepOrAborted(quietMs, signal)) return;
      yield;
    }
  } finally {
    clearInterval(timer);
    for (const directory of directories) disarm(directory);
  }
}
