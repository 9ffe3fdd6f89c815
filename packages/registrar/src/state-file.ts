import { readFile, rename } from 'node:fs/promises';

import { type Log, messageOf, removeLeftovers, systemErrorCode, writeFileAtomic } from '@tandem/core';
import type * as z from 'zod';

/** A small file in `state_dir` that one process reads once and writes from then on. */
export interface StateFile<T> {
  /** Undefined without a file, and with one that makes no sense: that is said, and it is set aside for a person. */
  read(): Promise<T | undefined>;
  /**
   * Replaces what was written before, one write after the other; whoever waits for an earlier one gets the newest, too.
   * Resolves with whether it is on the disk. What cannot be written is said when that begins.
   */
  write(value: T): Promise<boolean>;
}

export interface StateFileOptions<T> {
  readonly file: string;
  readonly schema: z.ZodType<T>;
  /** What it is about, for the log. */
  readonly what: string;
  /** Whether it has to survive a power cut, too. */
  readonly durable: boolean;
  readonly log: Log;
}

export function createStateFile<T>(options: StateFileOptions<T>): StateFile<T> {
  const { file, schema, what, durable, log } = options;
  let newest: T | undefined;
  let writing: Promise<boolean> = Promise.resolve(true);
  let isFailing = false;

  async function setAside(reason: string): Promise<undefined> {
    const broken = `${file}.broken`;
    const keptAs = await rename(file, broken).then(
      () => broken,
      () => undefined,
    );
    log.error({ file, what, err: reason, keptAs }, 'cannot read what was remembered, going on without it');
    return undefined;
  }

  async function write(previous: Promise<boolean>): Promise<boolean> {
    await previous;
    try {
      await writeFileAtomic(file, `${JSON.stringify(newest)}\n`, { mode: 0o640, durable });
      isFailing = false;
      return true;
    } catch (error) {
      if (!isFailing)
        log.error({ file, what, err: messageOf(error) }, 'cannot remember this, a restart will forget it');
      isFailing = true;
      return false;
    }
  }

  return {
    async read() {
      await removeLeftovers(file);
      let text: string;
      try {
        text = await readFile(file, 'utf8');
      } catch (error) {
        return systemErrorCode(error) === 'ENOENT' ? undefined : setAside(messageOf(error));
      }
      try {
        return schema.parse(JSON.parse(text));
      } catch (error) {
        return setAside(messageOf(error));
      }
    },
    write(value) {
      newest = value;
      writing = write(writing);
      return writing;
    },
  };
}
