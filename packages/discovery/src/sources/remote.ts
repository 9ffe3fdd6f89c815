import {
  keepListed,
  type Log,
  type Remote,
  type RemotePace,
  sleepOrAborted,
  type Snapshot,
  uniqueInstances,
} from '@tandem/core';

import { publishedBy, reuseRecords, type Source } from '../source.ts';

/** What is asked, and how often. */
export interface SourcePace extends RemotePace {
  /** How long the others wait for a remote that has never answered. */
  readonly firstAnswerMs: number;
}

const DEFAULT_PACE: SourcePace = {
  resyncMs: 30_000,
  gapMs: 100,
  splayMs: 0,
  firstAnswerMs: 30_000,
  random: Math.random,
};
const MAX_REJECTIONS = 100;

/**
 * What several remotes have, together. A remote that is away keeps the part that it last had. One that has not answered
 * since the start is waited for: without its part the whole would not be one. After a while the others go on without it,
 * and it stands in `rejected`; as long as none has answered, the source is silent.
 */
export function remoteSource(
  remotes: readonly Remote[],
  deps: { log: Log; pace?: Partial<SourcePace> },
): Source {
  const pace = { ...DEFAULT_PACE, ...deps.pace };
  return {
    watch: (signal) =>
      publishedBy<Snapshot>(signal, async (publish, signal) => {
        const union = createUnion(remotes, publish);
        await Promise.all([
          ...remotes.map((remote) =>
            keepListed(remote, { pace, log: deps.log, signal, take: (part) => union.take(remote, part) }),
          ),
          goOnAfter(pace.firstAnswerMs, union, signal),
        ]);
      }),
  };
}

interface Union {
  take(remote: Remote, part: Snapshot): void;
  /** From now on without those that have never answered. */
  goOn(): void;
}

function createUnion(remotes: readonly Remote[], publish: (snapshot: Snapshot) => void): Union {
  const parts = new Map<Remote, Snapshot>();
  let waits = true;
  let last: Snapshot | undefined;
  function unite(): void {
    const missing = remotes.filter((remote) => !parts.has(remote));
    if (parts.size === 0 || (waits && missing.length > 0)) return;
    // In the order of the configuration, whoever has answered first.
    const known = remotes.flatMap((remote) => parts.get(remote) ?? []);
    const rejected = [
      ...missing.map(({ name }) => ({ place: name, reason: 'has not answered since the start' })),
      ...known.flatMap((part) => part.rejected),
    ];
    const instances = uniqueInstances(known.flatMap((part) => part.instances));
    const next = reuseRecords(last, { instances, rejected: rejected.slice(0, MAX_REJECTIONS) });
    if (next === last) return;
    last = next;
    publish(next);
  }
  return {
    take(remote, part) {
      parts.set(remote, part);
      unite();
    },
    goOn() {
      waits = false;
      unite();
    },
  };
}

async function goOnAfter(ms: number, union: Union, signal: AbortSignal): Promise<void> {
  if (!(await sleepOrAborted(ms, signal))) union.goOn();
}
