import { setMaxListeners } from 'node:events';

/** Those who wait until the registry has confirmed a wish. */
export interface Agreement {
  /** Resolves with the next `reach`; rejects with the reason of the signal. */
  reached(signal: AbortSignal): Promise<void>;
  /** To be called when everything that was wished for stands. */
  reach(): void;
}

export function createAgreement(): Agreement {
  const waiting = new Set<() => void>();
  return {
    reached(signal) {
      // One signal may wait for every place of a process.
      setMaxListeners(0, signal);
      return new Promise((resolve, reject) => {
        if (signal.aborted) {
          reject(signal.reason as Error);
          return;
        }
        const onAbort = () => {
          waiting.delete(onReach);
          reject(signal.reason as Error);
        };
        const onReach = () => {
          signal.removeEventListener('abort', onAbort);
          resolve();
        };
        waiting.add(onReach);
        signal.addEventListener('abort', onAbort, { once: true });
      });
    },
    reach() {
      for (const onReach of waiting) onReach();
      waiting.clear();
    },
  };
}
