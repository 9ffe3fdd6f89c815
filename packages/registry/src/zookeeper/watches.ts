import { JuteWriter } from './jute.ts';
import type { WatchKind } from './opcodes.ts';

/** EventType of ZooKeeper's WatcherEvent. Others are not for us (B29). */
export const EVENT = { created: 1, deleted: 2, dataChanged: 3, childrenChanged: 4 } as const;

export interface WatchEvent {
  readonly type: number;
  readonly path: string;
}

export type WatchListener = (event: WatchEvent) => void;

/** Which one-shot watches an event uses up. */
const FIRED: Readonly<Record<number, readonly WatchKind[]>> = {
  [EVENT.created]: ['exist', 'data'],
  [EVENT.deleted]: ['data', 'exist', 'child'],
  [EVENT.dataChanged]: ['data', 'exist'],
  [EVENT.childrenChanged]: ['child'],
};
/** What persistent recursive watches hear of. */
const CHANGED: ReadonlySet<number> = new Set([EVENT.created, EVENT.deleted, EVENT.dataChanged]);

/** The server refuses requests above 1 MB by closing the connection, so a large set goes in parts (B5). */
const CHUNK_BYTES = 128 * 1024;
/** The zxid and the lengths of the three lists. */
const CHUNK_HEAD_BYTES = 20;

/** The watches of one session: who hears of what, and how to set the one-shot ones again on a new connection. */
export interface WatchTable {
  /** The same listener on the same path and kind counts once (B18). */
  add(kind: WatchKind, path: string, listener: WatchListener): void;
  /** Hears of everything at and below a path, until it is forgotten. Whoever adds it sets it again after a reconnect. */
  addRecursive(path: string, listener: WatchListener): void;
  fire(event: WatchEvent): void;
  /** Returns the paths on whose recursive watch nobody listens any more. */
  forget(listener: WatchListener): string[];
  /** Bodies of SetWatches requests that re-arm every one-shot watch, relative to the last zxid that was seen. */
  requests(lastZxid: bigint): Buffer[];
}

export function createWatchTable(): WatchTable {
  const kinds: Record<WatchKind, Map<string, Set<WatchListener>>> = {
    data: new Map(),
    exist: new Map(),
    child: new Map(),
  };
  const recursive = new Map<string, Set<WatchListener>>();

  return {
    add: (kind, path, listener) => addTo(kinds[kind], path, listener),
    addRecursive: (path, listener) => addTo(recursive, path, listener),
    fire(event) {
      const { type, path } = event;
      const heard = new Set<WatchListener>();
      for (const kind of FIRED[type] ?? []) {
        for (const listener of kinds[kind].get(path) ?? []) heard.add(listener);
        kinds[kind].delete(path);
      }
      if (recursive.size > 0 && CHANGED.has(type)) {
        for (const ancestor of ancestry(path)) {
          for (const listener of recursive.get(ancestor) ?? []) heard.add(listener);
        }
      }
      for (const listener of heard) listener(event);
    },
    forget(listener) {
      for (const paths of Object.values(kinds)) forgetIn(paths, listener);
      return forgetIn(recursive, listener);
    },
    requests(lastZxid) {
      return chunk(kinds).map((part) => encode(lastZxid, part));
    },
  };
}

function addTo(paths: Map<string, Set<WatchListener>>, path: string, listener: WatchListener): void {
  const listeners = paths.get(path);
  if (listeners === undefined) paths.set(path, new Set([listener]));
  else listeners.add(listener);
}

/** The paths that are without a listener from now on. */
function forgetIn(paths: Map<string, Set<WatchListener>>, listener: WatchListener): string[] {
  const left: string[] = [];
  for (const [path, listeners] of paths) {
    if (!listeners.delete(listener) || listeners.size > 0) continue;
    paths.delete(path);
    left.push(path);
  }
  return left;
}

/** A path and everything above it. */
function ancestry(path: string): string[] {
  const paths = [path];
  for (let end = path.lastIndexOf('/'); end > 0; end = path.lastIndexOf('/', end - 1))
    paths.push(path.slice(0, end));
  if (path !== '/') paths.push('/');
  return paths;
}

type Paths = Record<WatchKind, string[]>;

function chunk(kinds: Record<WatchKind, Map<string, unknown>>): Paths[] {
  const chunks: Paths[] = [];
  let size = CHUNK_BYTES;
  for (const kind of ['data', 'exist', 'child'] as const) {
    for (const path of kinds[kind].keys()) {
      const cost = Buffer.byteLength(path) + 4;
      if (size + cost > CHUNK_BYTES) {
        chunks.push({ data: [], exist: [], child: [] });
        size = CHUNK_HEAD_BYTES;
      }
      size += cost;
      chunks.at(-1)?.[kind].push(path);
    }
  }
  return chunks;
}

function encode(lastZxid: bigint, paths: Paths): Buffer {
  const writer = new JuteWriter().long(lastZxid);
  for (const kind of ['data', 'exist', 'child'] as const)
    writer.vector(paths[kind], (out, path) => out.text(path));
  return writer.toBuffer();
}
