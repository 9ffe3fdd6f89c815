/** A timer that is over after `ms` milliseconds, or never when it is stopped before. */
export type StartTimer = (ms: number) => { readonly over: Promise<undefined>; readonly stop: () => void };

/**
 * The newest value of a source, once that has been quiet for `quietMs`, or `maxMs` after the first value that has not
 * been handed over yet: a source that never rests is still heard. A source that ends hands over what was waiting; one
 * that fails passes its error on at once. Leaving early does not end the source: whoever made it does, by its signal.
 */
export async function* settled<T>(
  source: AsyncIterable<T>,
  { quietMs, maxMs }: { quietMs: number; maxMs: number },
  startTimer: StartTimer = startRealTimer,
): AsyncGenerator<T> {
  const values = source[Symbol.asyncIterator]();
  const advance = () => {
    const next = values.next();
    // Nobody may be listening when it fails; whoever asks later still gets to know.
    next.catch(() => {});
    return next;
  };
  let next = advance();
  for (;;) {
    let latest = await next;
    if (latest.done === true) return;
    next = advance();
    const limit = startTimer(maxMs);
    try {
      for (;;) {
        const quiet = startTimer(quietMs);
        const following = await Promise.race([next, quiet.over, limit.over]).finally(quiet.stop);
        if (following === undefined || following.done === true) break;
        latest = following;
        next = advance();
      }
    } finally {
      limit.stop();
    }
    yield latest.value;
  }
}

function startRealTimer(ms: number): ReturnType<StartTimer> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), ms);
  });
  return { over, stop: () => clearTimeout(timer) };
}
