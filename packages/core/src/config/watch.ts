import { type FSWatcher, statSync, watch } from 'node:fs';

import { sleepOrAborted } from '../deadline.ts';
import { createLatest } from '../latest.ts';

export interface WatchOptions {
  /** Changes are told once nothing has happened for so long … */
  readonly quietMs?: number;
  /** … but at the latest so long after the first of them. */
  readonly maxMs?: number;
  readonly rescanMs?: number;
  readonly signal: AbortSignal;
}

const MISSING_CHECK_MS = 500;

/**
 * Yields whenever something in one of the directories may have changed, once it is quiet: a dozen files that config
 * management writes in a row are one change, and a file is not read in the middle of its writing.
 * Says only that it is time to read again: editors, config management and Kubernetes all replace files in their own
 * way. Directories that are deleted and made again are found again; a rescan every `rescanMs` covers file systems
 * without events.
 */
export async function* watchDirectories(
  directories: readonly string[],
  { quietMs = 100, maxMs = 2_000, rescanMs = 30_000, signal }: WatchOptions,
): AsyncGenerator<void> {
  const changes = createLatest<true>(signal);
  const watchers = new Map<string, { readonly watcher: FSWatcher; readonly inode: number }>();
  const suspects = new Set<string>();
  let changedAt = performance.now();
  let count = 0;
  let told = 0;

  function changed(): void {
    count += 1;
    changedAt = performance.now();
    changes.set(true);
  }
  /** Watches what is there, and says whether that is another directory than before. */
  function arm(): boolean {
    let isOther = false;
    for (const directory of directories) {
      const inode = inodeOf(directory);
      const before = watchers.get(directory);
      if (before !== undefined && before.inode === inode) continue;
      disarm(directory);
      isOther ||= before !== undefined;
      if (inode === undefined) continue;
      try {
        const watcher = watch(directory, (event) => {
          // Its own end is told like that of a file in it, and the next one may have the same inode.
          if (event === 'rename') suspects.add(directory);
          changed();
        });
        watcher.on('error', () => disarm(directory));
        watchers.set(directory, { watcher, inode });
        isOther = true;
      } catch {
        // Not there any more: the next look tries again.
      }
    }
    return isOther;
  }
  function disarm(directory: string): void {
    watchers.get(directory)?.watcher.close();
    watchers.delete(directory);
  }
  function rescan(): void {
    // A watcher of a directory that was deleted or replaced stays silent for ever.
    for (const directory of directories) disarm(directory);
    arm();
    changed();
  }

  arm();
  const rescanTimer = setInterval(rescan, rescanMs);
  const missingTimer = setInterval(() => {
    if (arm()) changed();
  }, MISSING_CHECK_MS);
  try {
    for await (const _ of changes) {
      // It came before the last one was told.
      if (count === told) continue;
      const firstAt = performance.now();
      let restMs = quietMs;
      while (restMs > 0) {
        if (await sleepOrAborted(restMs, signal)) return;
        const now = performance.now();
        restMs = Math.min(changedAt + quietMs, firstAt + maxMs) - now;
      }
      for (const directory of suspects) disarm(directory);
      suspects.clear();
      arm();
      told = count;
      yield;
    }
  } finally {
    clearInterval(rescanTimer);
    clearInterval(missingTimer);
    for (const directory of directories) disarm(directory);
  }
}

function inodeOf(directory: string): number | undefined {
  try {
    return statSync(directory).ino;
  } catch {
    return undefined;
  }
}
