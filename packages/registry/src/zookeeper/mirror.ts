import {
  createBackoff,
  createLatest,
  decodeNerveName,
  decodeNerveRecord,
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

/** What one child is: an instance, or something that is set aside. Never changes for a name: sequential names are unique. */
type Entry = { readonly instance: Instance } | { readonly rejected: string };

const RETRY = { baseMs: 50, maxMs: 2_000 };

/**
 * Follows the children of one path (classic mode: a one-shot child watch, re-armed by the read itself). Data is read
 * only for names not seen before; names in path encoding need no read at all. One undecodable child costs itself only.
 * A list that could not be read as a whole is not published: stale beats partial.
 */
export async function* mirrorPath(options: {
  session: Session;
  path: string;
  signal: AbortSignal;
  log: Log;
}): AsyncGenerator<Snapshot> {
  const { session, path, signal, log } = options;
  const backoff = createBackoff(RETRY);
  const changes = createLatest<true>(signal);
  const onWatch = () => changes.set(true);
  // A new session has none of the old one's watches; a resumed one gets its missed events by itself.
  let readAs: bigint | undefined;
  const unsubscribe = session.subscribe((state) => {
    if (state.state === 'connected' && state.id !== readAs) changes.set(true);
  });
  let known = new Map<string, Entry>();
  let published: Map<string, Entry> | undefined;
  try {
    changes.set(true);
    for await (const _ of changes) {
      try {
        readAs = await session.connected(signal);
        const names = await listChildren(session, path, { signal, onWatch });
        known = await readEntries({ session, path, names, known, signal });
        backoff.reset();
      } catch (error) {
        if (signal.aborted || isTandemError(error, 'REGISTRY_CLOSED')) return;
        log.debug({ path, err: messageOf(error) }, 'could not read the instances, trying again');
        if (await sleepOrAborted(backoff.next(), signal)) return;
        changes.set(true);
        continue;
      }
      if (published !== undefined && sameKeys(published, known)) continue;
      published = known;
      yield toSnapshot(known);
    }
  } finally {
    unsubscribe();
    session.forgetWatch(onWatch);
  }
}

/** A missing path has no children; its creation rings. */
async function listChildren(
  session: Session,
  path: string,
  options: { signal: AbortSignal; onWatch: () => void },
): Promise<readonly string[]> {
  for (;;) {
    const listing = await session.run(getChildren(path, true), options);
    if (listing !== undefined) return listing.children;
    if ((await session.run(exists(path, true), options)) === undefined) return [];
  }
}

async function readEntries(options: {
  session: Session;
  path: string;
  names: readonly string[];
  known: ReadonlyMap<string, Entry>;
  signal: AbortSignal;
}): Promise<Map<string, Entry>> {
  const { session, path, names, known, signal } = options;
  const entries = await Promise.all(
    names.map(async (name): Promise<[string, Entry] | undefined> => {
      const before = known.get(name);
      if (before !== undefined) return [name, before];
      const inName = decodeNerveName(name);
      if (inName?.ok === true) return [name, { instance: inName.instance }];
      // The connection sends at most 250 of these at a time.
      const node = await session.run(getData(`${path}/${name}`), { signal });
      if (node === undefined) return undefined;
      const decoded = decodeNerveRecord(node.data);
      return [name, decoded.ok ? { instance: decoded.instance } : { rejected: decoded.reason }];
    }),
  );
  return new Map(entries.filter((entry) => entry !== undefined));
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

function sameKeys(a: ReadonlyMap<string, unknown>, b: ReadonlyMap<string, unknown>): boolean {
  return a.size === b.size && [...a.keys()].every((key) => b.has(key));
}
