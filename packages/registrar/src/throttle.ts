import { createTokenBucket, takeToken, type TokenBucket, tokenWaitMs } from '@tandem/core';

import type { Clock } from './clock.ts';
import type { RateLimit } from './rate-limit.ts';

/** The limit of a host, which all of its services share: who waits longest is next. */
export interface HostThrottle {
  /** Takes a token, if it is the turn of this one; else `onTurn` is called, once, when it is. */
  take(onTurn: () => void): boolean;
  /** It no longer waits. */
  leave(onTurn: () => void): void;
}

/** @param onShadow called instead of a refusal where the limit is shadowed */
export function createHostThrottle(
  limit: RateLimit | undefined,
  clock: Clock,
  onShadow: () => void,
): HostThrottle {
  if (limit === undefined) return { take: () => true, leave: () => {} };
  const waiting = new Set<() => void>();
  let bucket = createTokenBucket(limit, clock.now());
  let cancel: (() => void) | undefined;

  function plan(): void {
    cancel?.();
    cancel = undefined;
    const [first] = waiting;
    if (limit === undefined || first === undefined) return;
    cancel = clock.after(tokenWaitMs(bucket, limit, clock.now()), () => {
      first();
      // It wanted no token any more, or has to wait for something else.
      waiting.delete(first);
      plan();
    });
  }

  return {
    take(onTurn) {
      const [first = onTurn] = waiting;
      const rest = first === onTurn ? takeToken(bucket, limit, clock.now()) : undefined;
      if (rest === undefined && limit.isShadow) onShadow();
      if (rest === undefined && !limit.isShadow) {
        waiting.add(onTurn);
        if (first === onTurn) plan();
        return false;
      }
      bucket = rest ?? bucket;
      if (waiting.delete(onTurn)) plan();
      return true;
    },
    leave(onTurn) {
      if (waiting.delete(onTurn)) plan();
    },
  };
}

/** What holds the announcements of one service back: its own limit, and that of its host. */
export interface Throttle {
  /** Takes a token of each; false: `onTurn` is called when it is worth to ask again. */
  admit(limit: RateLimit | undefined): boolean;
  /** There is nothing to announce any more. */
  cancel(): void;
  /** Since when it has been waiting, by the clock. */
  readonly waitingSince: number | undefined;
}

export function createThrottle(deps: {
  readonly host: HostThrottle;
  readonly clock: Clock;
  readonly onTurn: () => void;
  readonly onShadow: () => void;
}): Throttle {
  const { host, clock } = deps;
  let bucket: TokenBucket | undefined;
  let waitingSince: number | undefined;
  let cancelOwn = () => {};
  const onTurn = () => deps.onTurn();

  function refuse(): false {
    waitingSince ??= clock.now();
    return false;
  }
  function cancel(): void {
    waitingSince = undefined;
    cancelOwn();
    host.leave(onTurn);
  }

  return {
    admit(limit) {
      const now = clock.now();
      let rest: TokenBucket | undefined;
      if (limit !== undefined) {
        bucket ??= createTokenBucket(limit, now);
        rest = takeToken(bucket, limit, now);
        if (rest === undefined && limit.isShadow) deps.onShadow();
        if (rest === undefined && !limit.isShadow) {
          cancelOwn();
          cancelOwn = clock.after(tokenWaitMs(bucket, limit, now), onTurn);
          host.leave(onTurn);
          return refuse();
        }
      }
      if (!host.take(onTurn)) return refuse();
      bucket = rest ?? bucket;
      cancel();
      return true;
    },
    cancel,
    get waitingSince() {
      return waitingSince;
    },
  };
}
