import type { Instance, Snapshot } from '@tandem/core';

/** The last good snapshot of every service. A service that nothing is known of is not in it. */
export type Catalog = ReadonlyMap<string, CatalogEntry>;

export interface CatalogEntry {
  readonly instances: readonly Instance[];
  /** True when the source reports none and the last ones are kept. */
  readonly kept: boolean;
}

export const emptyCatalog: Catalog = new Map();

/**
 * The catalog after a snapshot. A service whose last usable instance vanished keeps those it had, unless it is allowed
 * to be empty: an answer that somebody might still give beats none at all.
 */
export function recordSnapshot(
  catalog: Catalog,
  service: string,
  snapshot: Snapshot,
  policy: { allowEmpty: boolean; isUsable: (instance: Instance) => boolean },
): Catalog {
  const before = catalog.get(service)?.instances ?? [];
  const keep =
    !policy.allowEmpty && before.some(policy.isUsable) && !snapshot.instances.some(policy.isUsable);
  const entry = keep ? { instances: before, kept: true } : { instances: snapshot.instances, kept: false };
  return new Map(catalog).set(service, entry);
}

/** The catalog without a service that is no longer asked for. */
export function forgetService(catalog: Catalog, service: string): Catalog {
  const rest = new Map(catalog);
  rest.delete(service);
  return rest;
}
