import { EventType } from './opcodes.ts';
import { parentOf } from './path.ts';
import { notification } from './replies.ts';
import type { TreeEvent } from './tree.ts';

/** Whoever is told: a connection. */
export interface Watcher {
  send(frame: Buffer): void;
}

/** `content` and `children` are told once and forgotten; the other two stay until they are removed. */
export type WatchKind = 'content' | 'children' | 'persistent' | 'recursive';
export const WATCH_KINDS: readonly WatchKind[] = ['content', 'children', 'persistent', 'recursive'];

type WatchTable = Map<string, Set<Watcher>>;

/**
 * Who watches what. The four kinds are kept apart, as ZooKeeper 3.9 does (3.6 to 3.8 keep one per connection
 * and path, so that a one-shot watch silently replaces a persistent one: ZOOKEEPER-4466).
 */
export class Watches {
  readonly #tables: Readonly<Record<WatchKind, WatchTable>> = {
    content: new Map(),
    children: new Map(),
    persistent: new Map(),
    recursive: new Map(),
  };
  readonly #pathsOf = new Map<Watcher, Record<WatchKind, Set<string>>>();

  add(kind: WatchKind, path: string, watcher: Watcher): void {
    const watchers = this.#tables[kind].get(path);
    if (watchers === undefined) this.#tables[kind].set(path, new Set([watcher]));
    else watchers.add(watcher);

    let paths = this.#pathsOf.get(watcher);
    if (paths === undefined) {
      paths = { content: new Set(), children: new Set(), persistent: new Set(), recursive: new Set() };
      this.#pathsOf.set(watcher, paths);
    }
    paths[kind].add(path);
  }

  has(kind: WatchKind, path: string, watcher: Watcher): boolean {
    return this.#pathsOf.get(watcher)?.[kind].has(path) ?? false;
  }

  /** Whether there was such a watch. */
  remove(kind: WatchKind, path: string, watcher: Watcher): boolean {
    if (!this.#pathsOf.get(watcher)?.[kind].delete(path)) return false;
    const watchers = this.#tables[kind].get(path);
    watchers?.delete(watcher);
    if (watchers?.size === 0) this.#tables[kind].delete(path);
    return true;
  }

  /** Forgets a watcher that is gone. */
  removeAll(watcher: Watcher): void {
    const paths = this.#pathsOf.get(watcher);
    if (paths === undefined) return;
    for (const kind of WATCH_KINDS) for (const path of paths[kind]) this.remove(kind, path, watcher);
    this.#pathsOf.delete(watcher);
  }

  /** Tells everyone who watches for this event, each once. The frame is encoded once for all. */
  fire(event: TreeEvent): void {
    const watchers = this.#watchersFor(event);
    if (watchers.size === 0) return;
    const frame = notification(event);
    for (const watcher of watchers) watcher.send(frame);
  }

  #watchersFor({ type, path }: TreeEvent): Set<Watcher> {
    const watchers = new Set<Watcher>();
    if (type !== EventType.childrenChanged) this.#take('content', path, watchers);
    if (type === EventType.childrenChanged || type === EventType.deleted)
      this.#take('children', path, watchers);
    for (const watcher of this.#tables.persistent.get(path) ?? []) watchers.add(watcher);
    if (type === EventType.childrenChanged || this.#tables.recursive.size === 0) return watchers;
    for (let place = path; ; place = parentOf(place)) {
      for (const watcher of this.#tables.recursive.get(place) ?? []) watchers.add(watcher);
      if (place === '/') return watchers;
    }
  }

  #take(kind: 'content' | 'children', path: string, into: Set<Watcher>): void {
    const watchers = this.#tables[kind].get(path);
    if (watchers === undefined) return;
    this.#tables[kind].delete(path);
    for (const watcher of watchers) {
      this.#pathsOf.get(watcher)?.[kind].delete(path);
      into.add(watcher);
    }
  }
}
