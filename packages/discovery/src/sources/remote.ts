import { createBackoff, type Log, sleepOrAborted, type Snapshot, uniqueInstances } from '@tandem/core';

import { publishedBy, reuseRecords, type Source } from '../source.ts';

/** Something elsewhere that tells what it has when it is asked, and says when it is time to ask again. */
export interface Remote {
  /** For people, without secrets. */
  readonly name: string;
  /** All that it has now. Never rejects; ends with the signal. */
  list(signal: AbortSignal): Promise<Listed>;
  /**
   * Listens for changes: calls `onChange` as soon as none can be missed, and after each. Resolves with the reason why it
   * has come to an end. Never rejects; ends with the signal.
   */
  listen(onChange: () => void, signal: AbortSignal): Promise<string>;
}

export type Listed =
  { readonly ok: true; readonly part: Snapshot } | { readonly ok: false; readonly reason: string };

export interface RemotePace {
  /** A change may come without a word: this often it is asked in any case. */
  readonly resyncMs: number;
  /** The least from one answer to the next question, so that a burst of changes costs few. */
  readonly gapMs: number;
  /** Changes reach a whole fleet at once: up to this long, by chance, its hosts wait before they ask. */
  readonly splayMs: number;
  /** How long the others wait for a remote that has never answered. */
  readonly firstAnswerMs: number;
  /** Uniform in [0, 1). */
  readonly random: () => number;
}

const DEFAULT_PACE: RemotePace = {
  resyncMs: 30_000,
  gapMs: 100,
  splayMs: 0,
  firstAnswerMs: 30_000,
  random: Math.random,
};
const RETRY = { baseMs: 250, maxMs: 10_000 };
/** A stream that was open for this long was cut, not refused. */
const STEADY_MS = 10_000;
const MAX_REJECTIONS = 100;

/**
 * What several remotes have, together. A remote that is away keeps the part that it last had. One that has not answered
 * since the start is waited for: without its part the whole would not be one. After a while the others go on without it,
 * and it stands in `rejected`; as long as none has answered, the source is silent.
 */
export function remoteSource(
  remotes: readonly Remote[],
  deps: { log: Log; pace?: Partial<RemotePace> },
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

interface KeepDeps {
  readonly pace: RemotePace;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly take: (part: Snapshot) => void;
}

/** Asks at once, after every change and at every resync, until the signal ends. */
async function keepListed(remote: Remote, deps: KeepDeps): Promise<void> {
  const bell = createBell();
  await Promise.all([keepAsking(remote, bell, deps), keepListening(remote, bell, deps)]);
}

async function keepAsking(remote: Remote, bell: Bell, deps: KeepDeps): Promise<void> {
  const { pace, log, signal, take } = deps;
  const backoff = createBackoff(RETRY, pace.random);
  let told: string | undefined;
  while (!signal.aborted) {
    // What rings from here on may come too late for this answer.
    bell.hush();
    const listed = await remote.list(signal);
    if (signal.aborted) return;
    let waitMs = pace.resyncMs * (0.9 + 0.2 * pace.random());
    if (listed.ok) {
      if (told !== undefined) log.info({ remote: remote.name }, 'a source answers again');
      told = undefined;
      backoff.reset();
      take(listed.part);
    } else {
      if (told !== listed.reason)
        log.warn(
          { remote: remote.name, reason: listed.reason },
          'a source cannot be read, keeping what it last said',
        );
      told = listed.reason;
      waitMs = Math.min(waitMs, backoff.next());
    }
    if (await sleepOrAborted(listed.ok ? pace.gapMs : Math.max(pace.gapMs, RETRY.baseMs), signal)) return;
    const hasRung = await bell.rings(waitMs, signal);
    if (hasRung && (await sleepOrAborted(pace.splayMs * pace.random(), signal))) return;
  }
}

async function keepListening(remote: Remote, bell: Bell, deps: KeepDeps): Promise<void> {
  const { pace, log, signal } = deps;
  const backoff = createBackoff(RETRY, pace.random);
  let told: string | undefined;
  do {
    let openSince: number | undefined;
    const reason = await remote.listen(() => {
      openSince ??= performance.now();
      bell.ring();
    }, signal);
    if (signal.aborted) return;
    const isSteady = openSince !== undefined && performance.now() - openSince > STEADY_MS;
    if (isSteady) {
      backoff.reset();
      told = undefined;
    }
    // Idle streams are cut by whatever stands between, and that costs nothing.
    if (told !== reason)
      log[isSteady ? 'debug' : 'warn'](
        { remote: remote.name, reason },
        'no word of changes from a source, asking it at intervals until it listens again',
      );
    told = reason;
  } while (!(await sleepOrAborted(backoff.next(), signal)));
}

interface Bell {
  ring(): void;
  /** Forgets what has rung. */
  hush(): void;
  /** Whether it rings, or has rung, within this time. */
  rings(ms: number, signal: AbortSignal): Promise<boolean>;
}

function createBell(): Bell {
  let hasRung = false;
  let waiting: AbortController | undefined;
  return {
    ring() {
      hasRung = true;
      waiting?.abort();
    },
    hush() {
      hasRung = false;
    },
    async rings(ms, signal) {
      if (hasRung || signal.aborted) return hasRung;
      const controller = new AbortController();
      waiting = controller;
      const onAbort = () => controller.abort();
      signal.addEventListener('abort', onAbort, { once: true });
      await sleepOrAborted(ms, controller.signal);
      signal.removeEventListener('abort', onAbort);
      waiting = undefined;
      return hasRung;
    },
  };
}
