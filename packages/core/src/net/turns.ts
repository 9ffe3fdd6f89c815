/** Who asks for a turn, and how much it matters among its own. */
export interface Claim {
  /** One of many with things to do: an object of its own. */
  readonly by: object;
  readonly rank: Rank;
}

/** What nobody has ever answered goes first, what has an answer next, what has failed before last. */
export type Rank = 'new' | 'known' | 'failing';

/** Lets so many in at a time. Rejects only with the reason of the signal; whoever is in calls what it gets to leave. */
export type Turns = (claim: Claim, signal: AbortSignal) => Promise<() => void>;

interface Queue {
  taken: number;
  readonly waiting: Readonly<Record<Rank, Set<() => void>>>;
}

/**
 * Nobody has more turns than there are free ones. So one alone gets half of them, two a third each, and however much
 * some have to do, whoever comes next finds one free: those who wait for what never ends keep nobody else waiting.
 * Of those who wait, who has the fewest is next.
 */
export function createTurns(limit: number): Turns {
  let free = limit;
  const queues = new Map<object, Queue>();

  function queueOf(by: object): Queue {
    const queue = queues.get(by) ?? {
      taken: 0,
      waiting: { new: new Set(), known: new Set(), failing: new Set() },
    };
    queues.set(by, queue);
    return queue;
  }

  /** Nobody who has nothing to do is remembered. */
  function tidy(by: object, queue: Queue): void {
    if (queue.taken === 0 && firstOf(queue) === undefined) queues.delete(by);
  }

  function admit(): void {
    for (;;) {
      let next: Queue | undefined;
      for (const queue of queues.values())
        if (queue.taken < (next?.taken ?? free) && firstOf(queue) !== undefined) next = queue;
      const enter = next === undefined ? undefined : firstOf(next);
      if (next === undefined || enter === undefined) return;
      take(next);
      enter();
    }
  }

  function take(queue: Queue): void {
    queue.taken += 1;
    free -= 1;
  }

  function leaver(by: object, queue: Queue): () => void {
    return () => {
      queue.taken -= 1;
      free += 1;
      tidy(by, queue);
      admit();
    };
  }

  return async ({ by, rank }, signal) => {
    signal.throwIfAborted();
    const queue = queueOf(by);
    if (queue.taken < free && firstOf(queue) === undefined) {
      take(queue);
      return leaver(by, queue);
    }
    const waiting = queue.waiting[rank];
    await new Promise<void>((resolve, reject) => {
      const onAbort = () => {
        waiting.delete(enter);
        tidy(by, queue);
        reject(signal.reason as Error);
      };
      const enter = () => {
        waiting.delete(enter);
        signal.removeEventListener('abort', onAbort);
        resolve();
      };
      signal.addEventListener('abort', onAbort, { once: true });
      waiting.add(enter);
    });
    return leaver(by, queue);
  };
}

function firstOf({ waiting }: Queue): (() => void) | undefined {
  for (const entries of [waiting.new, waiting.known, waiting.failing])
    for (const enter of entries) return enter;
  return undefined;
}
