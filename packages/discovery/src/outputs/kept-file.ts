import { mkdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';

import { writeFileAtomic } from '@tandem/core';

/** `restored`: somebody else had changed or deleted what was written here. */
export type Keeping = 'kept' | 'written' | 'restored';

/** A file that is to have one text, whoever touches it. */
export interface KeptFile {
  /** Makes the file this text, unless it is. Creates its directory when that is gone. Throws `FILE_WRITE_FAILED`. */
  keep(text: string): Promise<Keeping>;
}

export function createKeptFile(file: string, mode: number): KeptFile {
  let last: { readonly text: string; readonly stamp: string | undefined } | undefined;
  return {
    async keep(text) {
      const stamp = await stampOf(file);
      if (stamp !== undefined && stamp === last?.stamp && text === last.text) return 'kept';
      const isKept = await holdsText(file, text);
      if (!isKept) await writeText(file, text, mode);
      const before = last;
      last = { text, stamp: isKept ? stamp : await stampOf(file) };
      if (isKept) return 'kept';
      return before?.text === text ? 'restored' : 'written';
    },
  };
}

/** Whether a file is exactly this text. False for what is no file: a pipe would be read for ever. */
export async function holdsText(file: string, text: string): Promise<boolean> {
  try {
    const bytes = Buffer.from(text);
    const found = await stat(file);
    return found.isFile() && found.size === bytes.length && bytes.equals(await readFile(file));
  } catch {
    return false;
  }
}

async function writeText(file: string, text: string, mode: number): Promise<void> {
  // A failure of this one shows in the next.
  await mkdir(path.dirname(file), { recursive: true, mode: 0o755 }).catch(() => {});
  await writeFileAtomic(file, text, { mode, exactMode: true });
}

/** Changes whenever a file is replaced or written to; undefined when there is none. */
async function stampOf(file: string): Promise<string | undefined> {
  try {
    const { ino, size, mtimeMs } = await stat(file);
    return `${ino} ${size} ${mtimeMs}`;
  } catch {
    return undefined;
  }
}
