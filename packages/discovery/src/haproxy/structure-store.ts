import { readFile } from 'node:fs/promises';

import { type Log, messageOf, systemErrorCode, writeFileAtomic } from '@tandem/core';
import * as z from 'zod';

import type { Structure } from './structure.ts';

/** The last structure that HAProxy ran: what to go on with when a daemon starts with one that HAProxy refuses. */
export interface StructureStore {
  load(): Promise<Structure | undefined>;
  save(structure: Structure): Promise<void>;
}

const StoredStructure = z.object({
  runtimeSocket: z.string(),
  global: z.array(z.string()),
  defaults: z.array(z.string()),
  extraSections: z.record(z.string(), z.array(z.string())),
  proxies: z.array(
    z.object({
      name: z.string(),
      bind: z.string().or(z.undefined()),
      bindOptions: z.string(),
      mode: z.enum(['http', 'tcp']),
      balance: z.string(),
      serverOptions: z.string(),
      firstCheckMs: z.number().exactOptional(),
      frontendLines: z.array(z.string()),
      backendLines: z.array(z.string()),
    }),
  ),
}) satisfies z.ZodType<Structure>;

/** Losing it is a pity, not a failure: problems are logged and the daemon goes on. */
export function createStructureStore(file: string, log: Log): StructureStore {
  return {
    async load() {
      try {
        return StoredStructure.parse(JSON.parse(await readFile(file, 'utf8')));
      } catch (error) {
        if (systemErrorCode(error) !== 'ENOENT')
          log.warn({ file, err: messageOf(error) }, 'cannot use the saved structure');
        return undefined;
      }
    },
    async save(structure) {
      try {
        await writeFileAtomic(file, `${JSON.stringify(structure)}\n`, { mode: 0o640 });
      } catch (error) {
        log.warn({ file, err: messageOf(error) }, 'cannot save the structure');
      }
    },
  };
}
