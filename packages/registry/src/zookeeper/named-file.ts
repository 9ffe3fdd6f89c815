import { readFile } from 'node:fs/promises';

import { type Log, messageOf, systemErrorCode, TandemError, withDeadline } from '@tandem/core';

/** A file that the configuration names: whatever is wrong with it is told with the key, to whoever must mend it. */
export interface NamedFile {
  /** Such as `registry.zookeeper.tls.ca_file`. */
  readonly key: string;
  readonly file: string;
}

/** A file on a dead network file system must not hold up a connection. */
const READ_DEADLINE_MS = 2_000;

/** Rejects with `CONFIG_INVALID` when it cannot be read. */
export async function readNamedFile(named: NamedFile, signal: AbortSignal | undefined): Promise<string> {
  try {
    return await withDeadline(signal, READ_DEADLINE_MS, (signal) =>
      readFile(named.file, { encoding: 'utf8', signal }),
    );
  } catch (error) {
    signal?.throwIfAborted();
    const { reason, remedy } = explain(error);
    throw fileProblem(named, reason, remedy);
  }
}

/** A mistake in what a file holds, or the file itself; `details` say the same in parts. */
export function fileProblem({ key, file }: NamedFile, reason: string, remedy: string): TandemError {
  const details = { key, reason: `${file} ${reason}`, remedy };
  return new TandemError('CONFIG_INVALID', `${key}: ${details.reason}. ${remedy}`, { details });
}

function explain(error: unknown): { reason: string; remedy: string } {
  switch (systemErrorCode(error)) {
    case 'ENOENT':
    case 'ENOTDIR':
      return { reason: 'does not exist', remedy: 'Create it, or name another one' };
    case 'EACCES':
      return { reason: 'may not be read by this user', remedy: 'Change its owner or mode' };
    case 'EISDIR':
      return { reason: 'is a directory, not a file', remedy: 'Name a file in it' };
    default:
      return { reason: `cannot be read: ${messageOf(error)}`, remedy: 'Look at its file system' };
  }
}

/** Something made of files that others replace at any time. */
export interface Refreshed<T> {
  /**
   * Made of the files as they are now; as long as that does not work, of what they last were. Rejects only with the
   * reason of the signal.
   */
  read(signal: AbortSignal): Promise<T>;
}

/** Reads once, and rejects when that fails: at the start there is nothing to fall back on. */
export async function openRefreshed<T>(options: {
  make: (signal: AbortSignal | undefined) => Promise<T>;
  log: Log;
}): Promise<Refreshed<T>> {
  const { make, log } = options;
  let lastGood = await make(undefined);
  const told = new Set<string>();

  return {
    async read(signal) {
      try {
        lastGood = await make(signal);
        if (told.size > 0) log.info({}, 'the files for connecting to ZooKeeper can be used again');
        told.clear();
      } catch (error) {
        signal.throwIfAborted();
        const reason = messageOf(error);
        if (!told.has(reason))
          log.warn(
            { reason },
            'a file for connecting to ZooKeeper cannot be used, going on with what it was',
          );
        told.add(reason);
      }
      return lastGood;
    },
  };
}
