import { readFile, stat } from 'node:fs/promises';

import { messageOf, systemErrorCode, withDeadline } from '@tandem/core';
import * as z from 'zod';

/** A relative one is relative to the host file. */
export const FileName = z
  .string()
  .max(4_096)
  .regex(/^\P{Cc}+$/u, 'must be the path of a file');

/** What was made of files, or why not. With a warning it can be used all the same. */
export type Made<T> =
  | { readonly ok: true; readonly value: T; readonly warning?: string }
  | { readonly ok: false; readonly reason: string };

/** One file as it was read. */
export interface FileText {
  readonly file: string;
  readonly text: string;
  readonly mode: number;
}

/** Something made of files that others replace at any time. */
export interface Refreshed<T> {
  /**
   * Made of the files as they are now; as long as that does not work, of what they last were, with a warning: a renewal
   * that is half done hurts nobody. Whatever is wrong with them is a value; so is the end of the signal.
   */
  read(signal: AbortSignal): Promise<Made<T>>;
}

const MAX_FILE_BYTES = 1 << 20;
/** How long a file system that does not answer holds up those who have something to go on with. */
const PATIENCE_MS = 100;
/** And those who have not; the signal of a probe ends before, as a rule. */
const LIMIT_MS = 10_000;

/** Reads when it is asked, and makes it anew only when a file has changed. Nothing is read before. */
export function createRefreshed<T>(
  files: readonly string[],
  make: (texts: readonly FileText[]) => Made<T>,
): Refreshed<T> {
  let last: { readonly version: string; readonly made: Made<T> } | undefined;
  let lastGood: { readonly value: T } | undefined;
  let looking: Promise<Made<T>> | undefined;

  async function look(): Promise<Made<T>> {
    const versions: string[] = [];
    for (const file of files) {
      const seen = await versionOf(file);
      if (!seen.ok) return seen;
      versions.push(seen.value);
    }
    const version = versions.join();
    if (version === last?.version) return last.made;
    const texts: FileText[] = [];
    for (const file of files) {
      const text = await readText(file);
      if (!text.ok) return text;
      texts.push(text.value);
    }
    const made = make(texts);
    // A file that was replaced meanwhile has another version by the next look.
    last = { version, made };
    if (made.ok) lastGood = made;
    return made;
  }

  return {
    async read(signal) {
      // One at a time: each that waits holds one of the few threads that files are read with.
      looking ??= look().finally(() => {
        looking = undefined;
      });
      const current = looking;
      const made = await withDeadline(signal, lastGood === undefined ? LIMIT_MS : PATIENCE_MS, () => current)
        // Only the end of the signal or of the time: a look never rejects.
        .catch(() => refuse(`${files.join(' or ')} cannot be read: the file system does not answer`));
      if (made.ok || lastGood === undefined) return made;
      return { ok: true, value: lastGood.value, warning: `${made.reason}. Going on with what it was before` };
    },
  };
}

function refuse(reason: string): { readonly ok: false; readonly reason: string } {
  return { ok: false, reason };
}

async function versionOf(file: string): Promise<Made<string>> {
  try {
    const found = await stat(file);
    if (!found.isFile()) return refuse(`${file} is not a file`);
    if (found.size > MAX_FILE_BYTES) return refuse(`${file} is too large: more than ${MAX_FILE_BYTES} bytes`);
    const { ino, size, mode, mtimeMs, ctimeMs } = found;
    return { ok: true, value: [ino, size, mode, mtimeMs, ctimeMs].join(' ') };
  } catch (error) {
    return refuse(unreadable(file, error));
  }
}

async function readText(file: string): Promise<Made<FileText>> {
  try {
    const [text, { mode }] = await Promise.all([readFile(file, 'utf8'), stat(file)]);
    return { ok: true, value: { file, text, mode } };
  } catch (error) {
    return refuse(unreadable(file, error));
  }
}

function unreadable(file: string, error: unknown): string {
  switch (systemErrorCode(error)) {
    case 'ENOENT':
    case 'ENOTDIR':
      return `${file} does not exist`;
    case 'EACCES':
      return `${file} may not be read by this user: change its owner or mode`;
    default:
      return `${file} cannot be read: ${messageOf(error)}`;
  }
}
