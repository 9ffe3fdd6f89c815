import { TandemError } from './errors.ts';

/**
 * Runs a task under a signal of its own, which ends with `signal` or after `ms` milliseconds, whichever is first.
 * Rejects then even if the task does not listen (`DEADLINE_EXCEEDED`, or the reason of `signal`).
 * Leaves nothing behind on `signal`: AbortSignal.any() per probe retains memory on Node 20 and 22 (nodejs/node#54614).
 */
export async function withDeadline<T>(
  signal: AbortSignal | undefined,
  ms: number,
  task: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  signal?.throwIfAborted();
  const controller = new AbortController();
  const onAbort = () => controller.abort(signal?.reason);
  const onTimeout = () => controller.abort(new TandemError('DEADLINE_EXCEEDED', `took longer than ${ms} ms`));
  let last: NodeJS.Immediate | undefined;
  // After a stall of this process (a paused machine, a long collection) timers run before sockets are read: an
  // answer that has arrived in time is looked at first.
  const timer = setTimeout(() => {
    last = setImmediate(onTimeout);
  }, ms);
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([task(controller.signal), rejectOnAbort(controller.signal)]);
  } finally {
    clearTimeout(timer);
    clearImmediate(last);
    signal?.removeEventListener('abort', onAbort);
  }
}

function rejectOnAbort(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
  });
}

/** Resolves after `ms` milliseconds; rejects with the signal's reason as soon as it is aborted. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(signal.reason as Error);
      return;
    }
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal?.reason as Error);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    }, ms);
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}

/** Resolves with false after `ms` milliseconds, or with true at once when the signal is aborted. Never rejects. */
export async function sleepOrAborted(ms: number, signal: AbortSignal): Promise<boolean> {
  try {
    await sleep(ms, signal);
    return false;
  } catch {
    return true;
  }
}
