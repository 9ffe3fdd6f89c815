import { messageOf } from '@tandem/core';

import { type Check, failure, type ProbeResult, type Schedule } from './check.ts';
import type { Clock } from './clock.ts';
import { createHealth, nextHealth, type Verdict } from './health.ts';
import { nextInterval, type Spread } from './pacing.ts';

/**
 * One check that is probed again and again: the first time at once, never twice at the same time. A probe that is late
 * because the process was stalled is not made up for.
 */
export interface ProbeLoop extends Verdict {
  /** Why the last probe failed; undefined if it passed. */
  readonly reason: string | undefined;
  /** What the last probe warned of. */
  readonly warning: string | undefined;
  readonly lastProbeMs: number | undefined;
  /** When, by the clock, it must have made progress at the latest. */
  readonly dueBy: number;
  /** Ends the probe that is under way and every one after. Resolves when nothing of it is left, or soon after. */
  stop(): Promise<void>;
}

export interface ProbeLoopDeps {
  readonly check: Check;
  readonly schedule: Schedule;
  readonly clock: Clock;
  readonly spread: Spread;
  /** Called after the health, or how firm it is, has changed, before the next probe. */
  readonly onVerdict: () => void;
  /** Called when the check threw, once for each different exception in a row. */
  readonly onBroken: (error: unknown) => void;
  /** Called when a probe goes on after its deadline, into the time of the next: once for each. */
  readonly onStuck: () => void;
}

/** A start that is this late tells of a stall of the process: everything is late then. */
const STALL_MS = 50;
/** What getting ready may take before it counts as a failure. */
const PREPARE_LIMIT_MS = 30_000;
/** Progress that is later than this is none. */
const SLACK_MS = 5_000;
/** How long `stop` waits for a check that does not listen to its signal. */
const STOP_LIMIT_MS = 500;

export function createProbeLoop(deps: ProbeLoopDeps): ProbeLoop {
  return new CheckProbeLoop(deps);
}

/** One attempt. It is over for the loop when it has a result, and ended when nothing of it goes on. */
interface Attempt {
  readonly startedAt: number;
  readonly controller: AbortController;
  isOver: boolean;
}

/** By timers and callbacks instead of awaits: this runs thousands of times a second on some hosts. */
class CheckProbeLoop implements ProbeLoop {
  readonly #deps: ProbeLoopDeps;
  #state;
  #isFirst = true;
  #isStopped = false;
  #stopped: Promise<void> | undefined;
  /** Undefined when nothing of the last attempt goes on. */
  #attempt: Attempt | undefined;
  #isStuckTold = false;
  #lastException: string | undefined;
  #cancelTimer = () => {};
  #onEnded: (() => void) | undefined;
  reason: string | undefined;
  warning: string | undefined;
  lastProbeMs: number | undefined;
  dueBy = 0;

  constructor(deps: ProbeLoopDeps) {
    this.#deps = deps;
    this.#state = createHealth(deps.schedule);
    const waitMs = deps.spread();
    if (waitMs === 0) this.#begin();
    else this.#plan(waitMs);
  }

  get health() {
    return this.#state.health;
  }

  get isFirm() {
    return this.#state.isFirm;
  }

  async stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    this.#isStopped = true;
    this.#cancelTimer();
    const attempt = this.#attempt;
    if (attempt !== undefined) {
      attempt.isOver = true;
      attempt.controller.abort(new Error('called off'));
      await new Promise<void>((resolve) => {
        const cancel = this.#deps.clock.after(STOP_LIMIT_MS, resolve);
        this.#onEnded = () => {
          cancel();
          resolve();
        };
      });
    }
    this.#deps.check.close?.();
  }

  #plan(waitMs: number): void {
    const { clock, schedule, spread } = this.#deps;
    const dueAt = clock.now() + waitMs;
    this.dueBy = dueAt + SLACK_MS;
    this.#cancelTimer = clock.after(waitMs, () => {
      const isLate = clock.now() - dueAt > STALL_MS;
      // After a stall all checks are due at the same moment.
      const restMs = isLate ? Math.min(spread(), schedule.intervalMs / 2) : 0;
      if (restMs > 0) this.#cancelTimer = clock.after(restMs, () => this.#begin());
      else this.#begin();
    });
  }

  #planNext(startedAt: number): void {
    // Whoever heard of the result may have stopped it.
    if (this.#isStopped) return;
    const { clock, schedule } = this.#deps;
    const intervalMs = nextInterval(schedule.intervalMs, this.#isFirst, clock.random);
    this.#isFirst = false;
    this.#plan(Math.max(0, intervalMs - (clock.now() - startedAt)));
  }

  #begin(): void {
    if (this.#isStopped) return;
    const startedAt = this.#deps.clock.now();
    if (this.#attempt !== undefined) {
      this.#skip(startedAt);
      return;
    }
    const attempt = { startedAt, controller: new AbortController(), isOver: false };
    this.#attempt = attempt;
    this.#isStuckTold = false;
    if (this.#deps.check.prepare === undefined) this.#probe(attempt);
    else this.#prepare(attempt, () => this.#deps.check.prepare?.() ?? Promise.resolve());
  }

  /** What does not end is not begun a second time; it fails, as often as it is due. */
  #skip(startedAt: number): void {
    if (!this.#isStuckTold) this.#deps.onStuck();
    this.#isStuckTold = true;
    this.#accept(failure(this.reason ?? 'the last probe has not ended'));
    this.#planNext(startedAt);
  }

  #prepare(attempt: Attempt, prepare: () => Promise<void>): void {
    this.#limit(attempt, PREPARE_LIMIT_MS, 'getting ready took too long');
    callSafely(prepare).then(
      () => this.#prepared(attempt),
      (error: unknown) => this.#finish(attempt, this.#broken(attempt, error)),
    );
  }

  #prepared(attempt: Attempt): void {
    if (attempt.isOver) {
      this.#end(attempt);
      return;
    }
    this.#cancelTimer();
    this.#probe(attempt);
  }

  #probe(attempt: Attempt): void {
    const { check, schedule } = this.#deps;
    this.#limit(attempt, schedule.timeoutMs, `timed out after ${schedule.timeoutMs} ms`);
    callSafely(() => check.probe(attempt.controller.signal)).then(
      (result) => this.#answered(attempt, result),
      (error: unknown) => this.#finish(attempt, this.#broken(attempt, error)),
    );
  }

  #answered(attempt: Attempt, result: ProbeResult): void {
    if (!attempt.isOver) this.#lastException = undefined;
    this.#finish(attempt, result);
  }

  #limit(attempt: Attempt, ms: number, reason: string, mayExtend = true): void {
    const { clock } = this.#deps;
    const dueAt = clock.now() + ms;
    this.dueBy = dueAt + SLACK_MS;
    this.#cancelTimer = clock.after(ms, () => {
      const lateMs = clock.now() - dueAt;
      if (mayExtend && lateMs > STALL_MS) {
        // The process was stalled, not the service: it gets the time that it had no chance to use.
        this.#limit(attempt, Math.min(ms, lateMs), reason, false);
        return;
      }
      // Timers run before sockets are read: an answer that has arrived in time is looked at first.
      const last = setImmediate(() => this.#expire(attempt, reason));
      this.#cancelTimer = () => clearImmediate(last);
    });
  }

  #expire(attempt: Attempt, reason: string): void {
    if (attempt.isOver) return;
    this.#conclude(attempt, failure(reason));
    attempt.controller.abort(new Error(reason));
  }

  #finish(attempt: Attempt, result: ProbeResult): void {
    this.#end(attempt);
    if (!attempt.isOver) this.#conclude(attempt, result);
  }

  #end(attempt: Attempt): void {
    if (this.#attempt === attempt) this.#attempt = undefined;
    this.#onEnded?.();
  }

  #conclude(attempt: Attempt, result: ProbeResult): void {
    attempt.isOver = true;
    this.#cancelTimer();
    this.lastProbeMs = this.#deps.clock.now() - attempt.startedAt;
    this.#accept(result);
    this.#planNext(attempt.startedAt);
  }

  /** A mistake of ours, not of the service. It costs this check its health and nobody else anything. */
  #broken(attempt: Attempt, error: unknown): ProbeResult {
    const message = messageOf(error);
    // What is called off may fail as it likes.
    if (!attempt.isOver && message !== this.#lastException) {
      this.#lastException = message;
      this.#deps.onBroken(error);
    }
    return failure(`the check is broken: ${message}`);
  }

  #accept(result: ProbeResult): void {
    const before = this.#state;
    this.#state = nextHealth(before, result.ok);
    this.reason = result.ok ? undefined : result.reason;
    this.warning = result.ok ? result.warning : undefined;
    if (before.health !== this.#state.health || before.isFirm !== this.#state.isFirm) this.#deps.onVerdict();
  }
}

/** A task that throws before it has a promise fails like one that rejects. */
async function callSafely<T>(task: () => Promise<T>): Promise<T> {
  return task();
}
