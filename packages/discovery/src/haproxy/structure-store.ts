import { readFile } from 'node:fs/promises';

import { type Log, messageOf, systemErrorCode, writeFileAtomic } from '@tandem/core';
import * as z from 'zod';

import type { Structure } from './structure.ts';

/** The last structure that HAProxy ran: what to go on with when a daemon starts with one that HAProxy refuses. */
export interface StructureStore {
  load(): Promise<Structure | undefined>;
  save(structure: Structure): Promise<void>;
}

/** Changes with the shape of a structure: what another version of Tandem has saved is not used. */
const VERSION = 2;

/** JSON has no undefined, and a structure that comes back has to be equal to the one that was saved. */
function absent<T>(type: z.ZodType<T>) {
  return type.nullable().transform((value) => value ?? undefined);
}

const lines = z.array(z.string());
const mode = z.enum(['http', 'tcp']);
const StoredStructure = z.object({
  runtimeSocket: z.string(),
  socketGroup: absent(z.string()),
  global: lines,
  defaults: lines,
  extraSections: z.record(z.string(), lines),
  mapDirectory: z.string(),
  sharedFrontends: z.array(
    z.object({ name: z.string(), binds: z.array(z.string()), bindOptions: z.string(), lines }),
  ),
  portRanges: z.array(z.object({ mode, bind: z.string(), spares: z.number(), balance: z.string() })),
  proxies: z.array(
    z.object({
      name: z.string(),
      bind: absent(z.string()),
      bindOptions: z.string(),
      mode,
      balance: z.string(),
      serverOptions: z.string(),
      firstCheckMs: z.number().exactOptional(),
      frontendLines: lines,
      backendLines: lines,
    }),
  ),
}) satisfies z.ZodType<Structure>;

const Stored = z.object({ version: z.literal(VERSION), structure: StoredStructure });

/** Losing it is a pity, not a failure: problems are logged and the daemon goes on. */
export function createStructureStore(file: string, log: Log): StructureStore {
  return {
    async load() {
      try {
        return Stored.parse(JSON.parse(await readFile(file, 'utf8'))).structure;
      } catch (error) {
        if (systemErrorCode(error) !== 'ENOENT')
          log.warn({ file, err: messageOf(error) }, 'cannot use the saved structure');
        return undefined;
      }
    },
    async save(structure) {
      try {
        const stored = { version: VERSION, structure };
        await writeFileAtomic(file, `${JSON.stringify(stored, (_, value: unknown) => value ?? null)}\n`, {
          mode: 0o640,
        });
      } catch (error) {
        log.warn({ file, err: messageOf(error) }, 'cannot save the structure');
      }
    },
  };
}
