import { isTandemError, sleep } from '@tandem/core';

import type { Follower, FollowerOptions } from './follower.ts';
import { runInOrder } from './in-order.ts';
import { exists, getChildren, getData, NO_AUTH } from './opcodes.ts';
import { createPace } from './pace.ts';
import type { WatchEvent } from './watches.ts';

/** Length prefix of a name in the list. */
const NAME_OVERHEAD_BYTES = 4;

/**
 * Follows the children of a path by one-shot watches (any ZooKeeper): after a change the list is read again, at most as
 * often as its size allows, and the read itself sets the next watch. Nodes whose data may change have a watch each.
 */
export function createClassic(options: FollowerOptions): Follower {
  const { session, path, codec, children, ring } = options;
  const pace = createPace();
  /** The session that the watches belong to. */
  let owner: bigint | undefined;

  const onList = (): void => {
    children.suspect();
    ring();
  };
  const onData = (event: WatchEvent): void => {
    children.changed(event.path.slice(event.path.lastIndexOf('/') + 1));
    ring();
  };

  async function list(signal: AbortSignal): Promise<void> {
    const watch = { signal, onWatch: onList };
    let isThere = false;
    await runInOrder(session, getChildren(path, true), watch, (listing) => {
      if (listing === undefined) return;
      isThere = true;
      children.list(listing);
      let bytes = 0;
      for (const name of listing.children) bytes += name.length + NAME_OVERHEAD_BYTES;
      pace.read(bytes);
    });
    if (isThere) return;
    // A missing path has no children; its creation rings. If it is there by now, the list is still stale.
    await runInOrder(session, exists(path, true), watch, (stat) => {
      if (stat === undefined) children.list(undefined);
    });
  }

  async function read(name: string, signal: AbortSignal): Promise<void> {
    const isFixed = codec.isImmutable(name);
    const watch = isFixed ? { signal } : { signal, onWatch: onData };
    try {
      await runInOrder(session, getData(`${path}/${name}`, !isFixed), watch, (node) =>
        children.read(name, node?.data),
      );
    } catch (error) {
      if (!isTandemError(error, 'REGISTRY_REFUSED') || error.details['zookeeperCode'] !== NO_AUTH)
        throw error;
      children.refuse(name, error.message);
    }
  }

  return {
    reconnected(session) {
      // A resumed session gets its watches back, with what they missed. Those of another have gone with it.
      if (owner !== undefined && owner !== session) {
        children.suspect();
        children.doubt();
      }
      owner = session;
    },
    async sync(signal) {
      while (children.isStale) {
        const waitMs = pace.delay();
        if (waitMs > 0) await sleep(waitMs, signal);
        await list(signal);
      }
      // The connection sends at most 250 of these at a time.
      await Promise.all(children.unread().map((name) => read(name, signal)));
    },
    end() {
      session.forgetWatch(onList);
      session.forgetWatch(onData);
    },
  };
}
