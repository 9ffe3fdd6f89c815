import { type FileHandle, open, readdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';

import { messageOf, systemErrorCode, TandemError } from './errors.ts';

interface WriteOptions {
  readonly mode?: number;
  readonly exactMode?: boolean;
  readonly durable?: boolean;
}

let counter = 0;

/**
 * Replaces a file in one step: readers see the old text or the new, never a part, and a full disk leaves the old one.
 * `durable` also survives a power cut (fsync of the file and its directory, which may take tens of milliseconds).
 * The umask takes its part of `mode`, unless `exactMode` says that others are meant to read it. A text may come in
 * parts, which are written as they are; those of an iterator are never in memory together. Throws `FILE_WRITE_FAILED`.
 */
export async function writeFileAtomic(
  file: string,
  text: string | readonly Buffer[] | Iterable<Buffer>,
  options: WriteOptions = {},
): Promise<void> {
  counter += 1;
  const temporary = path.join(path.dirname(file), `.${path.basename(file)}.${process.pid}.${counter}.tmp`);
  try {
    await writeWhole(temporary, text, options);
    await rename(temporary, file);
    if (options.durable === true) await syncDirectory(path.dirname(file));
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {});
    throw new TandemError('FILE_WRITE_FAILED', `cannot write ${file}: ${reasonOf(error)}`, {
      cause: error,
      details: { file },
    });
  }
}

/**
 * Removes what writers that were killed have left of a file: those of processes that are no more, and of earlier ones
 * with the number of this one, as containers have them. Only before this process writes the file itself.
 */
export async function removeLeftovers(file: string): Promise<void> {
  const start = `.${path.basename(file)}.`;
  const names = await readdir(path.dirname(file)).catch(() => []);
  for (const name of names) {
    const [, pid] = (name.startsWith(start) && /^(\d+)\.\d+\.tmp$/.exec(name.slice(start.length))) || [];
    if (pid === undefined || (Number(pid) !== process.pid && isAlive(Number(pid)))) continue;
    await rm(path.join(path.dirname(file), name), { force: true }).catch(() => {});
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    // A process of somebody else lives, too.
    return systemErrorCode(error) !== 'ESRCH';
  }
}

async function writeWhole(
  file: string,
  text: string | readonly Buffer[] | Iterable<Buffer>,
  options: WriteOptions,
) {
  const mode = options.mode ?? 0o644;
  const handle = await open(file, 'wx', mode);
  try {
    if (options.exactMode === true) await handle.chmod(mode);
    if (typeof text === 'string') await handle.writeFile(text);
    else if (Array.isArray(text)) await writeParts(handle, text as readonly Buffer[]);
    else for (const part of text) await writeParts(handle, [part]);
    if (options.durable === true) await handle.sync();
  } finally {
    await handle.close();
  }
}

/** The system may take less at once than it is given. */
async function writeParts(handle: FileHandle, parts: readonly Buffer[]): Promise<void> {
  let rest = parts.filter((part) => part.length > 0);
  while (rest.length > 0) {
    let { bytesWritten: taken } = await handle.writev(rest);
    const next = rest.findIndex((part) => {
      if (taken < part.length) return true;
      taken -= part.length;
      return false;
    });
    rest = next < 0 ? [] : [(rest[next] as Buffer).subarray(taken), ...rest.slice(next + 1)];
  }
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function reasonOf(error: unknown): string {
  switch (systemErrorCode(error)) {
    case 'ENOSPC':
      return 'the disk is full';
    case 'EACCES':
    case 'EPERM':
      return 'permission denied';
    case 'ENOENT':
      return 'the directory does not exist';
    default:
      return messageOf(error);
  }
}
