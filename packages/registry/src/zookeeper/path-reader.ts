import { TandemError } from '@tandem/core';

import type { Listing } from './children.ts';
import { runInOrder } from './in-order.ts';
import { exists, getChildren, getData, multiRead, type Read, type ReadOutcome, refusal } from './opcodes.ts';
import type { Session } from './session.ts';
import type { Stat } from './opcodes.ts';

/**
 * Reads the lists and the Stats of many paths, those that are asked for at once in a few requests: a host that watches
 * a thousand services comes back to its server with ten. Only for servers that have persistent watches, which also
 * have reads in one go. Answers are handed over in the order in which they and the events arrived.
 */
export interface PathReader {
  list(path: string, signal: AbortSignal, onAnswer: (listing: Listing | undefined) => void): Promise<void>;
  stat(path: string, signal: AbortSignal, onAnswer: (stat: Stat | undefined) => void): Promise<void>;
}

/** So many lists of an ordinary service make an answer of some ten kilobytes: others get their turn in between. */
const PATHS_AT_ONCE = 50;

type Answer = { readonly stat: Stat; readonly children: readonly string[] } | undefined;

interface Wish {
  readonly path: string;
  readonly withChildren: boolean;
  readonly signal: AbortSignal;
  onAnswer(answer: Answer): void;
  settle(error: unknown): void;
}

export function createPathReader(session: Session): PathReader {
  let wishes: Wish[] = [];

  function ask(wish: Omit<Wish, 'settle'>): Promise<void> {
    return new Promise((resolve, reject) => {
      const { signal } = wish;
      const onAbort = () => reject(signal.reason as Error);
      signal.addEventListener('abort', onAbort, { once: true });
      const settle = (error: unknown) => {
        signal.removeEventListener('abort', onAbort);
        if (error === undefined) resolve();
        else reject(error);
      };
      if (wishes.length === 0) process.nextTick(flush);
      wishes.push({ ...wish, settle });
    });
  }

  function flush(): void {
    const batch = wishes.filter(({ signal }) => !signal.aborted);
    wishes = [];
    for (let start = 0; start < batch.length; start += PATHS_AT_ONCE)
      void serve(session, batch.slice(start, start + PATHS_AT_ONCE));
  }

  return {
    list: (path, signal, onAnswer) => ask({ path, signal, withChildren: true, onAnswer }),
    stat: (path, signal, onAnswer) =>
      ask({ path, signal, withChildren: false, onAnswer: (answer) => onAnswer(answer?.stat) }),
  };
}

async function serve(session: Session, wishes: readonly Wish[]): Promise<void> {
  const refused = new Map<Wish, TandemError>();
  try {
    if (wishes.length === 1 && wishes[0] !== undefined) await serveOne(session, wishes[0]);
    else await serveTogether(session, wishes, refused);
    for (const wish of wishes) wish.settle(refused.get(wish));
  } catch (error) {
    for (const wish of wishes) wish.settle(error);
  }
}

/** Without the node's data, which nobody asked for. */
async function serveOne(session: Session, wish: Wish): Promise<void> {
  const { path, signal } = wish;
  if (wish.withChildren)
    await runInOrder(session, getChildren(path), { signal }, (listing) => wish.onAnswer(listing));
  else {
    await runInOrder(session, exists(path), { signal }, (stat) =>
      wish.onAnswer(stat === undefined ? undefined : { stat, children: [] }),
    );
  }
}

async function serveTogether(
  session: Session,
  wishes: readonly Wish[],
  refused: Map<Wish, TandemError>,
): Promise<void> {
  // The Stat first: of what changes in between, the list knows more than its counter says, which shows later.
  const reads = wishes.flatMap(({ path, withChildren }): Read[] => [
    { kind: 'data', path },
    ...(withChildren ? [{ kind: 'children', path } as const] : []),
  ]);
  await runInOrder(session, multiRead(reads), {}, (outcomes) => {
    const rest = outcomes.values();
    for (const wish of wishes) {
      const data = rest.next().value;
      const children = wish.withChildren ? rest.next().value : undefined;
      const answer = combine(wish, data, children);
      if (answer instanceof TandemError) refused.set(wish, answer);
      else if (!wish.signal.aborted) wish.onAnswer(answer);
    }
  });
}

function combine(
  { path, withChildren }: Wish,
  data: ReadOutcome | undefined,
  children: ReadOutcome | undefined,
): Answer | TandemError {
  for (const outcome of [data, children])
    if (outcome?.kind === 'refused') return refusal(getData(path), outcome.code);
  if (data?.kind !== 'data') return undefined;
  if (!withChildren) return { stat: data.stat, children: [] };
  return children?.kind === 'children' ? { stat: data.stat, children: children.children } : undefined;
}
