import { ErrorCode, RequestRefused } from './errors.ts';
import type { JuteReader } from './jute.ts';
import { EventType } from './opcodes.ts';
import { readPath, type Operation, type RequestContext } from './operation.ts';
import { notification } from './replies.ts';
import { WATCH_KINDS, type WatchKind } from './watches.ts';

/** Which watches the type in removeWatches and checkWatches stands for; the last two came with ZooKeeper 3.9. */
const WATCHER_TYPES: Readonly<Record<number, readonly WatchKind[]>> = {
  1: ['children'],
  2: ['content'],
  3: WATCH_KINDS,
  4: ['persistent'],
  5: ['recursive'],
};

const ADD_WATCH_MODES: readonly WatchKind[] = ['persistent', 'recursive'];

export const addWatch: Operation = ({ database, watcher }, body, reply) => {
  const path = readPath(body);
  const kind = ADD_WATCH_MODES[body.int()];
  if (kind === undefined) throw new RequestRefused(ErrorCode.marshalling);
  database.watches.add(kind, path, watcher);
  reply.int(ErrorCode.ok);
};

function readWatcherType(body: JuteReader): { path: string; kinds: readonly WatchKind[] } {
  const path = readPath(body);
  const kinds = WATCHER_TYPES[body.int()];
  if (kinds === undefined) throw new RequestRefused(ErrorCode.marshalling);
  return { path, kinds };
}

export const removeWatches: Operation = ({ database, watcher }, body) => {
  const { path, kinds } = readWatcherType(body);
  const removed = kinds.filter((kind) => database.watches.remove(kind, path, watcher));
  if (removed.length === 0) throw new RequestRefused(ErrorCode.noWatcher);
};

export const checkWatches: Operation = ({ database, watcher }, body) => {
  const { path, kinds } = readWatcherType(body);
  if (!kinds.some((kind) => database.watches.has(kind, path, watcher))) {
    throw new RequestRefused(ErrorCode.noWatcher);
  }
};

/** Sets a one-shot watch again, or tells at once what happened while the client was away. */
function restore(
  { database, watcher }: RequestContext,
  kind: WatchKind,
  path: string,
  missed: EventType | undefined,
): void {
  if (missed === undefined) database.watches.add(kind, path, watcher);
  else watcher.send(notification({ type: missed, path }));
}

function readPaths(body: JuteReader): string[] {
  const paths = body.vector(readPath);
  if (paths === null) throw new RequestRefused(ErrorCode.marshalling);
  return paths;
}

function restoreOneShots(context: RequestContext, body: JuteReader): void {
  const { tree } = context.database;
  const seenZxid = body.long();
  const onContent = readPaths(body);
  const onExistence = readPaths(body);
  const onChildren = readPaths(body);
  for (const path of onContent) {
    const node = tree.get(path);
    const missed = node && (node.mzxid > seenZxid ? EventType.dataChanged : undefined);
    restore(context, 'content', path, node ? missed : EventType.deleted);
  }
  for (const path of onExistence) restore(context, 'content', path, tree.get(path) && EventType.created);
  for (const path of onChildren) {
    const node = tree.get(path);
    const missed = node && (node.pzxid > seenZxid ? EventType.childrenChanged : undefined);
    restore(context, 'children', path, node ? missed : EventType.deleted);
  }
}

export const setWatches: Operation = (context, body) => {
  restoreOneShots(context, body);
};

/** Persistent watches are set again too; what they missed is not told. */
export const setWatches2: Operation = (context, body) => {
  restoreOneShots(context, body);
  const { watches } = context.database;
  for (const kind of ADD_WATCH_MODES) {
    for (const path of readPaths(body)) watches.add(kind, path, context.watcher);
  }
};
