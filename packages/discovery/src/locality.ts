import type { Instance } from '@tandem/core';

import type { LocalityPolicy } from './config/selection.ts';

/**
 * The instances near this host: those that share its first label's value, and, while fewer than `spillBelow` of them
 * count, those that share the next one's, at last all. A label that this host does not have brings nobody near.
 * Losing an instance never removes another one, and one that joins never adds one from farther away.
 */
export function preferNear(
  instances: readonly Instance[],
  policy: LocalityPolicy,
  hostLabels: Readonly<Record<string, string>>,
  counts: (instance: Instance) => boolean,
): readonly Instance[] {
  for (let level = 1; level <= policy.prefer.length; level += 1) {
    const labels = policy.prefer.slice(0, level);
    const near = instances.filter((instance) =>
      labels.some((label) => isShared(label, hostLabels, instance.labels ?? {})),
    );
    if (near.filter(counts).length >= policy.spillBelow) return near;
  }
  return instances;
}

/** Labels come from outside and may be called `constructor`. */
function isShared(
  label: string,
  mine: Readonly<Record<string, string>>,
  theirs: Readonly<Record<string, string>>,
): boolean {
  return Object.hasOwn(mine, label) && Object.hasOwn(theirs, label) && mine[label] === theirs[label];
}
