import { constants } from 'node:fs';
import { copyFile, mkdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';

import { systemErrorCode, writeFileAtomic } from '@tandem/core';

/** haproxy.cfg on disk. */
export interface ConfigFile {
  /** What stands there; undefined when nothing can be read. */
  read(): Promise<string | undefined>;
  /**
   * Makes the file this text, unless it is, whoever has touched it since. Creates the directory when it is gone. What
   * somebody else had written there first is kept beside it, as `<file>.before-tandem`.
   */
  write(text: string): Promise<void>;
}

export function createConfigFile(file: string): ConfigFile {
  let written: { readonly text: string; readonly stamp: string | undefined } | undefined;

  return {
    read: () => readFile(file, 'utf8').catch(() => undefined),
    async write(text) {
      const stamp = await stampOf(file);
      if (stamp !== undefined && stamp === written?.stamp && text === written.text) return;
      if (written === undefined) await keepForeign(file);
      if (stamp === undefined) await mkdir(path.dirname(file), { recursive: true, mode: 0o750 });
      await writeFileAtomic(file, text, { mode: 0o640 });
      written = { text, stamp: await stampOf(file) };
    },
  };
}

/** Every file of ours says which structure it holds. */
const OURS = /^\s*description tandem [0-9a-f]{16}$/m;

async function keepForeign(file: string): Promise<void> {
  const text = await readFile(file, 'utf8').catch(() => undefined);
  if (text === undefined || text.trim() === '' || OURS.test(text)) return;
  try {
    await copyFile(file, `${file}.before-tandem`, constants.COPYFILE_EXCL);
  } catch (error) {
    // The first is the one that its owner will look for.
    if (systemErrorCode(error) !== 'EEXIST') throw error;
  }
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
