/**
 * A mailbox of one: the newest value waits, older unread ones are forgotten.
 * A lone value is handed over at once; a burst of a thousand costs its reader two rounds.
 */
export interface Latest<T> extends AsyncIterable<T> {
  set(value: T): void;
  /** Ends the iteration. A value not yet read is dropped. */
  close(): void;
}

/** For one reader. Ends when `close` is called or the signal is aborted. */
export function createLatest<T>(signal?: AbortSignal): Latest<T> {
  let slot: { value: T } | undefined;
  let closed = signal?.aborted === true;
  let wake: (() => void) | undefined;

  function ring(): void {
    const waiting = wake;
    wake = undefined;
    waiting?.();
  }
  function close(): void {
    closed = true;
    signal?.removeEventListener('abort', close);
    ring();
  }
  signal?.addEventListener('abort', close, { once: true });

  return {
    set(value) {
      if (closed) return;
      slot = { value };
      ring();
    },
    close,
    async *[Symbol.asyncIterator]() {
      try {
        for (;;) {
          if (closed) return;
          if (slot === undefined) {
            await new Promise<void>((resolve) => {
              wake = resolve;
            });
            continue;
          }
          const { value } = slot;
          slot = undefined;
          yield value;
        }
      } finally {
        close();
      }
    },
  };
}
