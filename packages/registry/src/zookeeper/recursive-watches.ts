import { isTandemError, type Log } from '@tandem/core';

import { setRecursiveWatches } from './opcodes.ts';
import type { Session } from './session.ts';
import type { WatchListener } from './watches.ts';

/**
 * Sets persistent recursive watches, all that are asked for at once in one request, and finds out whether the servers
 * know such things (ZooKeeper 3.6 and later). Shared by everything that is watched in a session.
 */
export interface RecursiveWatches {
  /**
   * Sets a watch on this connection; false: the server cannot. Whoever is connected anew sets it again. Resolves when
   * whatever is asked after it is answered after it; `failed` is called when it turns out later that it does not stand.
   * Rejects with what became of the request, or with the reason of the signal.
   */
  set(watch: WatchRequest, signal: AbortSignal): Promise<boolean>;
}

export interface WatchRequest {
  readonly path: string;
  readonly listener: WatchListener;
  failed(): void;
}

/** Servers are upgraded one day; to find out costs one connection, since those that are too old end it. */
const ASK_AGAIN_MS = 60 * 60_000;
/** A server that is too old may also end the connection without an answer. */
const MAX_LOSSES = 3;
/** As much as the server takes in one request, with a wide margin (reference B5). */
const CHUNK_BYTES = 128 * 1024;
const LENGTH_BYTES = 4;

type Knowledge =
  | { readonly kind: 'unknown' }
  | { readonly kind: 'proven' }
  | { readonly kind: 'refused'; readonly at: number };

interface Wish extends WatchRequest {
  readonly signal: AbortSignal;
  settle(outcome: boolean | Error): void;
}

export function createRecursiveWatches(options: {
  session: Pick<Session, 'run' | 'listenBelow'>;
  isWanted: boolean;
  log: Log;
  now?: () => number;
}): RecursiveWatches {
  const { session, isWanted, log, now = () => performance.now() } = options;
  let knowledge: Knowledge = { kind: 'unknown' };
  let losses = 0;
  let wishes: Wish[] = [];
  let isScheduled = false;
  let isAsking = false;

  function schedule(): void {
    // As long as nothing is known, one request at a time: a server that is too old hangs up over it.
    if (isScheduled || isAsking || wishes.length === 0) return;
    isScheduled = true;
    process.nextTick(() => {
      isScheduled = false;
      void flush();
    });
  }

  async function flush(): Promise<void> {
    // Who has stopped waiting has also stopped listening.
    const batch = wishes.filter(({ signal }) => !signal.aborted);
    wishes = [];
    if (batch.length === 0) return;
    const answer = request(batch).catch((error: Error) => error);
    const isProven = knowledge.kind === 'proven';
    // It has gone out, and answers come in the order of their requests.
    if (isProven) for (const wish of batch) wish.settle(true);
    isAsking = !isProven;
    const outcome = await answer;
    if (!isProven) isAsking = false;
    learn(outcome);
    for (const wish of batch) {
      if (!isProven) wish.settle(outcome);
      else if (outcome !== true) wish.failed();
    }
    schedule();
  }

  async function request(batch: readonly Wish[]): Promise<boolean> {
    if (isRefused()) return false;
    // Before they are sent: an event may follow the answer in the same chunk.
    for (const { path, listener } of batch) session.listenBelow(path, listener);
    const parts = chunksOf(batch.map(({ path }) => path));
    const outcomes = await Promise.all(parts.map((paths) => session.run(setRecursiveWatches(paths))));
    return outcomes.every(Boolean);
  }

  function learn(outcome: boolean | Error): void {
    if (outcome === true) {
      knowledge = { kind: 'proven' };
      losses = 0;
      return;
    }
    if (outcome !== false) {
      if (knowledge.kind !== 'unknown' || !isTandemError(outcome, 'REGISTRY_CONNECTION_LOST')) return;
      losses += 1;
      if (losses < MAX_LOSSES) return;
    }
    if (isRefused()) return;
    log.info({}, 'the ZooKeeper server has no persistent watches: lists are read again after changes');
    knowledge = { kind: 'refused', at: now() };
    losses = 0;
  }

  function isRefused(): boolean {
    return knowledge.kind === 'refused' && now() - knowledge.at < ASK_AGAIN_MS;
  }

  return {
    set(watch, signal) {
      if (!isWanted || isRefused()) return Promise.resolve(false);
      return new Promise((resolve, reject) => {
        const onAbort = () => reject(signal.reason as Error);
        signal.addEventListener('abort', onAbort, { once: true });
        const settle = (outcome: boolean | Error) => {
          signal.removeEventListener('abort', onAbort);
          if (typeof outcome === 'boolean') resolve(outcome);
          else reject(outcome);
        };
        wishes.push({ ...watch, signal, settle });
        schedule();
      });
    },
  };
}

function chunksOf(paths: readonly string[]): string[][] {
  const chunks: string[][] = [];
  let size = Infinity;
  for (const path of paths) {
    size += Buffer.byteLength(path) + LENGTH_BYTES;
    if (size > CHUNK_BYTES) {
      chunks.push([]);
      size = Buffer.byteLength(path) + LENGTH_BYTES;
    }
    chunks.at(-1)?.push(path);
  }
  return chunks;
}
