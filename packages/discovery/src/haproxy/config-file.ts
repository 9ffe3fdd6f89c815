import { constants, existsSync } from 'node:fs';
import { copyFile, mkdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';

import { removeLeftovers, systemErrorCode, writeFileAtomic } from '@tandem/core';

/** haproxy.cfg on disk. */
export interface ConfigFile {
  /** What stands there; undefined when nothing can be read. */
  read(): Promise<string | undefined>;
  /**
   * Makes the file what these parts are together, unless it is, whoever has touched it since. Creates the directory
   * when it is gone. One write at a time: what comes while one runs waits for it. What somebody else had written there
   * before the first is kept beside it, as `<file>.before-tandem`. What a killed daemon has left of a write goes.
   */
  write(parts: readonly Buffer[]): Promise<void>;
  /**
   * Waits for a write, but not long: nobody who only changes servers is held up by a great file or a slow disk. After
   * a write that has failed, the next is waited for to its end. Rejects only then.
   */
  giveHeadStart(writing: Promise<void>, ms: number): Promise<void>;
  /** Whether nobody has touched the file since the last write. */
  isIntact(): Promise<boolean>;
}

/** @param keepsForeign whether what somebody else had written there first is kept beside it */
export function createConfigFile(file: string, { keepsForeign = true } = {}): ConfigFile {
  let written: { readonly parts: readonly Buffer[]; readonly stamp: string | undefined } | undefined;
  let writing: Promise<void> = Promise.resolve();
  /** Whether the last write has worked. */
  let isSound = false;

  async function write(parts: readonly Buffer[]): Promise<void> {
    if (written !== undefined && isSame(parts, written.parts) && (await isIntact())) return;
    if (written === undefined) {
      if (keepsForeign) await keepForeign(file);
      await removeLeftovers(file);
    }
    await writeFileAtomic(file, parts, { mode: 0o640 }).catch(async (error: unknown) => {
      if (existsSync(path.dirname(file))) throw error;
      await mkdir(path.dirname(file), { recursive: true, mode: 0o750 });
      await writeFileAtomic(file, parts, { mode: 0o640 });
    });
    written = { parts, stamp: await stampOf(file) };
  }
  async function attempt(parts: readonly Buffer[]): Promise<void> {
    try {
      await write(parts);
      isSound = true;
    } catch (error) {
      isSound = false;
      throw error;
    }
  }
  async function isIntact(): Promise<boolean> {
    const stamp = await stampOf(file);
    return stamp !== undefined && stamp === written?.stamp;
  }

  return {
    read: () => readFile(file, 'utf8').catch(() => undefined),
    write(parts) {
      const next = writing.then(() => attempt(parts));
      writing = next.catch(() => {});
      return next;
    },
    async giveHeadStart(next, ms) {
      if (!isSound) return next;
      let timer: NodeJS.Timeout | undefined;
      const isOver = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, ms);
      });
      try {
        await Promise.race([next, isOver]);
      } finally {
        clearTimeout(timer);
      }
      // Whoever waits for it later sees its failure; until then it is nobody's unhandled rejection.
      next.catch(() => {});
      return undefined;
    },
    async isIntact() {
      await writing;
      return isIntact();
    },
  };
}

function isSame(a: readonly Buffer[], b: readonly Buffer[]): boolean {
  return (
    a.length === b.length && a.every((part, index) => part === b[index] || part.equals(b[index] ?? EMPTY))
  );
}

const EMPTY = Buffer.alloc(0);

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
    const { ino, size, mtimeMs, ctimeMs } = await stat(file);
    return `${ino} ${size} ${mtimeMs} ${ctimeMs}`;
  } catch {
    return undefined;
  }
}
