import { JuteWriter } from './jute.ts';
import type { WatchKind } from './opcodes.ts';

export type WatchListener = () => void;

/** EventType of ZooKeeper's WatcherEvent -> which one-shot watches it uses up. Other types are not for us (B29). */
const FIRED: Readonly<Record<number, readonly WatchKind[]>> = {
  1: ['exist', 'data'],
  2: ['data', 'exist', 'child'],
  3: ['data', 'exist'],
  4: ['child'],
};

/** The server refuses requests above 1 MB by closing the connection, so a large set goes in parts (B5). */
const CHUNK_BYTES = 128 * 1024;
/** The zxid and the lengths of the three lists. */
const CHUNK_HEAD_BYTES = 20;

/** The one-shot watches of one session: who hears of what, and how to set them again on a new connection. */
export interface WatchTable {
  /** The same listener on the same path and kind counts once (B18). */
  add(kind: WatchKind, path: string, listener: WatchListener): void;
  fire(eventType: number, path: string): void;
  forget(listener: WatchListener): void;
  /** Bodies of SetWatches requests that re-arm everything, relative to the last zxid that was seen. */
  requests(lastZxid: bigint): Buffer[];
}

export function createWatchTable(): WatchTable {
  const kinds: Record<WatchKind, Map<string, Set<WatchListener>>> = {
    data: new Map(),
    exist: new Map(),
    child: new Map(),
  };

  return {
    add(kind, path, listener) {
      const listeners = kinds[kind].get(path);
      if (listeners === undefined) kinds[kind].set(path, new Set([listener]));
      else listeners.add(listener);
    },
    fire(eventType, path) {
      const heard = new Set<WatchListener>();
      for (const kind of FIRED[eventType] ?? []) {
        for (const listener of kinds[kind].get(path) ?? []) heard.add(listener);
        kinds[kind].delete(path);
      }
      for (const listener of heard) listener();
    },
    forget(listener) {
      for (const paths of Object.values(kinds)) {
        for (const [path, listeners] of paths) {
          if (listeners.delete(listener) && listeners.size === 0) paths.delete(path);
        }
      }
    },
    requests(lastZxid) {
      return chunk(kinds).map((part) => encode(lastZxid, part));
    },
  };
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
