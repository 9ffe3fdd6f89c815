import { formatEndpoint, type InstanceId, instanceId, type Rejection } from '@tandem/core';

import type { Following } from './following.ts';
import type { SetAside } from './haproxy/parts.ts';
import type { HoldKind } from './output.ts';
import type { Selection } from './selection.ts';

/** What the daemon sees and does: plain data for people and programs. Texts of instances are those of the registry. */
export interface DiscoveryState {
  /** `starting` until it has something to offer, or has waited long enough for it. */
  readonly phase: 'starting' | 'serving';
  /** In the order of their names. */
  readonly services: readonly ServiceState[];
  readonly haproxy: HaproxyState;
}

export interface ServiceState {
  readonly service: string;
  readonly path: string;
  /** What is used of it: `unknown` leaves HAProxy with what it has. */
  readonly use: 'unknown' | 'source' | 'saved' | 'kept' | 'fallback';
  /** Every instance that is known or held, in the order of snapshots. */
  readonly instances: readonly InstanceState[];
  /** How long the guard still holds a loss; undefined while it holds none. */
  readonly guardMs: number | undefined;
  /** What had to be set aside, and why. */
  readonly rejected: readonly Rejection[];
  /** Why its source is being asked again. */
  readonly sourceError: string | undefined;
}

export interface InstanceState {
  readonly id: InstanceId;
  readonly name: string;
  /** `10.0.0.1:80`; empty for a hold on an instance that is not known. */
  readonly endpoint: string;
  readonly weight: number;
  /** Whether it is a member on this host. */
  readonly offered: boolean;
  readonly held: HoldKind | undefined;
  /** Gone from its source, and only there because the guard does not believe it. */
  readonly guarded: boolean;
  /** One of those that the configuration names for the time without others. */
  readonly fallback: boolean;
}

export interface HaproxyState {
  /** The one that was last brought to what is wanted; undefined before. */
  readonly running:
    { readonly version: string; readonly incarnation: string; readonly mark: string } | undefined;
  /** When it was last brought there, and how long that took. */
  readonly applied: { readonly agoMs: number; readonly tookMs: number } | undefined;
  /** Why it is not as wanted; undefined when it is. */
  readonly problem: string | undefined;
  /** What HAProxy says against the structure as a whole; the last good one goes on. */
  readonly refused: string | undefined;
  /** Services that go on with their last good version, or not at all. */
  readonly setAside: readonly SetAside[];
  /** Servers that somebody else holds, with `haproxy.foreign_holds: respect`. */
  readonly foreignHolds: readonly {
    readonly service: string;
    readonly server: string;
    readonly kind: HoldKind;
  }[];
}

/** What the state of a service is made of. */
interface ServiceView {
  readonly following: Following;
  /** Undefined while nothing is offered. */
  readonly selection: Selection | undefined;
  readonly holds: ReadonlyMap<InstanceId, HoldKind>;
  /** What outputs have set aside. */
  readonly rejected: readonly Rejection[];
}

export function describeService(view: ServiceView, now: number): ServiceState {
  const { service, known, rejected, sourceError } = view.following;
  const guard = known?.guard.kind === 'holding' ? known.guard : undefined;
  return {
    service: service.service,
    path: service.path,
    use: useOf(view),
    instances: describeInstances(view),
    guardMs: guard === undefined ? undefined : Math.max(0, Math.round(guard.until - now)),
    rejected: [...rejected, ...view.rejected],
    sourceError,
  };
}

function useOf({ following, selection }: ServiceView): ServiceState['use'] {
  if (selection === undefined || following.known === undefined) return 'unknown';
  if (selection.isFallback) return 'fallback';
  if (!following.hasSpoken) return 'saved';
  return following.known.kept ? 'kept' : 'source';
}

function describeInstances({ following, selection, holds }: ServiceView): InstanceState[] {
  const known = following.known?.instances ?? [];
  const guard = following.known?.guard;
  const offered = new Set(selection?.instances ?? []);
  const guarded = new Set(guard?.kind === 'holding' ? guard.lost : []);
  const fallback = new Set(offered);
  for (const instance of known) fallback.delete(instance);
  const there = [...known, ...fallback].map((instance): InstanceState => {
    const id = instanceId(instance);
    return {
      id,
      name: instance.name,
      endpoint: formatEndpoint(instance),
      weight: instance.weight ?? 1,
      offered: offered.has(instance),
      held: holds.get(id),
      guarded: guarded.has(instance),
      fallback: fallback.has(instance),
    };
  });
  const ids = new Set(there.map(({ id }) => id));
  const absent = [...holds]
    .filter(([id]) => !ids.has(id))
    .map(([id, held]): InstanceState => ({
      id,
      name: '',
      endpoint: '',
      weight: 0,
      offered: false,
      held,
      guarded: false,
      fallback: false,
    }));
  return [...there, ...absent];
}
