/** Whether somebody still waits: the part of an AbortSignal that is looked at. */
export type Wish = Pick<AbortSignal, 'aborted' | 'reason'>;

/** A request that may have to wait until others are answered. */
export interface Waiting {
  /** Aborted when its caller has gone on. */
  readonly signal: Wish;
  send(): void;
  fail(error: unknown): void;
}

/** Lets a limited number of requests be under way; the others wait their turn. */
export interface Window {
  enter(request: Waiting): void;
  /** One of those under way was answered: the next may go. */
  answered(): void;
  /**
   * One of those under way was lost. Nothing follows it: the library is still failing its queue and believes that it
   * is connected, so the next would be failed in the same loop, for ever (reference B7).
   */
  lost(): void;
  /** Fails everything that waits. */
  failWaiting(error: unknown): void;
}

export function createWindow(limit: number): Window {
  const waiting: Waiting[] = [];
  let underWay = 0;

  function send(request: Waiting): void {
    underWay += 1;
    request.send();
  }

  return {
    enter(request) {
      if (underWay < limit) send(request);
      else waiting.push(request);
    },
    answered() {
      underWay -= 1;
      while (underWay < limit) {
        const next = waiting.shift();
        if (next === undefined) return;
        // Its caller has gone on: sent now, it would change the registry behind the caller's back.
        if (next.signal.aborted) next.fail(next.signal.reason);
        else send(next);
      }
    },
    lost() {
      underWay -= 1;
    },
    failWaiting(error) {
      for (const request of waiting.splice(0)) request.fail(error);
    },
  };
}
