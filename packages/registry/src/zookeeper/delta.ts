import type { TandemError } from '@tandem/core';

import type { Children } from './children.ts';
import type { Follower, FollowerOptions } from './follower.ts';
import { runInOrder } from './in-order.ts';
import { getData, multiRead, NO_AUTH, refusal } from './opcodes.ts';
import type { PathReader } from './path-reader.ts';
import type { RecursiveWatches } from './recursive-watches.ts';
import { EVENT, type WatchEvent } from './watches.ts';

export interface DeltaFollower extends Follower {
  /** Sets the watch on this connection unless it stands; false: the server cannot. */
  watch(signal: AbortSignal): Promise<boolean>;
}

export interface DeltaOptions extends FollowerOptions {
  readonly watches: RecursiveWatches;
  readonly paths: PathReader;
}

/** Small enough that the server answers others in between. */
const READS_AT_ONCE = 100;

/**
 * Some time after changes the path's counter is compared: servers say nothing of nodes that this client may not read
 * (3.8.4 and later), and so of their end. In the quiet nothing is asked.
 */
const VERIFY_MS = 5_000;

/**
 * Follows the children of a path by one persistent recursive watch (ZooKeeper 3.6): each event says which child came
 * or went, so the list is read once, and again only when the path's counter says that an event was missed.
 * Nobody else in this session may set a one-shot data watch on the path itself: on 3.6 to 3.8 it would silently
 * replace this one (reference 6, trap 4).
 */
export function createDelta(options: DeltaOptions): DeltaFollower {
  const { session, path, children, ring, watches, paths } = options;
  let isWatched = false;
  let isDue = false;
  let verification: NodeJS.Timeout | undefined;

  /** At different times on different hosts. */
  function verifyLater(): void {
    verification ??= setTimeout(
      () => {
        verification = undefined;
        isDue = true;
        ring();
      },
      VERIFY_MS * (1 + Math.random()),
    );
  }

  const onWatch = (event: WatchEvent): void => {
    // Until the watch stands somebody else follows the path, who would be told the opposite of what he has seen.
    if (!isWatched) return;
    verifyLater();
    if (event.path === path) tellOfPath(children, event.type);
    else tellOfChild(children, event.type, event.path.slice(path.length + 1));
    ring();
  };

  function failed(): void {
    isWatched = false;
    ring();
  }

  return {
    reconnected() {
      isWatched = false;
    },
    async watch(signal) {
      if (isWatched) return true;
      // A connection that ends meanwhile takes it back.
      isWatched = true;
      try {
        if (!(await watches.set({ path, listener: onWatch, failed }, signal))) {
          isWatched = false;
          return false;
        }
        // What happened while nobody watched.
        children.doubt();
        isDue = true;
        return true;
      } catch (error) {
        isWatched = false;
        throw error;
      }
    },
    async sync(signal) {
      if (isDue && !children.isStale) {
        await paths.stat(path, signal, (stat) => children.check(stat));
      }
      isDue = false;
      while (children.isStale) {
        await paths.list(path, signal, (listing) => children.list(listing));
      }
      const names = children.unread();
      const batches: Promise<void>[] = [];
      for (let start = 0; start < names.length; start += READS_AT_ONCE) {
        batches.push(readBatch(options, names.slice(start, start + READS_AT_ONCE), signal));
      }
      await Promise.all(batches);
    },
    end() {
      clearTimeout(verification);
      session.forgetWatch(onWatch);
    },
  };
}

async function readBatch(
  { session, path, children }: FollowerOptions,
  names: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const reads = names.map((name) => ({ kind: 'data', path: `${path}/${name}` }) as const);
  let failed: TandemError | undefined;
  await runInOrder(session, multiRead(reads), { signal }, (outcomes) => {
    for (const [index, name] of names.entries()) {
      const outcome = outcomes[index];
      if (outcome?.kind === 'data') children.read(name, outcome.data);
      else if (outcome?.kind === 'missing') children.read(name, undefined);
      if (outcome?.kind !== 'refused') continue;
      const error = refusal(getData(`${path}/${name}`), outcome.code);
      if (outcome.code === NO_AUTH) children.refuse(name, error.message);
      else failed = error;
    }
  });
  if (failed !== undefined) throw failed;
}

function tellOfPath(children: Children, type: number): void {
  if (type === EVENT.created) children.suspect();
  else if (type === EVENT.deleted) children.ended();
}

/** What is deeper than a child is not ours. */
function tellOfChild(children: Children, type: number, name: string): void {
  if (name.includes('/')) return;
  if (type === EVENT.created) children.created(name);
  else if (type === EVENT.deleted) children.deleted(name);
  else if (type === EVENT.dataChanged) children.changed(name);
}
