import { isTandemError, type Log } from '@tandem/core';

/** Finds out whether the servers know persistent watches (ZooKeeper 3.6 and later); shared by all that is watched. */
export interface DeltaSupport {
  /**
   * Tries to set a persistent watch if that may work; false: it does not. One caller at a time tries as long as nothing
   * is known, since a server that is too old ends the connection over it. Rejects when the attempt does.
   */
  attempt(setWatch: () => Promise<boolean>): Promise<boolean>;
}

/** Servers are upgraded one day; to find out costs one connection. */
const ASK_AGAIN_MS = 60 * 60_000;
/** A server that is too old may also end the connection without an answer. */
const MAX_LOSSES = 3;

type Knowledge =
  | { readonly kind: 'unknown' }
  | { readonly kind: 'asking'; readonly answered: Promise<unknown> }
  | { readonly kind: 'proven' }
  | { readonly kind: 'refused'; readonly at: number };

export function createDeltaSupport(options: {
  isWanted: boolean;
  log: Log;
  now?: () => number;
}): DeltaSupport {
  const { isWanted, log, now = () => performance.now() } = options;
  let knowledge: Knowledge = { kind: 'unknown' };
  let losses = 0;

  function refused(): false {
    if (knowledge.kind !== 'refused')
      log.info({}, 'the ZooKeeper server has no persistent watches: lists are read again after changes');
    knowledge = { kind: 'refused', at: now() };
    losses = 0;
    return false;
  }

  /** The first to ask a server; the others wait for what it learns. */
  function ask(setWatch: () => Promise<boolean>): Promise<boolean> {
    const answer = learn(setWatch);
    knowledge = { kind: 'asking', answered: answer.catch(() => false) };
    return answer;
  }

  async function learn(setWatch: () => Promise<boolean>): Promise<boolean> {
    try {
      if (!(await setWatch())) return refused();
      knowledge = { kind: 'proven' };
      losses = 0;
      return true;
    } catch (error) {
      knowledge = { kind: 'unknown' };
      if (isTandemError(error, 'REGISTRY_CONNECTION_LOST')) losses += 1;
      if (losses >= MAX_LOSSES) refused();
      throw error;
    }
  }

  return {
    async attempt(setWatch) {
      if (!isWanted) return false;
      for (;;) {
        switch (knowledge.kind) {
          case 'asking':
            await knowledge.answered;
            continue;
          case 'proven':
            return (await setWatch()) || refused();
          case 'refused':
            if (now() - knowledge.at < ASK_AGAIN_MS) return false;
            return ask(setWatch);
          case 'unknown':
            return ask(setWatch);
        }
      }
    },
  };
}
