import type { Clock } from './clock.ts';
import { CALM, type FlapDamping, type FlapState, heldForMs, noteDown } from './flap.ts';
import type { Verdict } from './health.ts';
import type { Memory } from './memory.ts';
import type { FlapHold } from './registrar.ts';

/** How one service has fared: since when it is up, and how often it went down. Partly from an earlier life. */
export interface History {
  /** What the checks say now. What is said twice counts once. */
  note(verdict: Verdict, ways: Ways): void;
  /** How long it has been up; undefined while it is not. A hold counts as being down. */
  upForMs(): number | undefined;
  /** Whether an earlier life of the registrar had found it up, and this one has not found otherwise. */
  readonly wasUpBefore: boolean;
  hold(): FlapHold | undefined;
  /** Whoever comes next shall take it for one that has just come up. */
  forgetStart(): void;
}

/** What matters of a service right now. */
export interface Ways {
  readonly damping: FlapDamping | undefined;
  /** Whoever is out of rotation may go down as often as its deployment needs. */
  readonly isDrained: boolean;
  /** Whether a successor has to know since when it is up. */
  readonly keepsStart: boolean;
}

export interface HistoryDeps {
  readonly clock: Clock;
  readonly memory: Pick<Memory, 'recall' | 'note'>;
  /** By what the memory knows it. */
  readonly key: string;
  /** Called when a hold begins, or becomes longer. */
  readonly onHold: (hold: FlapHold) => void;
}

/** Longer than anybody takes to start. */
const LONG_AGO_MS = 2 * 86_400_000;

export function createHistory({ clock, memory, key, onHold }: HistoryDeps): History {
  const remembered = memory.recall(key);
  let flap: FlapState | undefined;
  /** By the clock. From before this life as far as the wall clock can be believed: a jump makes it long ago. */
  let upSince = remembered.upSince === undefined ? undefined : fromWall(remembered.upSince);
  let wasUpBefore = upSince !== undefined;
  let isStartKept = false;

  function fromWall(moment: number): number {
    const agoMs = clock.wallNow() - moment;
    return agoMs >= 0 ? clock.now() - agoMs : -Infinity;
  }

  /** What an earlier life knew. No hold is longer than the longest, wherever the wall clock has gone. */
  function recall(damping: FlapDamping): FlapState {
    if (remembered.flap === undefined) return CALM;
    const { offences, heldUntil, at } = remembered.flap;
    const now = clock.now();
    const toClock = (moment: number) => Math.min(now + damping.maxHoldMs, now + moment - clock.wallNow());
    return {
      downs: [],
      offences,
      heldUntil: toClock(heldUntil),
      restlessUntil: toClock(Math.max(at, heldUntil)),
    };
  }

  function toWall(moment: number): number {
    return Math.round(clock.wallNow() + moment - clock.now());
  }

  function save(): void {
    memory.note(key, {
      upSince:
        upSince !== undefined && isStartKept
          ? toWall(Math.max(upSince, clock.now() - LONG_AGO_MS))
          : undefined,
      flap:
        flap !== undefined && flap.offences > 0
          ? { offences: flap.offences, heldUntil: toWall(flap.heldUntil), at: Math.round(clock.wallNow()) }
          : undefined,
    });
  }

  function wentDown(damping: FlapDamping): void {
    const before = flap ?? CALM;
    flap = noteDown(before, damping, clock.now());
    if (flap.heldUntil <= before.heldUntil) return;
    onHold({ remainingMs: heldForMs(flap, clock.now()), count: flap.offences });
  }

  return {
    note({ health, isFirm }, { damping, isDrained, keepsStart }) {
      const isNewToMemory = keepsStart && !isStartKept;
      isStartKept = keepsStart;
      if (damping === undefined) flap = undefined;
      else flap ??= recall(damping);
      const isUp = upSince !== undefined;
      if (health === 'up' && !isUp) {
        upSince = clock.now();
        save();
      } else if (health === 'down' && isFirm && isUp) {
        upSince = undefined;
        wasUpBefore = false;
        if (damping !== undefined && !isDrained) wentDown(damping);
        save();
      } else if (isUp && isNewToMemory) save();
    },
    upForMs() {
      if (upSince === undefined) return undefined;
      return clock.now() - Math.max(upSince, flap?.heldUntil ?? -Infinity);
    },
    get wasUpBefore() {
      return wasUpBefore;
    },
    hold() {
      const remainingMs = flap === undefined ? 0 : heldForMs(flap, clock.now());
      return remainingMs === 0 ? undefined : { remainingMs, count: flap?.offences ?? 0 };
    },
    forgetStart() {
      isStartKept = false;
      save();
    },
  };
}
