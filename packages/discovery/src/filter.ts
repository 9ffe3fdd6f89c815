import type { Instance, Snapshot } from '@tandem/core';

import type { Filter } from './config/selection.ts';
import { reuseRecords, type Source } from './source.ts';

/** Whether an instance has every label of the filter, each with a value that it allows. */
export function matchesFilter({ labels }: Instance, filter: Filter): boolean {
  return Object.entries(filter).every(([label, allowed]) => {
    const value = labels?.[label];
    return value !== undefined && allowed.includes(value);
  });
}

/** Only the instances that match, as the same objects. What happens to the others is not heard of. */
export function filtered(source: Source, filter: Filter): Source {
  if (Object.keys(filter).length === 0) return source;
  return {
    async *watch(signal) {
      let shown: Snapshot | undefined;
      for await (const { instances, rejected } of source.watch(signal)) {
        const matching = instances.filter((instance) => matchesFilter(instance, filter));
        const view = reuseRecords(shown, { instances: matching, rejected });
        if (view === shown) continue;
        shown = view;
        yield view;
      }
    },
  };
}
