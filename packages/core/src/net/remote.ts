import { createBackoff } from '../backoff.ts';
import { sleepOrAborted } from '../deadline.ts';
import type { Snapshot } from '../instance.ts';
import type { Log } from '../log.ts';

/** Something elsewhere that tells what it has when it is asked, and says when it is time to ask again. */
export interface Remote<Part = Snapshot> {
  /** For people, without secrets. */
  readonly name: string;
  /** All that it has now. Never rejects; ends with the signal. */
  list(signal: AbortSignal): Promise<Listed<Part>>;
  /**
   * Listens for changes: calls `onChange` as soon as none can be missed, and after each. Resolves with the reason why it
   * has come to an end. Never rejects; ends with the signal.
   */
  listen(onChange: () => void, signal: AbortSignal): Promise<string>;
}

/** `againMs`: it wants to be asked again after that time, also when nothing has changed. */
export type Listed<Part = Snapshot> =
  | { readonly ok: true; readonly part: Part; readonly againMs?: number }
  | { readonly ok: false; readonly reason: string };

export interface RemotePace {
  /** A change may come without a word: this often it is asked in any case. */
  readonly resyncMs: number;
  /** The least from one answer to the next question, so that a burst of changes costs few. */
  readonly gapMs: number;
  /** Changes reach a whole fleet at once: up to this long, by chance, its hosts wait before they ask. */
  readonly splayMs: number;
  /** Uniform in [0, 1). */
  readonly random: () => number;
}

const RETRY = { baseMs: 250, maxMs: 10_000 };
/** A stream that was open for this long was cut, not refused. */
const STEADY_MS = 10_000;

export interface KeepDeps<Part> {
  readonly pace: RemotePace;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly take: (part: Part) => void;
}

/** Asks at once, after every change and at every resync, until the signal ends. */
export async function keepListed<Part>(remote: Remote<Part>, deps: KeepDeps<Part>): Promise<void> {
  const bell = createBell();
  await Promise.all([keepAsking(remote, bell, deps), keepListening(remote, bell, deps)]);
}

async function keepAsking<Part>(remote: Remote<Part>, bell: Bell, deps: KeepDeps<Part>): Promise<void> {
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
      if (told !== undefined) log.info({ remote: remote.name }, 'a remote answers again');
      told = undefined;
      backoff.reset();
      waitMs = Math.min(waitMs, listed.againMs ?? waitMs);
      take(listed.part);
    } else {
      if (told !== listed.reason)
        log.warn(
          { remote: remote.name, reason: listed.reason },
          'a remote cannot be read, keeping what it last said',
        );
      told = listed.reason;
      waitMs = Math.min(waitMs, backoff.next());
    }
    if (await sleepOrAborted(listed.ok ? pace.gapMs : Math.max(pace.gapMs, RETRY.baseMs), signal)) return;
    const hasRung = await bell.rings(waitMs, signal);
    if (hasRung && (await sleepOrAborted(pace.splayMs * pace.random(), signal))) return;
  }
}

async function keepListening(
  remote: Remote<unknown>,
  bell: Bell,
  deps: Omit<KeepDeps<never>, 'take'>,
): Promise<void> {
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
        'no word of changes from a remote, asking it at intervals until it listens again',
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
