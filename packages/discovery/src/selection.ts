import { type Instance, type InstanceId, instanceId, uniqueInstances } from '@tandem/core';

import { type CatalogEntry, isSame } from './catalog.ts';
import type { DiscoverConfig } from './config/discover.ts';
import { mergeInstances } from './guard.ts';
import { preferNear } from './locality.ts';
import type { HoldKind } from './output.ts';
import { chooseLeader, chooseSubset } from './subset.ts';

/** What this host uses of a service. */
export interface Selection {
  readonly instances: readonly Instance[];
  /** True while the configured fallback is used. */
  readonly isFallback: boolean;
}

/** Everything that a selection depends on. */
export interface SelectionInput {
  readonly entry: CatalogEntry;
  readonly config: Pick<DiscoverConfig, 'leader' | 'locality' | 'subset'>;
  /** With IP literals for hosts. */
  readonly fallback: readonly Instance[];
  readonly holds: ReadonlyMap<InstanceId, HoldKind>;
}

/** This host, and what it can use. */
export interface SelectionScene {
  readonly host: { readonly name: string; readonly labels: Readonly<Record<string, string>> };
  readonly isUsable: (instance: Instance) => boolean;
}

/**
 * The instances that this host uses. Those that get no traffic from it (weight 0, held by an operator, not usable) do
 * not count: where one of them takes a place, another one serves.
 *
 * A fallback wins over instances that are merely kept: it is written down for this very moment. It joins those that
 * get no traffic. What the guard still holds counts as there.
 *
 * A leader has to be the same on every host, so neither locality nor a hold on this host makes another one lead.
 */
export function selectInstances(input: SelectionInput, scene: SelectionScene): Selection {
  const { entry, config, fallback, holds } = input;
  const { instances } = entry;
  const serves = (instance: Instance) => instance.weight !== 0 && scene.isUsable(instance);
  const isHeld = (instance: Instance) => holds.size > 0 && holds.has(instanceId(instance));
  const counts = (instance: Instance) => serves(instance) && !isHeld(instance);
  if (fallback.length > 0 && (entry.kept || !instances.some(counts))) {
    const others = entry.kept ? [] : instances;
    return { instances: uniqueInstances([...fallback, ...others]), isFallback: true };
  }
  if (config.leader) return { instances: chooseLeader(instances, serves), isFallback: false };
  const near =
    config.locality === undefined
      ? instances
      : preferNear(instances, config.locality, scene.host.labels, counts);
  const some =
    config.subset === undefined ? near : chooseSubset(near, config.subset.size, scene.host.name, counts);
  // Held ones stay members, so that what they have begun may end, and so that they show.
  const held = some === instances || holds.size === 0 ? [] : instances.filter(isHeld);
  return { instances: mergeInstances(some, held), isFallback: false };
}

/**
 * `selectInstances` with a memory by service: as long as nothing has changed, the same array comes back, and equal
 * input gives the same selection without any work.
 */
export interface Selector {
  select(service: string, input: SelectionInput): Selection;
  forget(service: string): void;
}

export function createSelector(scene: SelectionScene): Selector {
  const memory = new Map<string, { readonly input: SelectionInput; readonly selection: Selection }>();
  return {
    select(service, input) {
      const last = memory.get(service);
      if (last !== undefined && isEqual(last.input, input)) return last.selection;
      const next = selectInstances(input, scene);
      const selection =
        last !== undefined && isSame(next.instances, last.selection.instances)
          ? { ...next, instances: last.selection.instances }
          : next;
      memory.set(service, { input, selection });
      return selection;
    },
    forget: (service) => void memory.delete(service),
  };
}

function isEqual(a: SelectionInput, b: SelectionInput): boolean {
  return (
    a.entry.instances === b.entry.instances &&
    a.entry.kept === b.entry.kept &&
    a.config === b.config &&
    a.fallback === b.fallback &&
    a.holds === b.holds
  );
}
