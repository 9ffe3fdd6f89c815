import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Tries again until `look` neither throws nor rejects, and returns what it found. At the end of the time the last
 * failure is thrown as it is, so that a test says what it was waiting for.
 */
export async function eventually<T>(
  look: () => T | Promise<T>,
  options: { withinMs?: number; everyMs?: number } = {},
): Promise<T> {
  const { withinMs = 15_000, everyMs = 10 } = options;
  const deadline = performance.now() + withinMs;
  for (;;) {
    try {
      return await look();
    } catch (error) {
      if (performance.now() > deadline) throw error;
    }
    await sleep(everyMs);
  }
}
