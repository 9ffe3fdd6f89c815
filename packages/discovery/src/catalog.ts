import { compareInstances, type Instance, uniqueInstances } from '@tandem/core';

import type { GuardPolicy } from './config/selection.ts';
import { type Guard, guardChange, mergeInstances, openGuard, passTime } from './guard.ts';

export interface CatalogEntry {
  readonly instances: readonly Instance[];
  /** True when the source reports none that can be used, and the last ones are kept. */
  readonly kept: boolean;
}

/** What is known of one service, and why. */
export interface Known extends CatalogEntry {
  /** What the source said last. */
  readonly said: readonly Instance[];
  readonly guard: Guard;
}

/** How much of what a source says is believed. */
export interface CatalogPolicy {
  readonly guard: GuardPolicy;
  readonly allowEmpty: boolean;
  readonly isUsable: (instance: Instance) => boolean;
}

/** Instances that are known from an earlier life. They count as what the source said last. */
export function assumeKnown(instances: readonly Instance[]): Known {
  const said = inOrder(instances);
  return { said, instances: said, kept: false, guard: openGuard };
}

/**
 * What is known after a snapshot. An implausible loss is held back by the guard first. A service whose last usable
 * instance vanished nevertheless keeps those it had, unless it is allowed to be empty: an answer that somebody might
 * still give beats none at all.
 */
export function recordSnapshot(
  before: Known | undefined,
  instances: readonly Instance[],
  policy: CatalogPolicy,
  now: number,
): Known {
  const said = inOrder(instances, before?.said);
  const guard =
    before === undefined
      ? openGuard
      : guardChange(before.guard, { before: before.said, after: said }, policy.guard, now);
  return toKnown(said, guard, before, policy);
}

/** What is known after some time without a snapshot: a hold may have ended, and the truth is accepted then. */
export function passKnown(known: Known, policy: CatalogPolicy, now: number): Known {
  const guard = passTime(known.guard, policy.guard, now);
  return guard === known.guard && !(known.kept && policy.allowEmpty)
    ? known
    : toKnown(known.said, guard, known, policy);
}

function toKnown(
  said: readonly Instance[],
  guard: Guard,
  before: Known | undefined,
  { allowEmpty, isUsable }: CatalogPolicy,
): Known {
  const plausible = guard.kind === 'holding' ? mergeInstances(said, guard.lost) : said;
  const last = before?.instances ?? [];
  const kept = !allowEmpty && last.some(isUsable) && !plausible.some(isUsable);
  return { said, instances: kept || isSame(plausible, last) ? last : plausible, kept, guard };
}

/** Whether two lists hold the same records. */
export function isSame(a: readonly Instance[], b: readonly Instance[]): boolean {
  return a === b || (a.length === b.length && a.every((instance, index) => instance === b[index]));
}

/**
 * The guard compares lists in step; a source that breaks the order of snapshots must not confuse it. What stood side by
 * side in the list before, which was in order, is not compared again.
 */
function inOrder(instances: readonly Instance[], before: readonly Instance[] = []): readonly Instance[] {
  let there = 0;
  let previous: Instance | undefined;
  for (const instance of instances) {
    const isBeside = instance === before[there] && previous === before[there - 1];
    if (!isBeside && previous !== undefined && compareInstances(previous, instance) >= 0)
      return uniqueInstances(instances);
    there = instance === before[there] ? there + 1 : placeAfter(instance, before, there);
    previous = instance;
  }
  return instances;
}

/** Where a list in order goes on after an instance, looked for from `start` on. */
export function placeAfter(instance: Instance, list: readonly Instance[], start: number): number {
  let place = start;
  for (
    let next = list[place];
    next !== undefined && compareInstances(next, instance) <= 0;
    next = list[place]
  )
    place += 1;
  return place;
}
