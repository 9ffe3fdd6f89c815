import type { Log } from '@tandem/core';
import * as z from 'zod';

import { NO_OVERRIDES, type Overrides } from './overrides.ts';
import { createStateFile, type StateFile } from './state-file.ts';

/** Remembers what operators want, over restarts. */
export interface OverridesStore {
  readonly overrides: Overrides;
  /**
   * In force at once. Resolves with whether it will be remembered: an operator in need of a drain gets it on a full disk,
   * too.
   */
  set(overrides: Overrides): Promise<boolean>;
}

const StoreFile = z.object({
  version: z.literal(1),
  drain_all: z.boolean(),
  exempt: z.array(z.string()),
  drained: z.array(z.string()),
  weights: z.record(z.string(), z.number().int().min(0).max(256)),
});

/** For a registrar without a place to remember anything. */
export function createForgetfulStore(): OverridesStore {
  return storeOf(NO_OVERRIDES, () => Promise.resolve(false));
}

/** Reads what was remembered. Without a file, or with one that cannot be read, there is nothing. */
export async function openOverridesStore(file: string, log: Log): Promise<OverridesStore> {
  const options = { file, schema: StoreFile, what: 'drains and weights of operators', durable: true, log };
  const stateFile: StateFile<z.output<typeof StoreFile>> = createStateFile(options);
  const read = await stateFile.read();
  const remembered: Overrides =
    read === undefined
      ? NO_OVERRIDES
      : {
          drainAll: read.drain_all,
          exempt: new Set(read.exempt),
          drained: new Set(read.drained),
          weights: new Map(Object.entries(read.weights)),
        };
  return storeOf(remembered, ({ drainAll, exempt, drained, weights }) =>
    stateFile.write({
      version: 1,
      drain_all: drainAll,
      exempt: [...exempt].toSorted(),
      drained: [...drained].toSorted(),
      weights: Object.fromEntries(weights),
    }),
  );
}

function storeOf(initial: Overrides, keep: (overrides: Overrides) => Promise<boolean>): OverridesStore {
  let overrides = initial;
  return {
    get overrides() {
      return overrides;
    },
    set(wanted) {
      overrides = wanted;
      return keep(wanted);
    },
  };
}
