/** Waits for what the sources of many services say at first. */
export interface FirstWords {
  /** So many of all services are known by now. */
  hear(known: number, all: number): void;
  /**
   * Resolves once all services are known; or none has been heard of for `firstMs`, no further one for `nextMs`, since a
   * registry that lives tells of all of them in one go; or the signal is aborted.
   */
  wait(signal: AbortSignal): Promise<void>;
}

/** Neither is longer than `firstMs` after the beginning of the wait, however slowly the services come. */
export function createFirstWords({ firstMs, nextMs }: { firstMs: number; nextMs: number }): FirstWords {
  let heard = 0;
  let isComplete = false;
  let onHeard = () => {};
  return {
    hear(known, all) {
      isComplete = known >= all;
      if (known <= heard && !isComplete) return;
      heard = known;
      onHeard();
    },
    async wait(signal) {
      if (signal.aborted) return;
      const giveUpAt = performance.now() + firstMs;
      let timer: NodeJS.Timeout | undefined;
      let last: NodeJS.Immediate | undefined;
      let stop = () => {};
      const isOver = new Promise<void>((resolve) => {
        stop = resolve;
      });
      // After a stall of this process timers run before sockets are read: who has spoken in time is heard first.
      const expire = () => {
        last = setImmediate(stop);
      };
      onHeard = () => {
        clearTimeout(timer);
        clearImmediate(last);
        if (isComplete) return stop();
        const leftMs = giveUpAt - performance.now();
        timer = setTimeout(expire, heard === 0 ? leftMs : Math.min(nextMs, leftMs));
      };
      signal.addEventListener('abort', stop, { once: true });
      try {
        onHeard();
        await isOver;
      } finally {
        onHeard = () => {};
        clearTimeout(timer);
        clearImmediate(last);
        signal.removeEventListener('abort', stop);
      }
    },
  };
}
