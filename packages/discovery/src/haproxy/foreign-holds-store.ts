import { readFile } from 'node:fs/promises';

import { type Log, messageOf, systemErrorCode, writeFileAtomic } from '@tandem/core';
import * as z from 'zod';

import type { ForeignHolds } from './running-view.ts';

/** Remembers, over restarts of the daemon, whom somebody else holds: HAProxy does not tell by whose will it is. */
export interface ForeignHoldsStore {
  /** Without a file, or with one that cannot be read, nobody is held. */
  load(): Promise<ForeignHolds>;
  /** Losing it is a pity, not a failure: problems are logged and the daemon goes on. */
  save(holds: ForeignHolds): Promise<void>;
}

const Stored = z.object({
  version: z.literal(1),
  holds: z.record(z.string(), z.record(z.string(), z.enum(['drain', 'maint']))),
});

export function createForeignHoldsStore(file: string, log: Log): ForeignHoldsStore {
  return {
    async load() {
      try {
        const { holds } = Stored.parse(JSON.parse(await readFile(file, 'utf8')));
        return new Map(Object.entries(holds).map(([name, held]) => [name, new Map(Object.entries(held))]));
      } catch (error) {
        if (systemErrorCode(error) !== 'ENOENT')
          log.warn({ file, err: messageOf(error) }, 'cannot read whom somebody else holds');
        return new Map();
      }
    },
    async save(foreign) {
      const holds = Object.fromEntries([...foreign].map(([name, held]) => [name, Object.fromEntries(held)]));
      try {
        await writeFileAtomic(file, `${JSON.stringify({ version: 1, holds })}\n`, { mode: 0o640 });
      } catch (error) {
        log.warn({ file, err: messageOf(error) }, 'cannot remember whom somebody else holds');
      }
    },
  };
}
