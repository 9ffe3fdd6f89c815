import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import path from 'node:path';

import { messageOf, systemErrorCode, TandemError } from './errors.ts';

let counter = 0;

/**
 * Replaces a file in one step: readers see the old text or the new, never a part, and a full disk leaves the old one.
 * `durable` also survives a power cut (fsync of the file and its directory, which may take tens of milliseconds).
 * A text may come in parts, which are written as they are. Throws `FILE_WRITE_FAILED`.
 */
export async function writeFileAtomic(
  file: string,
  text: string | readonly Buffer[],
  options: { mode?: number; durable?: boolean } = {},
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

async function writeWhole(
  file: string,
  text: string | readonly Buffer[],
  options: { mode?: number; durable?: boolean },
) {
  const handle = await open(file, 'wx', options.mode ?? 0o644);
  try {
    if (typeof text === 'string') await handle.writeFile(text);
    else await writeParts(handle, text);
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
