import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';

import { type Log, messageOf, systemErrorCode, writeFileAtomic } from '@tandem/core';
import * as z from 'zod';

/** The texts of service files that were in force, by their names in the directory. */
export type ServiceTexts = ReadonlyMap<string, string>;

/**
 * Remembers the last good version of each service file over restarts: one that is broken, or cannot be read, just when
 * a daemon starts would else take a living service with it.
 */
export interface ServiceMemory {
  /** Undefined when there is nothing to go by: none was ever kept, or it cannot be read. */
  recall(): Promise<ServiceTexts | undefined>;
  /** Writes only what is new. Where it cannot be written, that is said once, and the next call tries again. */
  keep(texts: ServiceTexts): Promise<void>;
}

const MemoryFile = z.object({ version: z.literal(1), files: z.record(z.string(), z.string()) });

export function createServiceMemory(file: string, log: Log): ServiceMemory {
  let kept: ServiceTexts | undefined;
  let isFailing = false;
  return {
    async recall() {
      try {
        kept = decode(await readFile(file, 'utf8'));
      } catch (error) {
        if (systemErrorCode(error) !== 'ENOENT')
          log.error({ file, err: messageOf(error) }, 'cannot read the last good versions of service files');
      }
      return kept;
    },
    async keep(texts) {
      const wanted = new Map([...texts].toSorted(([a], [b]) => (a < b ? -1 : 1)));
      if (isDeepStrictEqual(wanted, kept)) return;
      try {
        // A service file may hold what not everybody on the host may read.
        await writeFileAtomic(file, encode(wanted), { mode: 0o600, durable: true });
        kept = wanted;
        isFailing = false;
      } catch (error) {
        if (!isFailing)
          log.error(
            { file, err: messageOf(error) },
            'cannot keep the last good versions of service files, a restart may miss a service whose file is broken',
          );
        isFailing = true;
      }
    },
  };
}

function encode(texts: ServiceTexts): string {
  return `${JSON.stringify({ version: 1, files: Object.fromEntries(texts) })}\n`;
}

function decode(text: string): ServiceTexts {
  const { files } = MemoryFile.parse(JSON.parse(text));
  return new Map(Object.entries(files).filter(([name]) => path.basename(name) === name));
}
