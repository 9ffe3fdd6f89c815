import type { FoundContainer } from './docker-labels.ts';

/**
 * Which containers there are, as far as a daemon has told. Immutable.
 *
 * What a daemon answers after it was away is no proof that a container is gone: it may be starting up itself. A container
 * that is missing then is kept for a while, unless its end was told of; its own checks go on and say how it is.
 */
export interface ContainerRoster {
  readonly containers: ReadonlyMap<string, FoundContainer>;
  /** Ended by the word of an event, which may be newer than the list. */
  readonly ended: ReadonlySet<string>;
  /** Kept although the last list did not have them, and since when. */
  readonly missingSince: ReadonlyMap<string, number>;
  /** Whether events may have been missed since the last list. */
  readonly isDoubtful: boolean;
}

export const NO_CONTAINERS: ContainerRoster = {
  containers: new Map(),
  ended: new Set(),
  missingSince: new Map(),
  isDoubtful: false,
};

export function noteEnd(roster: ContainerRoster, id: string): ContainerRoster {
  return { ...roster, ended: new Set([...roster.ended, id]) };
}

export function noteDoubt(roster: ContainerRoster): ContainerRoster {
  return { ...roster, isDoubtful: true };
}

export interface TakenList {
  /** All that run, in the order in which they were created. */
  readonly containers: readonly FoundContainer[];
  /** What had ended when the list was asked for: it knows better than those events. */
  readonly endedBefore: ReadonlySet<string>;
  /** Whether events were listened to when it was asked for. */
  readonly isListening: boolean;
  readonly nowMs: number;
  readonly holdMs: number;
}

export function noteList(roster: ContainerRoster, list: TakenList): ContainerRoster {
  const { endedBefore, isListening, nowMs, holdMs } = list;
  const containers = new Map(list.containers.map((container) => [container.id, container]));
  const missingSince = new Map<string, number>();
  for (const [id, container] of roster.containers) {
    if (containers.has(id) || roster.ended.has(id)) continue;
    const since = roster.missingSince.get(id) ?? (roster.isDoubtful ? nowMs : undefined);
    if (since === undefined || nowMs - since >= holdMs) continue;
    missingSince.set(id, since);
    containers.set(id, container);
  }
  const ended = [...roster.ended].filter((id) => !endedBefore.has(id) && containers.has(id));
  return {
    containers,
    ended: new Set(ended),
    missingSince,
    isDoubtful: roster.isDoubtful && !isListening,
  };
}

export function present(roster: ContainerRoster): FoundContainer[] {
  return [...roster.containers.values()].filter(({ id }) => !roster.ended.has(id));
}

/** When the first of those that are kept has to be looked for again; undefined if there are none. */
export function lookAgainIn(
  roster: ContainerRoster,
  { nowMs, holdMs }: { nowMs: number; holdMs: number },
): number | undefined {
  const { missingSince } = roster;
  return missingSince.size === 0
    ? undefined
    : Math.max(0, Math.min(...missingSince.values()) + holdMs - nowMs);
}
