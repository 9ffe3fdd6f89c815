import { rename, rm, stat } from 'node:fs/promises';
import net from 'node:net';

import { systemErrorCode, TandemError } from './errors.ts';

/** The kernel takes 107 bytes; some are needed for the name that the lock of a dead process gets. */
export const MAX_LOCK_PATH = 91;

/** Proof that this process alone does something. Ends with the process, however it ends. */
export interface ProcessLock {
  release(): Promise<void>;
}

/**
 * Takes the lock named by a path. The lock is a listening unix socket, so the kernel gives it up when its holder
 * dies, across containers too; a plain pid file would be wrong as soon as two pid namespaces share a directory.
 * Throws `ALREADY_RUNNING` while a living process holds it.
 */
export async function acquireProcessLock(file: string, purpose: string): Promise<ProcessLock> {
  // Node.js 20 would cut the rest off without a word: the lock would be another one, and perhaps somebody else's.
  if (Buffer.byteLength(file) > MAX_LOCK_PATH)
    throw new TandemError(
      'FILE_WRITE_FAILED',
      `cannot create the lock ${file}: its path is too long for a socket. Choose a shorter one, of at most ` +
        `${MAX_LOCK_PATH} bytes`,
      { details: { file } },
    );
  for (let attempt = 0; attempt < 5; attempt += 1) {
    const server = await tryListen(file);
    if (server !== undefined) return { release: () => release(server) };
    const holder = await askHolder(file);
    if (holder === 'alive') break;
    if (holder === 'foreign') throw await foreign(file);
    await setAsideIfDead(file);
  }
  throw new TandemError('ALREADY_RUNNING', `another process already runs ${purpose} (it holds ${file})`, {
    details: { file },
  });
}

function tryListen(file: string): Promise<net.Server | undefined> {
  return new Promise((resolve, reject) => {
    const server = net.createServer((socket) => socket.destroy());
    server.once('error', (error) => {
      if (systemErrorCode(error) === 'EADDRINUSE') resolve(undefined);
      else
        reject(
          new TandemError('FILE_WRITE_FAILED', `cannot create the lock ${file}: ${reasonOf(error)}`, {
            cause: error,
          }),
        );
    });
    server.listen(file, () => {
      server.unref();
      resolve(server);
    });
  });
}

function reasonOf(error: Error): string {
  switch (systemErrorCode(error)) {
    case 'EACCES':
      return 'permission denied. Give its directory to this user, or choose another directory';
    case 'EROFS':
      return 'the file system is read-only. Mount it for writing, or choose another directory';
    case 'ENOSPC':
      return 'the disk is full. Make room, or choose another directory';
    default:
      return error.message;
  }
}

/** `foreign`: we may not even ask. */
type Holder = 'alive' | 'dead' | 'foreign';

/** Who listens on a unix socket, found out by knocking. */
export function askHolder(file: string): Promise<Holder> {
  return new Promise((resolve) => {
    const socket = net.connect(file);
    const answer = (holder: Holder) => {
      socket.destroy();
      resolve(holder);
    };
    socket.once('connect', () => answer('alive'));
    // Anything that is not listed (such as a full backlog) is taken as alive.
    socket.once('error', (error) => {
      const code = systemErrorCode(error);
      if (code === 'ECONNREFUSED' || code === 'ENOENT') answer('dead');
      else answer(code === 'EACCES' || code === 'EPERM' ? 'foreign' : 'alive');
    });
  });
}

/** Dead or alive, it is not ours to take. */
async function foreign(file: string): Promise<TandemError> {
  const owner = await stat(file).then(
    ({ uid }) => ` (uid ${uid})`,
    () => '',
  );
  return new TandemError(
    'FILE_WRITE_FAILED',
    `cannot take the lock ${file}: it belongs to another user${owner}. ` +
      'Run as that user, or delete the file if nothing of that user runs here any more',
    { details: { file } },
  );
}

/** Only one of several claimants wins the rename; if what it moved turns out to be alive, it goes back. */
export async function setAsideIfDead(file: string): Promise<void> {
  const aside = `${file}.${process.pid}.stale`;
  try {
    await rename(file, aside);
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return;
    throw error;
  }
  if ((await askHolder(aside)) === 'dead') await rm(aside, { force: true });
  else await rename(aside, file);
}

function release(server: net.Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
  });
}
