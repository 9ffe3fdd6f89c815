import {
  type Codec,
  createBackoff,
  createLatest,
  isTandemError,
  type Log,
  messageOf,
  sleepOrAborted,
  type Snapshot,
} from '@tandem/core';

import { type Children, createChildren } from './children.ts';
import { createClassic } from './classic.ts';
import { createDelta } from './delta.ts';
import type { Follower } from './follower.ts';
import type { PathReader } from './path-reader.ts';
import type { RecursiveWatches } from './recursive-watches.ts';
import type { Session } from './session.ts';

const RETRY = { baseMs: 50, maxMs: 2_000 };
const RETRY_REFUSED = { baseMs: 500, maxMs: 30_000 };

/**
 * Follows the children of one path: by a persistent watch where the server has them (delta mode), else by reading the
 * list again (classic mode). Data are read only for names not seen before; names in path encoding need no read at all.
 * One undecodable child costs itself only. What could not be read as a whole is not published: stale beats partial.
 */
export async function* mirrorPath(options: {
  session: Session;
  path: string;
  codec: Codec;
  watches: RecursiveWatches;
  paths: PathReader;
  signal: AbortSignal;
  log: Log;
}): AsyncGenerator<Snapshot> {
  const { session, path, codec, watches, paths } = options;
  if (options.signal.aborted) return;
  // Ends with the reader's signal or with the session. Not the reader's own: it may stand over a thousand mirrors.
  const controller = new AbortController();
  const { signal } = controller;
  const end = () => controller.abort();
  options.signal.addEventListener('abort', end, { once: true });
  const backoff = createBackoff(RETRY);
  const refusals = createRefusals(options);
  const bell = createLatest<true>(signal);
  const ring = () => bell.set(true);
  const children = createChildren(codec);
  const retries = retryRefused(children, ring);
  const delta = createDelta({ session, path, codec, children, ring, watches, paths });
  let classic: Follower | undefined;
  const unsubscribe = session.subscribe((state) => {
    if (state.state === 'closed') end();
    if (state.state !== 'connected') return;
    delta.reconnected(state.id);
    classic?.reconnected(state.id);
    ring();
  });

  async function sync(): Promise<void> {
    const id = await session.connected(signal);
    if (await delta.watch(signal)) {
      // After an upgrade of the servers: two ways at once would be one too many.
      classic?.end();
      classic = undefined;
      await delta.sync(signal);
      return;
    }
    classic ??= createClassic({ session, path, codec, children, ring });
    classic.reconnected(id);
    await classic.sync(signal);
  }

  try {
    ring();
    for await (const _ of bell) {
      try {
        await sync();
        backoff.reset();
        refusals.end();
      } catch (error) {
        if (signal.aborted || isTandemError(error, 'REGISTRY_CLOSED')) return;
        refusals.note(error);
        if (await sleepOrAborted(backoff.next(), signal)) return;
        ring();
        continue;
      }
      const snapshot = children.take();
      retries.plan();
      if (children.isStale || children.unread().length > 0) ring();
      if (snapshot !== undefined) yield snapshot;
    }
  } finally {
    options.signal.removeEventListener('abort', end);
    unsubscribe();
    retries.end();
    delta.end();
    classic?.end();
  }
}

/** Asks again for what may not be read, with pauses: nobody is told when a node's permissions change. */
function retryRefused(children: Children, ring: () => void): { plan(): void; end(): void } {
  const backoff = createBackoff(RETRY_REFUSED);
  let timer: NodeJS.Timeout | undefined;
  return {
    plan() {
      if (!children.hasRefused) backoff.reset();
      else {
        timer ??= setTimeout(() => {
          timer = undefined;
          children.retryRefused();
          ring();
        }, backoff.next());
      }
    },
    end: () => clearTimeout(timer),
  };
}

interface Refusals {
  note(error: unknown): void;
  end(): void;
}

/** Tells of reads that fail, each reason once until a read works again. What the session itself says stays its own. */
function createRefusals(options: { session: Session; path: string; log: Log }): Refusals {
  const { session, path, log } = options;
  const told = new Set<string>();
  return {
    note(error) {
      const facts = { path, err: messageOf(error) };
      const isNews = !isSaidBySession(error, session) && !told.has(facts.err);
      if (isNews) told.add(facts.err);
      log[isNews ? 'warn' : 'debug'](facts, 'could not read the instances, trying again');
    },
    end() {
      if (told.size > 0) log.info({ path }, 'the instances can be read again');
      told.clear();
    },
  };
}

function isSaidBySession(error: unknown, session: Session): boolean {
  if (isTandemError(error, 'REGISTRY_CONNECTION_LOST')) return true;
  return isTandemError(error, 'DEADLINE_EXCEEDED') && session.state.state !== 'connected';
}
