import type { Clock } from '@tandem/registrar';

export interface ManualClock extends Clock {
  /** Lets time pass, timer by timer, with room between them for whatever they set off. */
  advance(ms: number): Promise<void>;
  /** Time passes and nothing runs, as while a process is stopped. */
  stall(ms: number): void;
  /** Somebody sets the wall clock. */
  jump(ms: number): void;
}

/** A clock that only the test moves. */
export function createManualClock(random: () => number = () => 0.5): ManualClock {
  const timers = new Set<{ readonly at: number; readonly task: () => void }>();
  let now = 1_000;
  let wall = 1_700_000_000_000;

  function next(until: number) {
    const due = [...timers].filter(({ at }) => at <= until);
    return due.toSorted((a, b) => a.at - b.at)[0];
  }
  function pass(ms: number): void {
    now += ms;
    wall += ms;
  }

  return {
    now: () => now,
    wallNow: () => wall,
    random,
    after(ms, task) {
      const timer = { at: now + ms, task };
      timers.add(timer);
      return () => timers.delete(timer);
    },
    async advance(ms) {
      const until = now + ms;
      await settle();
      for (let timer = next(until); timer !== undefined; timer = next(until)) {
        timers.delete(timer);
        pass(Math.max(0, timer.at - now));
        timer.task();
        await settle();
      }
      pass(Math.max(0, until - now));
    },
    stall: pass,
    jump(ms) {
      wall += ms;
    },
  };
}

/** A few turns of the event loop. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 3; turn += 1)
    await new Promise<void>((resolve) => {
      setImmediate(resolve);
    });
}
