import {
  type Codec,
  createBackoff,
  createLatest,
  type Instance,
  isTandemError,
  type Log,
  messageOf,
  type Rejection,
  sleepOrAborted,
  type Snapshot,
  uniqueInstances,
} from '@tandem/core';

import { exists, getChildren, getData } from './opcodes.ts';
import type { Session } from './session.ts';

/**
 * What one child is: an instance, or something that is set aside. Never changes for a name as long as the path lives:
 * sequential names are unique.
 */
type Entry = { readonly instance: Instance } | { readonly rejected: string };

const RETRY = { baseMs: 50, maxMs: 2_000 };
/** Beyond it, a child that comes and goes all the time would keep the others from being seen. */
const MAX_OUTDATED_LISTS = 5;

/**
 * Follows the children of one path (classic mode: a one-shot child watch, re-armed by the read itself). Data is read
 * only for names not seen before; names in path encoding need no read at all. One undecodable child costs itself only.
 * A list that could not be read as a whole is not published: stale beats partial. Nor is one that was outdated before
 * its data were read: an instance whose node was replaced meanwhile would be missing from it.
 */
export async function* mirrorPath(options: {
  session: Session;
  path: string;
  codec: Codec;
  signal: AbortSignal;
  log: Log;
}): AsyncGenerator<Snapshot> {
  const { session, path, codec, signal } = options;
  const backoff = createBackoff(RETRY);
  const refusals = createRefusals(options);
  const changes = createLatest<true>(signal);
  const onWatch = () => changes.set(true);
  // A new session has none of the old one's watches; a resumed one gets its missed events by itself.
  let readAs: bigint | undefined;
  const unsubscribe = session.subscribe((state) => {
    if (state.state === 'connected' && readAs !== undefined && readAs !== state.id) changes.set(true);
  });
  let life: string | undefined;
  let known = new Map<string, Entry>();
  let published: ReadonlyMap<string, Entry> | undefined;
  let outdated = 0;
  try {
    changes.set(true);
    for await (const _ of changes) {
      try {
        readAs = undefined;
        readAs = await session.connected(signal);
        const listing = await listChildren(session, path, { signal, onWatch });
        if (listing.life !== life) known = new Map();
        life = listing.life;
        const isCurrent = await readEntries({ session, path, codec, names: listing.names, known, signal });
        known = only(known, listing.names);
        backoff.reset();
        refusals.end();
        outdated = isCurrent ? 0 : outdated + 1;
      } catch (error) {
        if (signal.aborted || isTandemError(error, 'REGISTRY_CLOSED')) return;
        refusals.note(error);
        if (await sleepOrAborted(backoff.next(), signal)) return;
        changes.set(true);
        continue;
      }
      if (outdated > 0 && outdated <= MAX_OUTDATED_LISTS) {
        changes.set(true);
        continue;
      }
      if (published !== undefined && isSame(published, known)) continue;
      published = new Map(known);
      yield toSnapshot(published);
    }
  } finally {
    unsubscribe();
    session.forgetWatch(onWatch);
  }
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
  if (isTandemError(error, 'REGISTRY_CONNECTION_LOST') || isTandemError(error, 'REGISTRY_AUTH_FAILED'))
    return true;
  return isTandemError(error, 'DEADLINE_EXCEEDED') && session.state.state !== 'connected';
}

interface Listing {
  readonly names: readonly string[];
  /** Tells one life of the path from the next: deleted and made again, or on wiped data, it counts its names anew. */
  readonly life: string;
}

/** A missing path has no children; its creation rings. */
async function listChildren(
  session: Session,
  path: string,
  options: { signal: AbortSignal; onWatch: () => void },
): Promise<Listing> {
  for (;;) {
    const listing = await session.run(getChildren(path, true), options);
    if (listing !== undefined) {
      const { czxid, ctime } = listing.stat;
      return { names: listing.children, life: `${czxid} ${ctime}` };
    }
    if ((await session.run(exists(path, true), options)) === undefined) return { names: [], life: 'missing' };
  }
}

/**
 * Adds to `known` as the answers come, so that a round that breaks off has not been for nothing. Resolves with whether
 * every name was still there.
 */
async function readEntries(options: {
  session: Session;
  path: string;
  codec: Codec;
  names: readonly string[];
  known: Map<string, Entry>;
  signal: AbortSignal;
}): Promise<boolean> {
  const { session, path, codec, names, known, signal } = options;
  const found = await Promise.all(
    names.map(async (name) => {
      if (known.has(name)) return true;
      const inName = codec.decodeName(name);
      if (inName?.ok === true) {
        known.set(name, { instance: inName.instance });
        return true;
      }
      // The connection sends at most 250 of these at a time.
      const node = await session.run(getData(`${path}/${name}`), { signal });
      if (node === undefined) return false;
      const decoded = codec.decodeRecord(node.data);
      known.set(name, decoded.ok ? { instance: decoded.instance } : { rejected: decoded.reason });
      return true;
    }),
  );
  return !found.includes(false);
}

function only(entries: ReadonlyMap<string, Entry>, names: readonly string[]): Map<string, Entry> {
  const kept = new Map<string, Entry>();
  for (const name of names) {
    const entry = entries.get(name);
    if (entry !== undefined) kept.set(name, entry);
  }
  return kept;
}

function toSnapshot(entries: ReadonlyMap<string, Entry>): Snapshot {
  const instances: Instance[] = [];
  const rejected: Rejection[] = [];
  // Highest sequence first: of two nodes of one instance, the newer record counts.
  for (const [name, entry] of [...entries].toSorted(([a], [b]) => compareSequence(b, a))) {
    if ('instance' in entry) instances.push(entry.instance);
    else rejected.push({ place: name, reason: entry.rejected });
  }
  return { instances: uniqueInstances(instances), rejected };
}

function compareSequence(a: string, b: string): number {
  return sequenceOf(a) - sequenceOf(b);
}

function sequenceOf(name: string): number {
  const match = /_(\d+)$/.exec(name);
  return match === null ? -1 : Number(match[1]);
}

/** By identity: an entry is made once for a name, and once more for each life of the path. */
function isSame(a: ReadonlyMap<string, Entry>, b: ReadonlyMap<string, Entry>): boolean {
  return a.size === b.size && [...a].every(([name, entry]) => b.get(name) === entry);
}
