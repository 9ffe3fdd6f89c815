import { once } from 'node:events';

import { type Instance, instanceId, uniqueInstances } from '@tandem/core';
import * as z from 'zod';

import { ConfiguredInstance } from '../config/selection.ts';
import type { Source } from '../source.ts';

/** `static`: instances that stand in the configuration itself. */
export const StaticSection = z.strictObject({
  instances: z
    .array(ConfiguredInstance)
    .min(1)
    .superRefine(checkTwins)
    .describe('where they are: host and port, and if you like name, weight and labels'),
});

export type StaticConfig = z.output<typeof StaticSection>;

/** Two entries for one instance are a slip: the second would say nothing. */
function checkTwins(
  instances: readonly Instance[],
  context: { addIssue(issue: { code: 'custom'; path: number[]; message: string }): void },
): void {
  const seen = new Set<string>();
  for (const [index, instance] of instances.entries()) {
    const id = instanceId(instance);
    if (seen.has(id))
      context.addIssue({ code: 'custom', path: [index], message: 'is the same instance as one above' });
    seen.add(id);
  }
}

export function staticSource({ instances }: StaticConfig): Source {
  const snapshot = { instances: uniqueInstances(instances), rejected: [] };
  return {
    async *watch(signal) {
      if (signal.aborted) return;
      yield snapshot;
      if (!signal.aborted) await once(signal, 'abort');
    },
  };
}
