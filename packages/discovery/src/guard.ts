import { compareInstances, type Instance, instanceId } from '@tandem/core';

import type { GuardPolicy } from './config/selection.ts';

/**
 * What the guard remembers of one service. Times are those of a monotonic clock: that of the wall may jump. Instances
 * are in the order of snapshots everywhere.
 */
export type Guard =
  | { readonly kind: 'open'; readonly losses: readonly Loss[] }
  | {
      readonly kind: 'holding';
      /** Still to be used, although the source has them no more. */
      readonly lost: readonly Instance[];
      readonly until: number;
    };

/** An instance that went of late. */
interface Loss {
  readonly instance: Instance;
  readonly at: number;
  /** How many there were just before. */
  readonly outOf: number;
}

export const openGuard: Guard = { kind: 'open', losses: [] };

/**
 * The guard after a snapshot. Losses that came within `windowMs` of each other count as one, because a registry that
 * is wiped shows up as many small ones. When one is larger than is plausible, all of it is held until `holdMs` after it
 * began, however the source goes on; what goes meanwhile is held with it, and what returns is simply there. Additions
 * and changed records are none of the guard's business.
 */
export function guardChange(
  guard: Guard,
  change: { readonly before: readonly Instance[]; readonly after: readonly Instance[] },
  policy: GuardPolicy,
  now: number,
): Guard {
  const current = passTime(guard, policy, now);
  const { gone, come } = diffInstances(change.before, change.after);
  if (current.kind === 'holding') {
    const lost = mergeInstances(without(current.lost, come), gone);
    return lost.length === 0 ? openGuard : { ...current, lost };
  }
  const outOf = change.before.length;
  const back = new Set(current.losses.length === 0 ? [] : come.map(instanceId));
  const losses = [
    ...(back.size === 0
      ? current.losses
      : current.losses.filter(({ instance }) => !back.has(instanceId(instance)))),
    ...gone.map((instance) => ({ instance, at: now, outOf })),
  ];
  // With every loss the question begins anew: how much of what was there then is gone by now?
  const start = losses.findIndex((loss, index) => isImplausible(losses.length - index, loss.outOf, policy));
  const first = losses[start];
  if (first === undefined) return losses.length === 0 ? openGuard : { kind: 'open', losses };
  const lost = losses.slice(start).map(({ instance }) => instance);
  return { kind: 'holding', lost: lost.toSorted(compareInstances), until: first.at + policy.holdMs };
}

/** The guard after some time without a snapshot; the same value when nothing has ended. */
export function passTime(guard: Guard, policy: GuardPolicy, now: number): Guard {
  if (guard.kind === 'holding') {
    // Whatever the clock or the operator did meanwhile, no hold is longer than the policy says.
    const until = Math.min(guard.until, now + policy.holdMs);
    if (now >= until || isTransparent(policy)) return openGuard;
    return until === guard.until ? guard : { ...guard, until };
  }
  // What was lost longer ago than a hold lasts would not be held any more.
  const isRecent = (ms: number) => ms >= 0 && ms <= policy.windowMs && ms < policy.holdMs;
  const losses = guard.losses.filter(({ at }) => isRecent(now - at));
  if (losses.length === guard.losses.length) return guard;
  return losses.length === 0 ? openGuard : { kind: 'open', losses };
}

function isTransparent({ maxLostPercent, holdMs }: GuardPolicy): boolean {
  return maxLostPercent >= 100 || holdMs === 0;
}

function isImplausible(lost: number, outOf: number, policy: GuardPolicy): boolean {
  if (isTransparent(policy)) return false;
  return outOf >= policy.minInstances && lost * 100 > outOf * policy.maxLostPercent;
}

/** What is in one list of instances and not in the other. In step, so that unchanged records cost next to nothing. */
function diffInstances(
  before: readonly Instance[],
  after: readonly Instance[],
): { gone: Instance[]; come: Instance[] } {
  const gone: Instance[] = [];
  const come: Instance[] = [];
  let there = 0;
  for (const instance of before) {
    let next = after[there];
    while (next !== undefined && next !== instance && compareInstances(next, instance) < 0) {
      come.push(next);
      there += 1;
      next = after[there];
    }
    if (next === instance || (next !== undefined && compareInstances(next, instance) === 0)) there += 1;
    else gone.push(instance);
  }
  return { gone, come: [...come, ...after.slice(there)] };
}

/** Both, in order. Of two records of one instance the first list's wins. */
export function mergeInstances(first: readonly Instance[], second: readonly Instance[]): readonly Instance[] {
  if (second.length === 0) return first;
  const { come } = diffInstances(first, second);
  return come.length === 0 ? first : [...first, ...come].toSorted(compareInstances);
}

function without(instances: readonly Instance[], others: readonly Instance[]): readonly Instance[] {
  return others.length === 0 ? instances : diffInstances(instances, others).gone;
}
